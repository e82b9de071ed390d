//! A store that is learned again: all of it in one transaction, and only where nothing is.

use std::{collections::BTreeSet, time::Duration};

use feather_proto::{
    error::{Error as WireError, reason},
    ids::ServerName,
    tls::Revocations,
};

use super::{
    Result, ServerRow, Stood, Store, TenantRow,
    audit::append_in,
    column, corrupt,
    events::{NewEvent, record},
    members::{self, members_changed, set_in},
    tenants::generation_column,
    to_ms,
    users::refuse_in,
    word,
};
use crate::{audit::Entry, dns};

/// What a store is to hold.
#[derive(Debug, Clone)]
pub struct Learned<'a> {
    /// Servers.
    pub members: &'a [ServerRow],
    /// Tenants; whoever they name is a member.
    pub tenants: &'a [TenantRow],
    /// Whose certificates are refused.
    pub refused: &'a Revocations,
    /// The server that the wildcard leads to, if that is known.
    pub ingress: Option<&'a ServerName>,
    /// Servers that it led to before.
    pub former: &'a BTreeSet<ServerName>,
    /// For the audit log.
    pub entry: &'a Entry,
    /// What happened.
    pub event: &'a NewEvent,
}

impl Store {
    /// Does it hold nothing of a fleet: no server, no tenant, no operation?
    pub async fn is_blank(&self) -> Result<bool> {
        let mut transaction = self.look().await?;
        is_blank_in(&mut transaction).await
    }

    /// Takes the lead of a store that is to be filled, above a number that servers have met. On a shared one only if nobody has it, and
    /// whoever has is not disturbed.
    pub async fn lead_above(&self, met: i64, address: &str, life: Duration) -> Result<Stood> {
        let stood = match self.is_shared() {
            true => self.stand(&uuid::Uuid::new_v4().to_string(), address, life).await?,
            false => Stood::Leads(self.lead_alone().await?),
        };
        let lead = match stood {
            Stood::Leads(lead) if lead <= met => lead,
            stood => return Ok(stood),
        };
        let higher = met.saturating_add(1);
        let raised = sqlx::query("UPDATE turns SET taken = taken + 1, epoch = $2 WHERE name = 'write' AND epoch = $1")
            .bind(lead)
            .bind(higher)
            .execute(&self.pool)
            .await?;
        if raised.rows_affected() != 1 {
            return Err(WireError::unavailable(reason::NOT_LEADER, "another controller leads on this store now").into());
        }
        self.epoch.set(higher);
        Ok(Stood::Leads(higher))
    }

    /// Writes everything that was learned, or nothing.
    ///
    /// # Errors
    /// Refused ([`reason::WRONG_STATE`]): the store holds a fleet.
    pub async fn learn_anew(&self, learned: &Learned<'_>) -> Result<()> {
        let mut transaction = self.begin().await?;
        if !is_blank_in(&mut transaction).await? {
            return Err(
                WireError::refused(reason::WRONG_STATE, "the store holds a fleet by now; nothing was written").into()
            );
        }
        for row in learned.members {
            members::insert(&mut transaction, row).await?;
        }
        members_changed(&mut transaction).await?;
        for row in learned.tenants {
            insert(&mut transaction, row).await?;
        }
        for line in learned.refused.lines() {
            refuse_in(&mut transaction, &line.principal, line.valid_from_last).await?;
        }
        if let Some(ingress) = learned.ingress {
            set_in(&mut transaction, dns::INGRESS, ingress.as_str()).await?;
        }
        if !learned.former.is_empty() {
            set_in(&mut transaction, dns::FORMER_INGRESS, &dns::list(learned.former)).await?;
        }
        append_in(&mut transaction, learned.entry).await?;
        let event = record(&mut transaction, learned.event).await?;
        self.commit(transaction, "rebuild").await?;
        self.told(event);
        Ok(())
    }
}

async fn is_blank_in(connection: &mut sqlx::AnyConnection) -> Result<bool> {
    let row = sqlx::query(
        "SELECT (SELECT COUNT(*) FROM servers) + (SELECT COUNT(*) FROM tenants) + (SELECT COUNT(*) FROM operations) AS held",
    )
    .fetch_one(connection)
    .await?;
    Ok(column::<i64>(&row, "held")? == 0)
}

