//! The ledger of a server that the fleet has taken out.
//!
//! Owns writing down what is left of each record, and the records as they count until that is done. When a server is out is decided in
//! `crate::fenced`, what is left in `transition/fencing.rs`; containers and routes follow by the reconciler, as after every change.

use super::Agent;
use crate::{ledger::Record, transition};

impl Agent {
    /// Records as they count: on a server that is out, what is left of them, whether that is on disk yet or not.
    pub(crate) fn records(&self) -> Vec<Record> {
        let records = self.ledger.all();
        if !self.fence.is_closed() {
            return records;
        }
        records.iter().map(transition::fenced).collect()
    }

    /// Does a record count as it was when it was looked at?
    pub(crate) fn still_counts(&self, record: &Record) -> bool {
        self.records().contains(record)
    }

    /// Writes down what is left of every record. Returns what keeps one from that, in sentences: a call that is under way, or the disk.
    /// Idempotent.
    pub(crate) async fn relinquish(&self) -> Vec<String> {
        let mut left = Vec::new();
        for record in self.ledger.all() {
            if transition::fenced(&record) == record {
                continue;
            }
            let tenant = &record.tenant;
            let Some(_lock) = self.try_lock(tenant) else {
                left.push(format!("{tenant} is being changed by a call that began before"));
                continue;
            };
            let Ok(Some(current)) = self.ledger.get(tenant) else { continue };
            if let Err(error) = self.write(transition::fenced(&current)).await {
                left.push(error.to_string());
            }
        }
        left
    }
}
