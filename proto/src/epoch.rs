//! Under which lead a controller calls agents: a number in a header of each call.
//!
//! Numbers come from the store, and a later lead always has a higher one. Agents let nobody in whose number is lower than one that they
//! have met; what they keep of it is theirs.

use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};

use tonic::{Request, Status, service::Interceptor};

use crate::{error::Error, model::invalid_field};

/// Name of the header.
pub const HEADER: &str = "feather-epoch";

/// Number of the lead under which this process works; all clones are one. Without a lead there is none.
#[derive(Debug, Clone, Default)]
pub struct Epoch(Arc<AtomicI64>);

impl Epoch {
    /// The number; `None` where nobody leads.
    pub fn get(&self) -> Option<i64> {
        Some(self.0.load(Ordering::SeqCst)).filter(|number| *number > 0)
    }

    /// The number that writes are checked against: 0 where nobody has to lead, below that for who waits to lead and writes nothing.
    pub fn for_writes(&self) -> i64 {
        self.0.load(Ordering::SeqCst)
    }

    /// From now on nothing is written, until there is a lead.
    pub fn wait(&self) {
        self.0.store(-1, Ordering::SeqCst);
    }

    /// From now on work is done under this number, which is above zero.
    pub fn set(&self, number: i64) {
        self.0.store(number, Ordering::SeqCst);
    }

    /// Lets each call say this number as it is when the call is made.
    pub fn stamp(&self) -> Stamp {
        Stamp(self.clone())
    }
}

/// Puts the number into calls.
#[derive(Debug, Clone)]
pub struct Stamp(Epoch);

impl Interceptor for Stamp {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(number) = self.0.get() {
            request.metadata_mut().insert(HEADER, number.into());
        }
        Ok(request)
    }
}

/// The number in the head of a call; `None` when it names none, as calls of an earlier release do.
///
/// # Errors
/// What is there is no number of a lead.
pub fn of(headers: &http::HeaderMap) -> Result<Option<i64>, Error> {
    let Some(value) = headers.get(HEADER) else { return Ok(None) };
    let number = value.to_str().ok().and_then(|text| text.parse().ok()).filter(|number| *number > 0);
    number.map(Some).ok_or_else(|| invalid_field(HEADER, "a whole number above zero"))
}

#[cfg(test)]
mod tests {
    use super::{Epoch, HEADER, of};
    use tonic::{Request, service::Interceptor as _};

    #[test]
    fn calls_say_the_number_that_holds_when_they_are_made() {
        let epoch = Epoch::default();
        let mut stamp = epoch.stamp();
        let mut said = || of(&stamp.call(Request::new(())).unwrap().metadata().clone().into_headers()).unwrap();
        assert_eq!(said(), None);
        epoch.set(7);
        assert_eq!(said(), Some(7));
        for wrong in ["", "0", "-1", "seven", "7 "] {
            let headers = http::HeaderMap::from_iter([(HEADER.parse().unwrap(), wrong.parse().unwrap())]);
            assert!(of(&headers).is_err(), "{wrong:?}");
        }
    }
}
