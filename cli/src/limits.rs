//! Limits as people type and read them: `4g`, `1.5`, `500`, `none`. Pure.

use feather_proto::limits::{CPU_MAX, CPU_MIN, Limits, MEMORY_MAX, MEMORY_MIN, PIDS_MAX, PIDS_MIN};

/// What takes a limit away.
const NONE: &str = "none";

/// Reads `512m`, `4g`, `4GiB`, `1t`: powers of 1024, as Podman reads them.
pub(crate) fn memory(text: &str) -> Result<u64, String> {
    if text == NONE {
        return Ok(0);
    }
    let wrong =
        || format!("{text:?} is not a size: write a whole number and m, g or t, for example 512m or 4g, or `{NONE}`");
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let size: u64 = match text[digits.len()..].to_ascii_lowercase().as_str() {
        "m" | "mib" => 1 << 20,
        "g" | "gib" => 1 << 30,
        "t" | "tib" => 1 << 40,
        _ => return Err(wrong()),
    };
    let bytes = digits.parse().ok().and_then(|count: u64| count.checked_mul(size)).ok_or_else(wrong)?;
    match (MEMORY_MIN..=MEMORY_MAX).contains(&bytes) {
        true => Ok(bytes),
        false => Err(format!("it must be from 64m to 16t; `{NONE}` takes the limit away")),
    }
}

/// Reads `2`, `1.5`, `0.25`: cores, to a thousandth.
pub(crate) fn cpus(text: &str) -> Result<u32, String> {
    if text == NONE {
        return Ok(0);
    }
    let wrong = || format!("{text:?} is not a number of cores: write for example 2, 1.5 or 0.25, or `{NONE}`");
    let (whole, part) = text.split_once('.').unwrap_or((text, "0"));
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !is_number(whole) || !is_number(part) || part.len() > 3 {
        return Err(wrong());
    }
    let thousandths: u32 = format!("{part:0<3}").parse().map_err(|_| wrong())?;
    let millis = whole.parse::<u32>().ok().and_then(|cores| cores.checked_mul(1000)?.checked_add(thousandths));
    match millis.filter(|millis| (CPU_MIN..=CPU_MAX).contains(millis)) {
        Some(millis) => Ok(millis),
        None => Err(format!("it must be from 0.1 to 1024 cores; `{NONE}` takes the limit away")),
    }
}

/// Reads `500`.
pub(crate) fn pids(text: &str) -> Result<u32, String> {
    if text == NONE {
        return Ok(0);
    }
    let count = text
        .parse()
        .map_err(|_| format!("{text:?} is not a number of processes; write for example 500, or `{NONE}`"))?;
    match (PIDS_MIN..=PIDS_MAX).contains(&count) {
        true => Ok(count),
        false => Err(format!("it must be from 32 to 4194304; `{NONE}` takes the limit away")),
    }
}

/// `4 GiB`, `1.5 GiB`, as short as it can be said without a lie.
pub(crate) fn spelled_memory(bytes: u64) -> String {
    let steps = [(1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    let (size, unit) = steps.into_iter().find(|(size, _)| bytes.is_multiple_of(*size)).unwrap_or((1, "B"));
    format!("{} {unit}", bytes / size)
}

/// `1.5`, `2`, `0.25`
pub(crate) fn spelled_cpus(millis: u32) -> String {
    let text = format!("{}.{:03}", millis / 1000, millis % 1000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// All of them in one line.
pub(crate) fn told(limits: &Limits) -> String {
    let memory = limits.memory_bytes.map(|bytes| format!("{} of memory", spelled_memory(bytes)));
    let cpus = limits.cpu_millis.map(|millis| match millis {
        1000 => "1 core".to_owned(),
        millis => format!("{} cores", spelled_cpus(millis)),
    });
    let pids = limits.pids.map(|pids| format!("{pids} processes"));
    let all: Vec<_> = memory.into_iter().chain(cpus).chain(pids).collect();
    if all.is_empty() { "no limits".to_owned() } else { all.join(", ") }
}

#[cfg(test)]
mod tests {
    use feather_proto::limits::Limits;

    use super::{cpus, memory, pids, spelled_cpus, spelled_memory, told};

    #[test]
    fn limits_read_as_they_are_typed() {
        for (text, bytes) in [("512m", 512 << 20), ("4g", 4 << 30), ("4GiB", 4 << 30), ("1T", 1 << 40), ("none", 0)] {
            assert_eq!(memory(text), Ok(bytes), "{text}");
        }
        for (text, millis) in [("2", 2000), ("1.5", 1500), ("0.25", 250), ("0.125", 125), ("none", 0)] {
            assert_eq!(cpus(text), Ok(millis), "{text}");
        }
        assert_eq!((pids("500"), pids("none")), (Ok(500), Ok(0)));
        for text in ["", "4", "g", "1.5g", "-1g", "63m", "17t", "4 g", "99999999999999999999g", "4é"] {
            assert!(memory(text).is_err(), "{text:?} was accepted");
        }
        for text in ["", ".", "1.", ".5", "0", "0.05", "1025", "1.2345", "-1", "1e3", "5000000"] {
            assert!(cpus(text).is_err(), "{text:?} was accepted");
        }
        for text in ["", "0", "31", "4194305", "-1", "1.5"] {
            assert!(pids(text).is_err(), "{text:?} was accepted");
        }
    }

    #[test]
    fn what_is_shown_is_what_was_typed() {
        for text in ["512m", "4g", "1536m", "2t"] {
            let shown = spelled_memory(memory(text).unwrap());
            assert_eq!(memory(&shown.replace(' ', "")), memory(text), "{shown}");
        }
        for text in ["2", "1.5", "0.25", "0.125", "10"] {
            assert_eq!(spelled_cpus(cpus(text).unwrap()), text);
        }
        let limits = Limits { memory_bytes: Some(4 << 30), cpu_millis: Some(1500), pids: Some(500), revision: 1 };
        assert_eq!(told(&limits), "4 GiB of memory, 1.5 cores, 500 processes");
        assert_eq!(told(&Limits::default()), "no limits");
    }
}
