//! Numbers as people read and type them: bytes, durations, ages, times. Pure.

use std::time::Duration;

use time::{OffsetDateTime, format_description::well_known::Rfc3339};

const STEPS: &[&str] = &["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];

/// `1.2 MiB`
pub(crate) fn bytes(count: u64) -> String {
    let (amount, unit) = scaled(count);
    format!("{amount} {unit}")
}

/// `1.5/2.0 GiB free`, both in the unit of the larger.
pub(crate) fn free_of(free: u64, total: u64) -> String {
    if total == 0 {
        return "-".into();
    }
    let (total_amount, unit) = scaled(total);
    let power = STEPS.iter().position(|step| *step == unit).map_or(0, |place| place + 1);
    format!("{}/{total_amount} {unit} free", at_power(free, power))
}

fn scaled(count: u64) -> (String, &'static str) {
    let mut power = 0;
    // 1023.95 would be shown as 1024.0: the next unit is the better one then.
    while power < STEPS.len() && divided(count, power) >= if power == 0 { 1024.0 } else { 1023.95 } {
        power += 1;
    }
    (at_power(count, power), if power == 0 { "B" } else { STEPS[power - 1] })
}

fn at_power(count: u64, power: usize) -> String {
    if power == 0 { count.to_string() } else { format!("{:.1}", divided(count, power)) }
}

#[allow(clippy::cast_precision_loss)] // one decimal is shown
fn divided(count: u64, power: usize) -> f64 {
    count as f64 / 1024_f64.powi(i32::try_from(power).unwrap_or(i32::MAX))
}

/// `45s`, `12m`, `3h`, `5d`: how long ago, in one unit.
pub(crate) fn age(now: OffsetDateTime, then: OffsetDateTime) -> String {
    let seconds = (now - then).whole_seconds().max(0);
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m", seconds / 60),
        3600..86_400 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// `0.812 s`, `3 min 5 s`: how long something took.
pub(crate) fn span(length: time::Duration) -> String {
    let milliseconds = length.whole_milliseconds().max(0);
    if milliseconds < 60_000 {
        return format!("{}.{:03} s", milliseconds / 1000, milliseconds % 1000);
    }
    let seconds = milliseconds / 1000;
    match seconds / 60 {
        minutes @ 0..60 => format!("{minutes} min {} s", seconds % 60),
        minutes => format!("{} h {} min", minutes / 60, minutes % 60),
    }
}

/// `3 hours`, `7 days`, `90 seconds`: the largest unit that divides it.
pub(crate) fn spelled(length: Duration) -> String {
    let seconds = length.as_secs();
    let units = [(86_400, "day"), (3600, "hour"), (60, "minute"), (1, "second")];
    let (size, name) = units.into_iter().find(|(size, _)| seconds.is_multiple_of(*size)).unwrap_or((1, "second"));
    let count = seconds / size;
    format!("{count} {name}{}", if count == 1 { "" } else { "s" })
}

/// Reads `90s`, `30m`, `3h`, `7d`.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is not a duration: write a whole number and s, m, h or d, for example 30m or 7d");
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let size = match &text[digits.len()..] {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return Err(wrong()),
    };
    let count: u64 = digits.parse().map_err(|_| wrong())?;
    let seconds = count.checked_mul(size).filter(|seconds| *seconds <= 3660 * 86_400).ok_or_else(wrong)?;
    if seconds == 0 {
        return Err("it must be longer than nothing, for example 30m or 7d".into());
    }
    Ok(Duration::from_secs(seconds))
}

/// Reads `20MiB`, `512KiB/s`, `1GiB`: bytes per second.
pub(crate) fn parse_rate(text: &str) -> Result<u64, String> {
    const LEAST: u64 = 16 * 1024;
    let wrong = || format!("{text:?} is not a rate: write a whole number and KiB, MiB or GiB, for example 20MiB");
    let amount = text.strip_suffix("/s").unwrap_or(text);
    let digits = amount.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let size = match &amount[digits.len()..] {
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return Err(wrong()),
    };
    let rate = digits.trim_end().parse().ok().and_then(|count: u64| count.checked_mul(size)).ok_or_else(wrong)?;
    if rate < LEAST {
        return Err("it must be at least 16KiB, or the tenant would be kept waiting for days".into());
    }
    Ok(rate)
}

/// `812 ms`, `3.200 s`, `3 min 5 s`: as short as it can be said.
pub(crate) fn brief(milliseconds: u64) -> String {
    match milliseconds {
        0..1000 => format!("{milliseconds} ms"),
        _ => span(time::Duration::milliseconds(i64::try_from(milliseconds).unwrap_or(i64::MAX))),
    }
}

/// RFC 3339 in UTC, to the millisecond at most.
pub(crate) fn rfc3339(time: OffsetDateTime) -> String {
    let whole_milliseconds = time.millisecond();
    let time = time.to_offset(time::UtcOffset::UTC).replace_millisecond(whole_milliseconds).unwrap_or(time);
    time.format(&Rfc3339).unwrap_or_default()
}

/// `1 file`, `2 files`
pub(crate) fn counted(count: u64, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use time::OffsetDateTime;

    #[test]
    fn bytes_are_rounded_to_one_decimal() {
        let cases: &[(u64, &str)] = &[
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1_258_291, "1.2 MiB"),
            ((1 << 20) - 1, "1.0 MiB"),
            (u64::MAX, "16.0 EiB"),
        ];
        for (count, text) in cases {
            assert_eq!(super::bytes(*count), *text);
        }
        assert_eq!(super::free_of(3 << 29, 2 << 30), "1.5/2.0 GiB free");
        assert_eq!(super::free_of(0, 0), "-");
    }

    #[test]
    fn durations_read_as_they_are_typed() {
        for (text, seconds) in [("90s", 90), ("30m", 1800), ("3h", 10_800), ("7d", 604_800)] {
            assert_eq!(super::parse_duration(text), Ok(Duration::from_secs(seconds)));
        }
        for text in ["", "7", "d", "0s", "-1h", "1w", "1.5h", "99999999999999999999s", "4000d", "7é"] {
            assert!(super::parse_duration(text).is_err(), "{text:?} was accepted");
        }
        assert_eq!(super::spelled(Duration::from_secs(10_800)), "3 hours");
        assert_eq!(super::spelled(Duration::from_secs(86_400)), "1 day");
        assert_eq!(super::spelled(Duration::from_secs(90)), "90 seconds");
    }

    #[test]
    fn rates_read_as_they_are_typed() {
        for (text, rate) in [("20MiB", 20 << 20), ("512KiB/s", 512 << 10), ("1GiB", 1 << 30), ("16KiB", 16 << 10)] {
            assert_eq!(super::parse_rate(text), Ok(rate));
        }
        for text in ["", "20", "MiB", "20MB", "1.5MiB", "-1MiB", "15KiB", "0MiB", "99999999999999GiB", "20mib"] {
            assert!(super::parse_rate(text).is_err(), "{text:?} was accepted");
        }
    }

    #[test]
    fn spans_and_ages_use_the_unit_that_fits() {
        let start = OffsetDateTime::UNIX_EPOCH;
        for (seconds, text) in [(-5, "0s"), (59, "59s"), (60, "1m"), (7200, "2h"), (86_400 * 3, "3d")] {
            assert_eq!(super::age(start + time::Duration::seconds(seconds), start), text);
        }
        for (milliseconds, text) in [(812, "0.812 s"), (61_500, "1 min 1 s"), (3_700_000, "1 h 1 min")] {
            assert_eq!(super::span(time::Duration::milliseconds(milliseconds)), text);
        }
        assert_eq!(super::rfc3339(start + time::Duration::microseconds(1500)), "1970-01-01T00:00:00.001Z");
    }
}
