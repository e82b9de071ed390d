//! One trace through every process of the fleet, and the log lines that belong to it.
//!
//! Owns how a process logs, where its spans go, and how the context travels: in the header `traceparent` of each call
//! (W3C Trace Context), and as text for what has to outlive a process. Every call belongs to a trace, whether or not anybody
//! collects it: its id is in the log. Spans leave a process only when `OTEL_EXPORTER_OTLP_ENDPOINT` (or
//! `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT`) names a collector that speaks OTLP over gRPC; the other variables of the
//! OpenTelemetry specification apply. A collector that does not answer costs spans and nothing else.
//!
//! Spans name calls, operations, steps and tenants. They never hold a message's content.

use std::{collections::HashMap, io::IsTerminal as _, time::Duration};

use opentelemetry::{
    propagation::TextMapPropagator as _,
    trace::{TraceContextExt as _, TracerProvider as _},
};
use opentelemetry_otlp::{ExporterBuildError, SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::{Resource, propagation::TraceContextPropagator, trace::SdkTracerProvider};
use tonic::{Request, Status, service::Interceptor};
use tracing::{Level, Span, Subscriber};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;
use tracing_subscriber::{
    EnvFilter, Layer, Registry,
    filter::{FilterFn, filter_fn},
    fmt::format::debug_fn,
    layer::SubscriberExt as _,
    registry::LookupSpan,
    util::SubscriberInitExt as _,
};

mod calls;

pub use calls::{Calls, Meter};

const PARENT: &str = "traceparent";
const COLLECTORS: [&str; 2] = ["OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"];
/// Spans that have not left by then, when the process ends, are lost.
const FLUSH_MAX: Duration = Duration::from_secs(2);

/// Lets each call say which trace it belongs to: that of the span in which it is made.
#[derive(Debug, Clone, Copy, Default)]
pub struct Onward;

impl Interceptor for Onward {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(parent) = current().and_then(|parent| parent.parse().ok()) {
            request.metadata_mut().insert(PARENT, parent);
        }
        Ok(request)
    }
}

/// The span in which we are, as text that [`continues`] reads; `None` outside of every span.
pub fn current() -> Option<String> {
    let mut carrier = HashMap::new();
    TraceContextPropagator::new().inject_context(&Span::current().context(), &mut carrier);
    carrier.remove(PARENT)
}

/// From now on the span is a child of what this text names. One that is not such a text begins a trace of its own.
pub fn continues(span: &Span, parent: Option<&str>) {
    if let Some(parent) = parent {
        let carrier = HashMap::from([(PARENT.to_owned(), parent.to_owned())]);
        // It fails for spans that nobody listens to.
        drop(span.set_parent(TraceContextPropagator::new().extract(&carrier)));
    }
    let context = span.context();
    let trace = context.span().span_context().trace_id();
    if trace != opentelemetry::TraceId::INVALID {
        span.record("trace_id", tracing::field::display(trace));
    }
}

/// Says something of a span to whoever collects it. The log does not show it.
pub fn note(span: &Span, key: &'static str, value: String) {
    span.set_attribute(key, value);
}

/// Form of the log on standard error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogForm {
    /// For people.
    Text,
    /// One JSON object for each line.
    Json,
}

/// Who writes spans, and where they go.
pub struct Tracing {
    provider: SdkTracerProvider,
    /// Why nothing goes to the collector that was named.
    problem: Option<ExporterBuildError>,
}

impl Tracing {
    /// For a process of this name (`service.name`): `feather-agent`, say. To be called within a runtime, on which spans are sent.
    pub fn new(service: &'static str) -> Self {
        let named = COLLECTORS.iter().any(|name| std::env::var_os(name).is_some_and(|value| !value.is_empty()));
        Self::through(service, named.then(|| SpanExporter::builder().with_tonic().build()))
    }

    /// The same with a collector at this URL, whatever the environment says.
    pub fn to(service: &'static str, collector: &str) -> Self {
        Self::through(service, Some(SpanExporter::builder().with_tonic().with_endpoint(collector).build()))
    }

    fn through(service: &'static str, exporter: Option<Result<SpanExporter, ExporterBuildError>>) -> Self {
        let builder =
            SdkTracerProvider::builder().with_resource(Resource::builder().with_service_name(service).build());
        let (builder, problem) = match exporter {
            None => (builder, None),
            Some(Ok(exporter)) => (builder.with_batch_exporter(exporter), None),
            Some(Err(error)) => (builder, Some(error)),
        };
        Self { provider: builder.build(), problem }
    }

    /// What turns spans of this project into spans of the trace.
    pub fn layer<S>(&self) -> impl Layer<S> + use<S>
    where
        S: Subscriber + for<'span> LookupSpan<'span>,
    {
        let ours: FilterFn = filter_fn(|metadata| {
            metadata.is_span() && *metadata.level() <= Level::INFO && metadata.target().starts_with("feather")
        });
        tracing_opentelemetry::layer()
            .with_tracer(self.provider.tracer("feather"))
            .with_location(false)
            .with_threads(false)
            .with_target(false)
            .with_filter(ours)
    }

    /// Makes this and the log what the whole process writes to. `filter` is about the log alone.
    pub fn install(&self, form: LogForm, filter: EnvFilter) {
        let colours = std::io::stderr().is_terminal();
        let log = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(colours);
        let log = match form {
            LogForm::Text => log.with_target(false).fmt_fields(for_people()).with_filter(filter).boxed(),
            LogForm::Json => log.json().with_filter(filter).boxed(),
        };
        Registry::default().with(log).with(self.layer()).init();
        if let Some(error) = &self.problem {
            tracing::warn!(%error, "traces go nowhere; OTEL_EXPORTER_OTLP_ENDPOINT should be like http://HOST:4317");
        }
    }

    /// The same without a log, for programs that have another way to speak.
    pub fn install_silently(&self) {
        Registry::default().with(self.layer()).init();
    }

    /// Sends what is left, within two seconds.
    pub async fn finish(self) {
        // It blocks, and needs the runtime meanwhile. Who collects is told by the exporter's own log.
        let sending = tokio::task::spawn_blocking(move || self.provider.shutdown_with_timeout(FLUSH_MAX));
        drop(tokio::time::timeout(FLUSH_MAX, sending).await);
    }
}

/// Fields as usual, without those that are for collectors alone.
fn for_people() -> impl for<'writer> tracing_subscriber::fmt::FormatFields<'writer> {
    use tracing_subscriber::field::MakeExt as _;
    debug_fn(|writer, field, value| match field.name() {
        "message" => write!(writer, "{value:?}"),
        name if name.starts_with("otel.") || name.starts_with("log.") => Ok(()),
        name => write!(writer, "{name}={value:?}"),
    })
    .delimited(" ")
}
