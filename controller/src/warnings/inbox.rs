//! What becomes of the kept conditions when a new judgement comes. Pure.

use time::OffsetDateTime;

use super::{Condition, Judgement, Patience, since};
use crate::store::warnings::WarningRow;

/// What a look changes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct News {
    /// New, changed in its words, or raised now. Who took note stays as it is kept.
    pub put: Vec<WarningRow>,
    /// Those of `put` that are shown from now on.
    pub raised: Vec<WarningRow>,
    /// Gone after they were shown.
    pub cured: Vec<WarningRow>,
    /// Gone before anybody saw them.
    pub passed: Vec<WarningRow>,
}

impl News {
    /// Nothing to write.
    pub fn is_empty(&self) -> bool {
        self.put.is_empty() && self.cured.is_empty() && self.passed.is_empty()
    }
}

/// Compares. A condition that is kept and does not hold is cured, unless nobody could see whether it does.
pub fn compare(kept: &[WarningRow], judgement: &Judgement, patience: &Patience, now: OffsetDateTime) -> News {
    let mut news = News::default();
    for condition in &judgement.conditions {
        let before = kept.iter().find(|row| row.id == condition.id());
        let row = next(before, condition, patience, now);
        if before == Some(&row) {
            continue;
        }
        if row.raised.is_some() && before.is_none_or(|before| before.raised.is_none()) {
            news.raised.push(row.clone());
        }
        news.put.push(row);
    }
    let holds = |row: &WarningRow| judgement.conditions.iter().any(|condition| condition.id() == row.id);
    for row in
        kept.iter().filter(|row| !holds(row) && !judgement.blind.iter().any(|scope| scope.to_string() == row.scope))
    {
        let gone = if row.raised.is_some() { &mut news.cured } else { &mut news.passed };
        gone.push(row.clone());
    }
    news
}

fn next(before: Option<&WarningRow>, condition: &Condition, patience: &Patience, now: OffsetDateTime) -> WarningRow {
    let begun = before.map_or(now, |row| row.since);
    let ripe = since(now, begun) >= patience.of(condition.kind);
    WarningRow {
        id: condition.id(),
        kind: condition.kind.word().to_owned(),
        subject: condition.subject.clone(),
        scope: condition.scope.to_string(),
        message: condition.message.clone(),
        since: begun,
        raised: before.and_then(|row| row.raised).or(ripe.then_some(now)),
        acknowledged: before.and_then(|row| row.acknowledged.clone()),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use time::{Duration, OffsetDateTime};

    use super::{Judgement, News, Patience, compare};
    use crate::{
        store::warnings::{Acknowledged, WarningRow},
        warnings::{Condition, Kind, Scope},
    };

    fn at(seconds: i64) -> OffsetDateTime {
        OffsetDateTime::UNIX_EPOCH + Duration::seconds(seconds)
    }

    fn nyc() -> Scope {
        Scope::Server("nyc".parse().unwrap())
    }

    fn silent(message: &str) -> Judgement {
        let condition = Condition {
            kind: Kind::Unreachable,
            about: "nyc".into(),
            subject: "server/nyc".into(),
            scope: nyc(),
            message: message.into(),
        };
        Judgement { conditions: vec![condition], blind: BTreeSet::from([nyc()]) }
    }

    /// What is kept after some looks, each with its time.
    fn after(looks: &[(i64, Judgement)]) -> (Vec<WarningRow>, News) {
        let (mut kept, mut last) = (Vec::<WarningRow>::new(), News::default());
        for (seconds, judgement) in looks {
            last = compare(&kept, judgement, &Patience::default(), at(*seconds));
            let gone = |row: &WarningRow| last.cured.contains(row) || last.passed.contains(row);
            kept.retain(|row| !gone(row) && !last.put.iter().any(|one| one.id == row.id));
            kept.extend(last.put.clone());
        }
        (kept, last)
    }

    #[test]
    fn a_condition_is_shown_when_it_lasts_and_goes_when_it_is_seen_to_be_cured() {
        let (kept, news) = after(&[(0, silent("a"))]);
        assert_eq!((kept.len(), kept[0].raised, news.raised.len()), (1, None, 0));
        let (kept, news) = after(&[(0, silent("a")), (59, silent("a"))]);
        assert!(news.is_empty() && kept[0].raised.is_none(), "{news:?}");
        let (kept, news) = after(&[(0, silent("a")), (60, silent("b"))]);
        assert_eq!((kept[0].raised, kept[0].since, kept[0].message.as_str()), (Some(at(60)), at(0), "b"));
        assert_eq!(news.raised.len(), 1);
        let (kept, news) = after(&[(0, silent("a")), (60, silent("a")), (61, Judgement::default())]);
        assert_eq!((kept, news.cured.len(), news.passed.len()), (vec![], 1, 0));
        let (_, news) = after(&[(0, silent("a")), (9, Judgement::default())]);
        assert_eq!((news.cured.len(), news.passed.len()), (0, 1));
    }

    #[test]
    fn what_nobody_can_see_is_not_cured() {
        let dark = Judgement { conditions: vec![], blind: BTreeSet::from([nyc()]) };
        let (kept, news) = after(&[(0, silent("a")), (60, silent("a")), (70, dark)]);
        assert!(news.is_empty() && kept.len() == 1, "{news:?}");
    }

    #[test]
    fn whoever_took_note_is_forgotten_with_the_cure_and_not_before() {
        let (mut kept, _) = after(&[(0, silent("a")), (60, silent("a"))]);
        kept[0].acknowledged = Some(Acknowledged { by: "admin/ann".into(), at: at(61), note: String::new() });
        let patience = Patience::default();
        let same = compare(&kept, &silent("other words"), &patience, at(62));
        assert_eq!((same.raised.len(), same.put[0].acknowledged.clone()), (0, kept[0].acknowledged.clone()));
        assert_eq!(compare(&kept, &Judgement::default(), &patience, at(63)).cured, kept);
        let again = compare(&[], &silent("a"), &patience, at(64));
        assert_eq!(again.put[0].acknowledged, None);
    }
}
