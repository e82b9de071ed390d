//! What a move will take, judged by those before it. Pure.
//!
//! Three numbers of experience: how fast a first pass goes (by bytes and by files, whichever is slower for what lies ahead), how
//! long the pass behind the stop looks at each file, and what everything else costs. Rates come from the best pass that was seen,
//! because a small one is mostly overhead; costs are medians. What is far larger than everything that was measured is not guessed.

use feather_proto::ids::ServerName;
use serde::{Deserialize, Serialize};

use super::Round;

/// A move that was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Past {
    /// From where.
    pub source: ServerName,
    /// To where.
    pub target: ServerName,
    /// By way of the controller.
    pub relayed: bool,
    /// Its first pass.
    pub first: Round,
    /// The pass behind the stop.
    pub last: Round,
    /// Files that its last pass looked at.
    pub files: u64,
    /// How long requests had to wait; `None` for a tenant that was stopped anyway.
    pub outage_ms: Option<u64>,
    /// From the beginning to the release.
    pub duration_ms: u64,
}

/// What lies ahead of a move.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ahead {
    /// Files in the volume.
    pub files: u64,
    /// Bytes in them.
    pub bytes: u64,
    /// Of those: bytes that the target lacks.
    pub bytes_lacking: u64,
    /// Bytes per second at most.
    pub bytes_per_second_max: Option<u64>,
    /// By way of the controller.
    pub relayed: bool,
    /// The tenant runs, so that its stop is an outage.
    pub running: bool,
}

/// What a move will take.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Prediction {
    /// Bytes between both servers.
    pub wire_bytes: u64,
    /// From the beginning to the release.
    pub duration_ms: u64,
    /// How long requests will have to wait.
    pub outage_ms: u64,
    /// What it is judged by.
    pub basis: String,
}

/// So many times the largest pass that was measured is not guessed, unless that one took long enough for its rate to mean something.
const EXTRAPOLATE_MAX: u64 = 32;
const TELLING_MS: u64 = 1000;

/// Predicts, or says why it cannot.
pub fn predict(past: &[Past], source: &ServerName, target: &ServerName, ahead: &Ahead) -> Result<Prediction, String> {
    let alike: Vec<&Past> = past.iter().filter(|one| one.relayed == ahead.relayed).collect();
    let here: Vec<&Past> = alike.iter().copied().filter(|one| one.source == *source && one.target == *target).collect();
    let (past, between) = match here.is_empty() {
        false => (here, format!("{source} -> {target}")),
        true => (alike, "between other servers".to_owned()),
    };
    let Some(largest) = past.iter().max_by_key(|one| one.first.bytes) else {
        return Err(match ahead.relayed {
            false => "no move was measured yet, so there is no rate to judge by".into(),
            true => "no move by way of the controller was measured yet, so there is no rate to judge by".into(),
        });
    };
    let files_lacking = scaled(ahead.files, ahead.bytes_lacking, ahead.bytes.max(1)).max(1);
    let most_files = past.iter().map(|one| one.first.files).max().unwrap_or(0);
    let telling = past.iter().any(|one| one.first.duration_ms >= TELLING_MS);
    let too_far = |wanted: u64, seen: u64| wanted > seen.saturating_mul(EXTRAPOLATE_MAX);
    if !telling
        && (too_far(ahead.bytes_lacking, largest.first.bytes.max(64 << 10))
            || too_far(files_lacking, most_files.max(8)))
    {
        return Err(format!(
            "only far smaller moves were measured (the largest sent {} bytes in {} files), so there is no rate to judge by",
            largest.first.bytes, most_files
        ));
    }
    let wire_bytes = scaled(ahead.bytes_lacking, largest.first.wire_bytes, largest.first.bytes.max(1))
        .min(ahead.bytes_lacking.saturating_mul(2))
        .saturating_add(median(past.iter().map(|one| one.last.wire_bytes)));
    let first_ms = first_pass(&past, ahead.bytes_lacking, files_lacking)
        .max(ahead.bytes_per_second_max.map_or(0, |limit| scaled(wire_bytes, 1000, limit.max(1))));
    let scan_ms = last_pass(&past, ahead.files);
    let around = |whole: u64, part: u64| whole.saturating_sub(part);
    let outages: Vec<u64> = past.iter().filter_map(|one| Some(around(one.outage_ms?, one.last.duration_ms))).collect();
    let outage_ms = match (ahead.running, outages.is_empty()) {
        (false, _) => 0,
        (true, true) => return Err("only stopped tenants were moved so far, so no outage was measured yet".into()),
        (true, false) => median(outages.iter().copied()).saturating_add(scan_ms),
    };
    let rest = median(past.iter().map(|one| around(one.duration_ms, one.first.duration_ms + one.last.duration_ms)));
    let count = past.len();
    let moves = if count == 1 { "move" } else { "moves" };
    Ok(Prediction {
        wire_bytes,
        duration_ms: first_ms.saturating_add(rest).saturating_add(scan_ms),
        outage_ms,
        basis: format!("{count} {moves} {between}"),
    })
}