async fn insert(connection: &mut sqlx::AnyConnection, row: &TenantRow) -> Result<()> {
    sqlx::query(
        "INSERT INTO tenants (name, state, server, previous_server, generation, generation_issued, running, created_ms, version, bounds, \
         limits, changed) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, (SELECT COALESCE(MAX(changed), 0) + 1 FROM tenants))",
    )
    .bind(row.name.as_str())
    .bind(word(&row.state)?)
    .bind(row.server.as_ref().map(ToString::to_string))
    .bind(row.previous_server.as_ref().map(ToString::to_string))
    .bind(generation_column(row.generation)?)
    .bind(generation_column(row.generation_issued)?)
    .bind(i64::from(row.running))
    .bind(to_ms(row.created))
    .bind(row.version)
    .bind(serde_json::to_string(&row.bounds).map_err(corrupt)?)
    .bind(serde_json::to_string(&row.limits).map_err(corrupt)?)
    .execute(connection)
    .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use feather_proto::{
        error::reason,
        ids::Generation,
        limits::Limits,
        tls::{Principal, Revocation, Revocations},
    };
    use time::OffsetDateTime;

    use super::Learned;
    use crate::{
        audit::Entry,
        dns,
        placement::Bounds,
        store::{
            Error, ServerRow, Stood, Store, TenantRow, TenantState,
            events::{NewEvent, Wanted},
            tests::{On, on_both},
        },
        upkeep::Upkeep,
    };

    on_both!(
        all_of_it_is_written_or_nothing_and_only_into_an_empty_store,
        the_lead_is_above_all_that_was_met_and_nobody_is_disturbed,
    );

    const LONG: Duration = Duration::from_secs(3600);

    fn member(name: &str) -> ServerRow {
        ServerRow {
            name: name.parse().unwrap(),
            identity: name.parse().unwrap(),
            address: format!("{name}:7443"),
            public_address: name.into(),
            key_fingerprint: String::new(),
            joined: OffsetDateTime::UNIX_EPOCH,
            upkeep: Upkeep::default(),
        }
    }

    fn tenant(name: &str) -> TenantRow {
        TenantRow {
            name: name.parse().unwrap(),
            state: TenantState::Active,
            server: Some("nyc".parse().unwrap()),
            previous_server: Some("fra".parse().unwrap()),
            generation: Generation(7),
            generation_issued: Generation(9),
            running: false,
            created: OffsetDateTime::UNIX_EPOCH,
            version: 1,
            bounds: Bounds::default(),
            limits: Limits { pids: Some(100), revision: 3, ..Limits::default() },
        }
    }

    async fn learn(store: &Store, tenants: &[TenantRow]) -> Result<(), Error> {
        let at = OffsetDateTime::UNIX_EPOCH;
        let (text, refused) = (String::new, Principal::agent("ams"));
        let refused: Revocations = [Revocation { principal: refused, valid_from_last: 5 }].into_iter().collect();
        let rpc = "rebuild".to_owned();
        let entry = Entry {
            at,
            caller: text(),
            address: text(),
            rpc,
            arguments: text(),
            code: text(),
            reason: text(),
            operation: text(),
        };
        let event = NewEvent {
            at,
            kind: "store-rebuilt".into(),
            subject: "store".into(),
            server: None,
            message: text(),
            operation: None,
            who: None,
        };
        let (members, ingress) = ([member("nyc"), member("fra")], "fra".parse().unwrap());
        let learned = Learned {
            members: &members,
            tenants,
            refused: &refused,
            ingress: Some(&ingress),
            former: &["nyc".parse().unwrap()].into(),
            entry: &entry,
            event: &event,
        };
        store.learn_anew(&learned).await
    }

    async fn all_of_it_is_written_or_nothing_and_only_into_an_empty_store(on: On) {
        let place = on.place().await;
        let store = Store::open(&place.url).await.unwrap();
        // The second of a name fails when all members are written.
        assert!(learn(&store, &[tenant("alice"), tenant("alice")]).await.is_err());
        assert!(store.is_blank().await.unwrap() && store.servers().await.unwrap().is_empty());
        assert_eq!(store.check_audit("").await.unwrap().rows, 0);

        let tenants = [tenant("alice"), tenant("bob")];
        learn(&store, &tenants).await.unwrap();
        assert_eq!(store.tenants().await.unwrap(), tenants);
        assert_eq!(store.servers().await.unwrap(), [member("fra"), member("nyc")]);
        assert!(store.revocations().await.unwrap().refuses(&Principal::agent("ams"), Some(5)));
        assert_eq!(store.setting(dns::INGRESS).await.unwrap().as_deref(), Some("fra"));
        assert_eq!(dns::former_ingresses(&store).await.unwrap(), ["nyc".parse().unwrap()].into());
        assert_eq!(store.check_audit("").await.unwrap().rows, 1);
        assert_eq!(store.events(&Wanted::default(), 10).await.unwrap()[0].event.kind, "store-rebuilt");

        assert!(!store.is_blank().await.unwrap());
        match learn(&store, &[tenant("carol")]).await {
            Err(Error::Refused(error)) => assert!(error.is(reason::WRONG_STATE), "{error:?}"),
            other => panic!("it was overwritten: {other:?}"),
        }
        assert_eq!(store.tenants().await.unwrap().len(), 2);
    }

    async fn the_lead_is_above_all_that_was_met_and_nobody_is_disturbed(on: On) {
        let place = on.place().await;
        let store = Store::open(&place.url).await.unwrap();
        let Stood::Leads(first) = store.lead_above(0, "rebuild", LONG).await.unwrap() else {
            panic!("nobody else leads")
        };
        store.close().await;
        let store = Store::open(&place.url).await.unwrap();
        // Met while a clock was wrong.
        let met = first + 1_000_000;
        assert_eq!(store.lead_above(met, "rebuild", LONG).await.unwrap(), Stood::Leads(met + 1));
        assert_eq!(store.epoch().get(), Some(met + 1));
        if store.is_shared() {
            let other = Store::open(&place.url).await.unwrap();
            let follows = other.lead_above(met + 5, "another", LONG).await.unwrap();
            assert!(matches!(&follows, Stood::Follows { leader, .. } if leader == "rebuild"), "{follows:?}");
        }
        learn(&store, &[]).await.expect("its lead holds");
        store.close().await;
        let next = Store::open(&place.url).await.unwrap();
        assert!(next.lead_alone().await.unwrap() > met + 1, "and so does that of whoever serves then");
    }
}
