//! The history of outages as a picture: a dot for each move, time to the right, length of the outage upwards. Pure.
//!
//! The scale is logarithmic: a second and a minute are both worth seeing.

use maud::{Markup, html};
use time::OffsetDateTime;

use super::view::{Move, moment, outage, span};

const WIDTH: u32 = 400;
const HEIGHT: u32 = 170;
const LEFT: u32 = 52;
const RIGHT: u32 = 12;
const TOP: u32 = 12;
const BOTTOM: u32 = 24;
/// Lines across, in milliseconds.
const LINES: [u64; 6] = [100, 1000, 3000, 10_000, 60_000, 600_000];

/// Where something is in the picture.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Spot {
    x: f64,
    y: f64,
}

struct Scale {
    from: OffsetDateTime,
    seconds: f64,
    low: f64,
    high: f64,
}

#[allow(clippy::cast_precision_loss)] // a pixel is far larger
fn logarithm(milliseconds: u64) -> f64 {
    (milliseconds.max(1) as f64).log10()
}

impl Scale {
    fn of(moves: &[Move], now: OffsetDateTime) -> Self {
        let from = moves.iter().map(|one| one.at).min().unwrap_or(now).min(now);
        let low = moves.iter().map(|one| one.outage_ms).min().unwrap_or(100).clamp(1, 100);
        let high = moves.iter().map(|one| one.outage_ms).max().unwrap_or(1000).max(1500);
        // A picture of one moment has a width all the same.
        let seconds = (now - from).as_seconds_f64().max(60.0);
        Self { from, seconds, low: logarithm(low), high: logarithm(high) + 0.08 }
    }

    fn height(&self, milliseconds: u64) -> f64 {
        let part = (logarithm(milliseconds) - self.low) / (self.high - self.low);
        let room = f64::from(HEIGHT - TOP - BOTTOM);
        f64::from(TOP) + room * (1.0 - part.clamp(0.0, 1.0))
    }

    fn spot(&self, one: &Move) -> Spot {
        let part = ((one.at - self.from).as_seconds_f64() / self.seconds).clamp(0.0, 1.0);
        Spot { x: f64::from(LEFT) + part * f64::from(WIDTH - LEFT - RIGHT), y: self.height(one.outage_ms) }
    }
}

/// The middle one, and the worst.
pub(super) fn summary(moves: &[Move]) -> Option<(u64, u64)> {
    let mut outages: Vec<_> = moves.iter().map(|one| one.outage_ms).collect();
    outages.sort_unstable();
    Some((*outages.get(outages.len() / 2)?, *outages.last()?))
}

/// The picture; nothing without moves.
pub(super) fn outages(moves: &[Move], now: OffsetDateTime) -> Markup {
    let Some((middle, worst)) = summary(moves) else { return html! {} };
    let scale = Scale::of(moves, now);
    let told =
        format!("Outages of {} moves: the middle one {}, the worst {}", moves.len(), outage(middle), outage(worst));
    let (right, bottom) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
    let begun = span((now - scale.from).whole_seconds());
    html! {
        svg.plot viewBox=(format!("0 0 {WIDTH} {HEIGHT}")) role="img" aria-label=(told) {
            @for line in LINES.into_iter().filter(|line| (scale.low..scale.high).contains(&logarithm(*line))) {
                @let y = format!("{:.1}", scale.height(line));
                line.grid x1=(LEFT) x2=(right) y1=(y) y2=(y) {}
                text.tick x=(LEFT - 6) y=(y) dy="0.32em" text-anchor="end" { (outage(line)) }
            }
            line.axis x1=(LEFT) x2=(right) y1=(bottom) y2=(bottom) {}
            @let y = format!("{:.1}", scale.height(middle));
            line.middle x1=(LEFT) x2=(right) y1=(y) y2=(y) {}
            text.tick x=(LEFT) y=(HEIGHT - 8) { (begun) " ago" }
            text.tick x=(right) y=(HEIGHT - 8) text-anchor="end" { "now" }
            @for one in moves {
                @let spot = scale.spot(one);
                circle.dot cx=(format!("{:.1}", spot.x)) cy=(format!("{:.1}", spot.y)) r="3.2" {
                    title {
                        (one.tenant) ", " (one.source) " → " (one.target) ": " (outage(one.outage_ms)) ", " (moment(one.at))
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use time::{Duration, OffsetDateTime};

    use super::{BOTTOM, HEIGHT, LEFT, RIGHT, Scale, TOP, WIDTH, outages, summary};
    use crate::web::view::Move;

    const NOW: OffsetDateTime = OffsetDateTime::UNIX_EPOCH;

    fn moved(minutes_ago: i64, outage_ms: u64) -> Move {
        Move {
            tenant: "alice".into(),
            source: "nyc".into(),
            target: "fra".into(),
            at: NOW - Duration::minutes(minutes_ago),
            outage_ms,
            sent: 0,
        }
    }

    #[test]
    fn dots_are_within_the_picture_whatever_was_measured() {
        let sets = [
            vec![moved(0, 0)],
            vec![moved(-5, u64::MAX), moved(100_000, 1)],
            vec![moved(60, 500), moved(30, 700), moved(0, 900)],
        ];
        for moves in sets {
            let scale = Scale::of(&moves, NOW);
            for one in &moves {
                let spot = scale.spot(one);
                assert!((f64::from(LEFT)..=f64::from(WIDTH - RIGHT)).contains(&spot.x), "{spot:?} of {one:?}");
                assert!((f64::from(TOP)..=f64::from(HEIGHT - BOTTOM)).contains(&spot.y), "{spot:?} of {one:?}");
            }
        }
    }

    #[test]
    fn later_is_further_right_and_longer_is_higher() {
        let moves = [moved(60, 500), moved(30, 5000), moved(0, 50)];
        let scale = Scale::of(&moves, NOW);
        let spots: Vec<_> = moves.iter().map(|one| scale.spot(one)).collect();
        assert!(spots[0].x < spots[1].x && spots[1].x < spots[2].x);
        assert!(spots[1].y < spots[0].y && spots[0].y < spots[2].y);
        assert_eq!(summary(&moves), Some((500, 5000)));
    }

    #[test]
    fn there_is_no_picture_of_nothing() {
        assert_eq!(summary(&[]), None);
        assert_eq!(outages(&[], NOW).into_string(), "");
        assert_eq!(outages(&[moved(1, 552), moved(2, 800)], NOW).into_string().matches("<circle").count(), 2);
    }
}
