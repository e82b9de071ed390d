-- The span that an operation was asked for in, as a traceparent: whoever resumes the operation continues the same trace.

ALTER TABLE operations ADD COLUMN trace TEXT;
