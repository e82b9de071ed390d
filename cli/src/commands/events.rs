//! `featherctl events`

use std::time::Duration;

use feather_proto::pb::controller::v1 as pb;
use time::OffsetDateTime;
use tokio::time::Instant;
use tokio_stream::StreamExt as _;

use crate::{
    arguments::Context,
    connect::{Connection, interrupt},
    error::Failure,
    units,
    view::event::EventView,
};

const PAUSE_MIN: Duration = Duration::from_millis(200);
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// Show what happened in the fleet, the oldest first.
///
/// Each event has a number. Whoever asks for those since a number gets every later one, once, also when the controller was restarted in
/// between. Events are kept for 90 days, the newest 50000 at most.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Go on with new events as they come, until Ctrl-C.
    #[arg(long, short)]
    follow: bool,
    /// Begin so long ago (1h), or behind this event (4711; 0 for the oldest), instead of with the newest.
    #[arg(long, value_name = "DURATION|NUMBER", value_parser = since)]
    since: Option<Since>,
    /// Only those about this tenant or server, `dns` or `certificate`.
    #[arg(long, value_name = "SUBJECT")]
    subject: Option<String>,
    /// Without --since: begin with the newest so many.
    #[arg(long, short = 'n', value_name = "COUNT", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=50_000))]
    newest: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Since {
    Cursor(i64),
    Ago(Duration),
}

fn since(text: &str) -> Result<Since, String> {
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return text.parse().map(Since::Cursor).map_err(|_| format!("{text} is too large for an event's number"));
    }
    let wrong =
        |_| format!("{text:?} is neither a duration nor an event's number: write for example 90s, 1h, 7d or 4711");
    units::parse_duration(text).map(Since::Ago).map_err(wrong)
}

/// The first request; the next ones begin behind what has arrived.
#[allow(clippy::disallowed_methods, reason = "a duration that a person types ends now")]
fn request(arguments: &Args) -> pb::WatchEventsRequest {
    let (after, since, newest) = match arguments.since {
        None => (0, None, arguments.newest),
        Some(Since::Cursor(after)) => (after, None, 0),
        Some(Since::Ago(ago)) => {
            let begin = OffsetDateTime::now_utc() - ago;
            (0, Some(feather_proto::model::to_timestamp(begin)), 0)
        }
    };
    let subject = arguments.subject.clone().unwrap_or_default();
    pb::WatchEventsRequest { after, since, subject, newest, follow: arguments.follow }
}

pub(crate) async fn run(arguments: Args, context: &Context) -> Result<(), Failure> {
    let connection = context.connect()?;
    let mut request = request(&arguments);
    if !arguments.follow {
        return read(context, &connection, &mut request, &mut Instant::now()).await;
    }
    tokio::select! {
        done = follow(context, &connection, request) => done,
        () = interrupt() => Ok(()),
    }
}

/// Through restarts of the controller, for as long as a call may take.
async fn follow(
    context: &Context,
    connection: &Connection,
    mut request: pb::WatchEventsRequest,
) -> Result<(), Failure> {
    let mut heard = Instant::now();
    let (mut pause, mut told) = (PAUSE_MIN, false);
    loop {
        let before = heard;
        let failure = match read(context, connection, &mut request, &mut heard).await {
            // The controller that ended the stream is about to stop.
            Ok(()) => None,
            Err(failure) if failure.retryable => Some(failure),
            Err(failure) => return Err(failure),
        };
        if heard > before {
            (pause, told) = (PAUSE_MIN, false);
        }
        if let Some(failure) = failure.filter(|_| heard.elapsed() + pause > context.global.timeout) {
            let hint = format!("`featherctl events --follow --since {}` goes on where this ended", request.after);
            return Err(failure.with_hint(hint));
        }
        if !std::mem::replace(&mut told, true) {
            context.output.note("lost the connection to the controller; connecting again");
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

/// One stream, to its end. Notes in the request what has arrived, and when the controller was heard last.
async fn read(
    context: &Context,
    connection: &Connection,
    request: &mut pb::WatchEventsRequest,
    heard: &mut Instant,
) -> Result<(), Failure> {
    let mut stream = connection.call(connection.events().watch_events(request.clone())).await?;
    *heard = Instant::now();
    let ended = loop {
        match stream.next().await {
            None => break Ok(()),
            Some(Err(status)) => break Err(connection.failure(status)),
            Some(Ok(message)) => {
                if let Some(event) = message.event.map(EventView::from) {
                    context.output.stream(&event, &event.line())?;
                }
                // From here on every event counts, however many there are.
                (request.after, request.newest) = (message.cursor, 0);
            }
        }
    };
    // A stream that is silent for long was heard until it broke.
    *heard = Instant::now();
    ended
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Since, since};

    #[test]
    fn a_number_is_a_cursor_and_a_duration_is_one() {
        assert_eq!(since("4711"), Ok(Since::Cursor(4711)));
        assert_eq!(since("0"), Ok(Since::Cursor(0)));
        assert_eq!(since("1h"), Ok(Since::Ago(Duration::from_secs(3600))));
        for text in ["", "-1", "soon", "1.5h", "99999999999999999999"] {
            assert!(since(text).is_err(), "{text:?} was accepted");
        }
    }
}
