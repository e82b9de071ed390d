//! `featherctl doctor`

use feather_proto::{
    pb::controller::v1 as pb,
    version::{self, Age, Range},
};
use time::{Duration, OffsetDateTime};
use tokio::time::Instant;

use crate::{
    arguments::Context,
    connect::Connection,
    error::Failure,
    view::{
        Moment,
        doctor::{CheckView, DoctorView, Verdict},
        moment,
    },
};

/// Ask everybody, and say what does not work and what to type next.
///
/// Asks for real: the controller and its clock, every server's agent, its clock and its Caddy, every server whether it reaches the
/// others, the DNS provider and the zone's name servers. Adds what is known without asking. Changes nothing. The exit code is 1 when
/// something does not work.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only what is not well.
    #[arg(long)]
    quiet: bool,
}

/// Clocks may differ by so much.
const CLOCK_MAX: Duration = Duration::seconds(10);
/// A certificate that ends sooner is told.
const SOON: Duration = Duration::days(14);

/// The controller from here: whether it answers, its clock, and how long this certificate holds.
#[allow(clippy::disallowed_methods, reason = "what is compared is the clock of this machine")]
async fn from_here(connection: &Connection) -> Result<Vec<CheckView>, Failure> {
    let (before, begun) = (OffsetDateTime::now_utc(), Instant::now());
    let status = connection.call(connection.status().get_status(pb::GetStatusRequest {})).await?;
    let took = begun.elapsed();
    let mut checks = vec![CheckView::new(
        Verdict::Ok,
        "controller",
        "answer",
        format!("version {} answers in {} ms", status.version, took.as_millis()),
        "",
    )];
    checks.extend(connection.controller_speaks().and_then(protocol));
    if let Some(Moment(now)) = moment!(status.now) {
        checks.push(clock(now - (before + took / 2)));
    }
    if let Some((begins, ends)) = connection.certificate_life() {
        checks.push(certificate(ends - before, ends - begins, Moment(ends)));
    }
    Ok(checks)
}

/// The controller is upgraded first and featherctl last, so the one of the two that is older is next.
fn protocol(spoken: Range) -> Option<CheckView> {
    let next = match spoken.age(version::OURS) {
        Age::Same => return None,
        Age::Older => "upgrade the controller, or use the featherctl that came with it",
        Age::Newer => "upgrade featherctl when all agents are upgraded",
    };
    let message = format!("it speaks protocol {spoken}, this featherctl {}", version::OURS);
    Some(CheckView::new(Verdict::Warn, "controller", "protocol", message, next))
}

fn clock(ahead: Duration) -> CheckView {
    let wrong = ahead.abs() > CLOCK_MAX;
    let direction = if ahead.is_negative() { "behind" } else { "ahead of" };
    let off = ahead.abs();
    let message =
        format!("its clock is {}.{:03} s {direction} this machine's", off.whole_seconds(), off.subsec_milliseconds());
    let (verdict, next) = if wrong { (Verdict::Fail, "set both clocks by NTP") } else { (Verdict::Ok, "") };
    CheckView::new(verdict, "controller", "clock", message, next)
}

fn certificate(left: Duration, life: Duration, ends: Moment) -> CheckView {
    // Somebody may have been given a day only.
    let soon = left < SOON.min(life / 10);
    let (verdict, next) =
        if soon { (Verdict::Warn, "get a new identity from whoever runs the controller") } else { (Verdict::Ok, "") };
    CheckView::new(verdict, "you", "certificate", format!("your certificate ends at {ends}"), next)
}

pub(crate) async fn run(arguments: Args, context: &Context) -> Result<(), Failure> {
    let connection = context.connect()?;
    let mut checks = from_here(&connection).await?;
    let response = connection.call(connection.status().diagnose(pb::DiagnoseRequest {})).await?;
    checks.extend(response.checks.into_iter().map(CheckView::from));
    let view = DoctorView::new(checks);
    context.output.show(&view, || view.text(arguments.quiet))?;
    context.output.note(&view.summary());
    if view.failed > 0 {
        return Err(Failure::refused(
            "NOT_WELL",
            format!("{} of {} checks failed", view.failed, view.checks.len()),
            "each line above that begins with `fail` says what to do",
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use time::{Duration, OffsetDateTime};

    use feather_proto::version;

    use super::{Moment, Range, Verdict, certificate, clock, protocol};

    #[test]
    fn a_controller_of_another_version_is_told_with_who_is_next() {
        assert!(protocol(version::OURS).is_none());
        let told = |oldest, newest| protocol(Range::new(oldest, newest).unwrap()).unwrap();
        assert_eq!(told(1, 1).message, "it speaks protocol 1, this featherctl 1-2");
        assert!(told(1, 1).next.unwrap().starts_with("upgrade the controller"));
        assert!(told(2, 3).next.unwrap().starts_with("upgrade featherctl"));
    }

    #[test]
    fn a_clock_that_is_off_fails_and_a_certificate_that_ends_soon_warns() {
        assert_eq!(clock(Duration::seconds(-10)).verdict, Verdict::Ok);
        let off = clock(Duration::milliseconds(-10_500));
        assert_eq!((off.verdict, off.message.as_str()), (Verdict::Fail, "its clock is 10.500 s behind this machine's"));
        let ends = Moment(OffsetDateTime::UNIX_EPOCH);
        let verdict = |left, life| certificate(left, life, ends).verdict;
        assert_eq!(verdict(Duration::days(13), Duration::days(365)), Verdict::Warn);
        assert_eq!(verdict(Duration::days(15), Duration::days(365)), Verdict::Ok);
        assert_eq!(verdict(Duration::hours(3), Duration::days(1)), Verdict::Ok);
        assert_eq!(verdict(Duration::hours(2), Duration::days(1)), Verdict::Warn);
    }
}
