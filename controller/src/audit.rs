//! The audit log: what a row holds, and how rows are chained. Pure.
//!
//! Each row carries a SHA-256 over the hash of the row before and its own content. Whoever can write to the store can make the whole chain
//! anew; that is found by a head that was kept elsewhere.

use feather_proto::tls::sha256_hex;
use time::OffsetDateTime;

/// One call, and how it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// When it ended, to a millisecond.
    pub at: OffsetDateTime,
    /// As `role/name`; empty for a call without a certificate.
    pub caller: String,
    /// Where it came from; empty if that is not known.
    pub address: String,
    /// `package.Service/Call`.
    pub rpc: String,
    /// JSON, without anything secret.
    pub arguments: String,
    /// `OK`, or the code of the error.
    pub code: String,
    /// Reason word of the error.
    pub reason: String,
    /// The operation that it began.
    pub operation: String,
}

/// A row as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// 1, 2, 3...
    pub sequence: u64,
    /// What it says.
    pub entry: Entry,
    /// SHA-256 over the row before and this one, lower-case hexadecimal.
    pub hash: String,
}

/// Stands before the first row.
pub const ORIGIN: &str = "";

/// The hash of a row behind one with this hash.
pub fn link(previous: &str, sequence: u64, entry: &Entry) -> String {
    let at_ms = entry.at.unix_timestamp_nanos() / 1_000_000;
    let texts = [
        previous,
        &sequence.to_string(),
        &at_ms.to_string(),
        &entry.caller,
        &entry.address,
        &entry.rpc,
        &entry.arguments,
        &entry.code,
        &entry.reason,
        &entry.operation,
    ];
    // An array of JSON strings: where one ends and the next begins cannot be moved.
    sha256_hex(serde_json::json!(texts).to_string().as_bytes())
}

/// Goes over rows in the order of their numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    expected: String,
    found: bool,
    /// How many rows were right.
    pub rows: u64,
    /// Hash of the last row that was right.
    pub head: String,
    /// The first row that is not what it was, and what is wrong.
    pub broken: Option<(u64, String)>,
}

impl Check {
    /// Begins, looking out for this head (empty: for none).
    pub fn new(expected: &str) -> Self {
        Self {
            expected: expected.to_owned(),
            found: expected.is_empty(),
            rows: 0,
            head: ORIGIN.to_owned(),
            broken: None,
        }
    }

    /// Takes the next row; behind the first broken one nothing can be said any more.
    pub fn next(&mut self, row: &Row) {
        if self.broken.is_some() {
            return;
        }
        let wanted = self.rows + 1;
        if row.sequence != wanted {
            let what = format!("row {wanted} is missing: row {} follows row {}", row.sequence, self.rows);
            self.broken = Some((wanted, what));
        } else if link(&self.head, row.sequence, &row.entry) != row.hash {
            self.broken = Some((wanted, format!("row {wanted}, or the one before it, is not what was written")));
        } else {
            self.rows = wanted;
            self.head.clone_from(&row.hash);
            self.found |= row.hash == self.expected;
        }
    }

    /// What is wrong, when all rows were taken.
    pub fn problem(&self) -> Option<String> {
        let lost =
            "the head that was expected belongs to no row: rows were removed from the end, or all were written anew";
        match &self.broken {
            Some((_, what)) => Some(what.clone()),
            None => (!self.found).then(|| lost.to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use time::OffsetDateTime;

    use super::{Check, Entry, ORIGIN, Row, link};

    fn entry(rpc: &str) -> Entry {
        Entry {
            at: OffsetDateTime::UNIX_EPOCH,
            caller: "admin/ada".into(),
            address: String::new(),
            rpc: rpc.into(),
            arguments: "{}".into(),
            code: "OK".into(),
            reason: String::new(),
            operation: String::new(),
        }
    }

    fn chain(rpcs: &[&str]) -> Vec<Row> {
        let mut previous = ORIGIN.to_owned();
        let row = |(number, rpc): (usize, &&str)| {
            let (sequence, entry) = (number as u64 + 1, entry(rpc));
            previous = link(&previous, sequence, &entry);
            Row { sequence, entry, hash: previous.clone() }
        };
        rpcs.iter().enumerate().map(row).collect()
    }

    fn check(rows: &[Row], expected: &str) -> Check {
        let mut check = Check::new(expected);
        rows.iter().for_each(|row| check.next(row));
        check
    }

    #[test]
    fn a_chain_that_nobody_touched_is_right_and_may_have_grown() {
        let rows = chain(&["a", "b", "c"]);
        let whole = check(&rows, &rows[1].hash);
        assert_eq!((whole.rows, whole.head.as_str(), whole.problem()), (3, rows[2].hash.as_str(), None));
        assert_eq!(check(&[], "").problem(), None);
    }

    #[test]
    fn every_field_is_part_of_the_hash_and_none_runs_into_the_next() {
        let plain = entry("a");
        let with = |change: fn(&mut Entry)| {
            let mut entry = plain.clone();
            change(&mut entry);
            link(ORIGIN, 1, &entry)
        };
        let mut hashes = vec![
            link(ORIGIN, 1, &plain),
            link("x", 1, &plain),
            link(ORIGIN, 2, &plain),
            with(|one| one.at += time::Duration::milliseconds(1)),
            with(|one| one.caller.push('x')),
            with(|one| one.address.push('x')),
            with(|one| one.rpc.push('x')),
            with(|one| one.arguments.push('x')),
            with(|one| one.code.push('x')),
            with(|one| one.reason.push('x')),
            with(|one| one.operation.push('x')),
            with(|one| one.caller.push_str("\",\"")),
        ];
        let all = hashes.len();
        hashes.sort();
        hashes.dedup();
        assert_eq!(hashes.len(), all);
    }

    #[test]
    fn a_tail_that_is_gone_and_a_chain_made_anew_are_found_by_a_head_that_was_kept() {
        let rows = chain(&["a", "b", "c"]);
        let head = &rows[2].hash;
        assert_eq!(check(&rows[..2], "").problem(), None, "by itself it cannot be seen");
        assert!(check(&rows[..2], head).problem().unwrap().contains("removed from the end"));
        assert!(check(&chain(&["a", "x", "c"]), head).problem().unwrap().contains("written anew"));
        assert!(check(&[], head).problem().is_some());
    }
}
