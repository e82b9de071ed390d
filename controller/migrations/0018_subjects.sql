-- Operations are about a tenant or about a server's own container: 'alice', 'server/nyc'. No name of a tenant contains a '/'.

ALTER TABLE operations RENAME COLUMN tenant TO subject;
ALTER TABLE operation_holds RENAME COLUMN tenant TO subject;
