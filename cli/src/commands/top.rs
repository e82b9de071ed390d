//! `featherctl top`

use std::{sync::Arc, time::Duration};

use feather_proto::pb::controller::v1 as pb;
use time::OffsetDateTime;
use tokio::{sync::mpsc, task::JoinSet};
use tokio_stream::StreamExt as _;

use crate::{
    arguments::Context,
    connect::{Connection, terminated},
    error::Failure,
    top::{News, Screen, draw::Look},
    units,
    view::{event::EventView, status::StatusView, tenant::TenantView},
};

/// Pause before the stream of events is asked for again.
const AGAIN: Duration = Duration::from_secs(1);
/// Events that are there from the beginning.
const EVENTS_AT_FIRST: u32 = 100;
/// News that wait to be shown; whoever brings more waits.
const NEWS_MAX: usize = 64;

/// Show the fleet on a screen that keeps up, until you leave it.
///
/// Servers, tenants, operations with their progress, warnings, events. Tab and arrows go through the lists, 1 to 5 choose one, s sorts, r turns the order round, q or Ctrl-C leaves. It needs a terminal;
/// `featherctl status` shows the same once, also for programs.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Time between two looks.
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = units::parse_duration)]
    interval: Duration,
}

#[allow(clippy::disallowed_methods, reason = "ages are told by the clock of whoever reads them")]
pub(crate) async fn run(arguments: Args, context: &Context) -> Result<(), Failure> {
    if context.output.is_json() || !context.output.can_show_a_screen() {
        let message = "top needs a terminal on standard input and output";
        return Err(Failure::usage(
            message,
            "`featherctl status` shows the same once; with --output json for programs",
        ));
    }
    // Whoever may not look hears it before the screen is taken.
    let connection = Arc::new(context.connect()?);
    let first = look(&connection).await?;
    let (news, mut heard) = mpsc::channel(NEWS_MAX);
    let mut tasks = JoinSet::new();
    tasks.spawn(keep_looking(connection.clone(), arguments.interval, news.clone()));
    tasks.spawn(follow_events(connection, news));
    let mut screen = Screen::new();
    screen.take(first);
    let mut terminal = context.output.screen()?;
    let mut ending = std::pin::pin!(terminated());
    let mut clock = tokio::time::interval(Duration::from_secs(1));
    loop {
        let look = Look { now: OffsetDateTime::now_utc(), colour: terminal.colour() };
        terminal.draw(&screen, look)?;
        tokio::select! {
            key = terminal.key() => if !key?.is_none_or(|key| screen.press(key)) { return Ok(()) },
            Some(brought) = heard.recv() => screen.take(brought),
            Some(ended) = tasks.join_next() => match ended {
                Ok(failure) => return Err(failure),
                Err(panic) => return Err(Failure::bug(panic.to_string())),
            },
            // Ages grow.
            _ = clock.tick() => {}
            () = &mut ending => return Ok(()),
        }
    }
}

/// One look at everything.
async fn look(connection: &Connection) -> Result<News, Failure> {
    let status = connection.call(connection.status().get_status(pb::GetStatusRequest {})).await?;
    let tenants = connection.call(connection.tenants().list_tenants(pb::ListTenantsRequest::default())).await?.tenants;
    Ok(News::Status(Box::new(StatusView::from(status)), tenants.into_iter().map(TenantView::from).collect()))
}

/// Looks at intervals for as long as it may.
async fn keep_looking(connection: Arc<Connection>, interval: Duration, news: mpsc::Sender<News>) -> Failure {
    loop {
        tokio::time::sleep(interval).await;
        let brought = match look(&connection).await {
            Ok(brought) => brought,
            Err(failure) if failure.retryable => News::Lost(failure.message),
            Err(failure) => return failure,
        };
        // Nobody reads any more: the whole ends.
        drop(news.send(brought).await);
    }
}

/// Brings each event once, over breaks of the connection.
async fn follow_events(connection: Arc<Connection>, news: mpsc::Sender<News>) -> Failure {
    let mut request = pb::WatchEventsRequest { newest: EVENTS_AT_FIRST, follow: true, ..Default::default() };
    loop {
        match read_events(&connection, &mut request, &news).await {
            Err(failure) if !failure.retryable => return failure,
            // Of a break the looks tell.
            _ => tokio::time::sleep(AGAIN).await,
        }
    }
}

async fn read_events(
    connection: &Connection,
    request: &mut pb::WatchEventsRequest,
    news: &mpsc::Sender<News>,
) -> Result<(), Failure> {
    let mut stream = connection.call(connection.events().watch_events(request.clone())).await?;
    while let Some(message) = stream.next().await {
        let message = message.map_err(|status| connection.failure(status))?;
        if let Some(event) = message.event {
            drop(news.send(News::Event(Box::new(EventView::from(event)))).await);
        }
        (request.after, request.newest) = (message.cursor, 0);
    }
    Ok(())
}