/// A pass behind a stop has next to nothing to send: so long does any pass take. Above it the best rate counts.
fn first_pass(past: &[&Past], bytes: u64, files: u64) -> u64 {
    let least = past.iter().map(|one| one.last.duration_ms).min().unwrap_or(0);
    let by = |wanted: u64, of: fn(&Round) -> u64| {
        let times = past.iter().filter(|one| of(&one.first) > 0);
        times.map(|one| scaled(one.first.duration_ms.max(1), wanted, of(&one.first))).min().unwrap_or(0)
    };
    least.max(by(bytes, |round| round.bytes)).max(by(files, |round| round.files))
}

/// A look at each file, on top of what the quickest such pass cost.
fn last_pass(past: &[&Past], files: u64) -> u64 {
    let least = past.iter().map(|one| one.last.duration_ms).min().unwrap_or(0);
    let Some(most) = past.iter().max_by_key(|one| one.files) else { return 0 };
    least.saturating_add(scaled(most.last.duration_ms.saturating_sub(least), files, most.files.max(1)))
}

fn scaled(amount: u64, times: u64, by: u64) -> u64 {
    u64::try_from(u128::from(amount) * u128::from(times) / u128::from(by.max(1))).unwrap_or(u64::MAX)
}

fn median(values: impl Iterator<Item = u64>) -> u64 {
    let mut values: Vec<u64> = values.collect();
    values.sort_unstable();
    values.get(values.len() / 2).copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::{Ahead, Past, Round, predict};

    const MIB: u64 = 1 << 20;

    fn past(source: &str, target: &str, mib: u64, seconds: u64) -> Past {
        Past {
            source: source.parse().unwrap(),
            target: target.parse().unwrap(),
            relayed: false,
            first: Round { files: mib, bytes: mib * MIB, wire_bytes: mib * MIB / 2, duration_ms: seconds * 1000 },
            last: Round { files: 1, bytes: 10, wire_bytes: 100, duration_ms: 50 },
            files: mib,
            outage_ms: Some(450),
            duration_ms: seconds * 1000 + 1050,
        }
    }

    fn ahead(mib: u64) -> Ahead {
        Ahead {
            files: mib,
            bytes: mib * MIB,
            bytes_lacking: mib * MIB,
            bytes_per_second_max: None,
            relayed: false,
            running: true,
        }
    }

    fn predicted(past: &[Past], ahead: &Ahead) -> Result<(u64, u64, u64, String), String> {
        let (nyc, fra) = ("nyc".parse().unwrap(), "fra".parse().unwrap());
        predict(past, &nyc, &fra, ahead)
            .map(|found| (found.wire_bytes / MIB, found.duration_ms, found.outage_ms, found.basis))
    }

    #[test]
    fn a_move_is_judged_by_its_own_way_if_that_was_gone_before() {
        let slow_elsewhere = past("ams", "fra", 100, 100);
        let here = past("nyc", "fra", 100, 10);
        assert_eq!(
            predicted(&[slow_elsewhere.clone(), here], &ahead(200)),
            Ok((100, 20_000 + 1000 + 50, 450, "1 move nyc -> fra".into()))
        );
        let (_, duration, _, basis) = predicted(&[slow_elsewhere], &ahead(200)).unwrap();
        assert_eq!((duration, basis.as_str()), (201_050, "1 move between other servers"));
    }

    #[test]
    fn what_was_not_measured_is_not_guessed() {
        let why = |past: &[Past], ahead: &Ahead| predicted(past, ahead).unwrap_err();
        assert!(why(&[], &ahead(1)).starts_with("no move was measured yet"));
        let tiny =
            Past { first: Round { files: 1, bytes: 10, wire_bytes: 90, duration_ms: 40 }, ..past("nyc", "fra", 1, 0) };
        assert!(why(std::slice::from_ref(&tiny), &ahead(100)).starts_with("only far smaller moves"));
        assert!(predicted(&[tiny], &Ahead { files: 2, bytes: 100, bytes_lacking: 100, ..ahead(0) }).is_ok());
        let relayed = Ahead { relayed: true, ..ahead(1) };
        assert!(why(&[past("nyc", "fra", 1, 1)], &relayed).contains("by way of the controller"));
        let stopped = Past { outage_ms: None, ..past("nyc", "fra", 1, 1) };
        assert!(why(std::slice::from_ref(&stopped), &ahead(1)).contains("only stopped tenants"));
        assert_eq!(predicted(&[stopped], &Ahead { running: false, ..ahead(1) }).unwrap().2, 0);
    }

    #[test]
    fn a_limit_and_a_kept_copy_are_taken_into_account() {
        let seen = [past("nyc", "fra", 100, 10)];
        let limited = Ahead { bytes_per_second_max: Some(MIB), ..ahead(100) };
        assert_eq!(predicted(&seen, &limited).unwrap().1, 50_000 + 1000 + 50);
        let kept = Ahead { bytes_lacking: MIB, ..ahead(100) };
        let (wire, duration, outage, _) = predicted(&seen, &kept).unwrap();
        assert!(wire <= 1 && duration == 100 + 1050 && outage == 450, "{wire} {duration} {outage}");
    }
}
