//! Invitations: which address of the waitlist became which tenant.

use feather_proto::{
    error::{Error as WireError, reason},
    ids::{OperationId, TenantName},
};
use sqlx::any::AnyRow;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Result, Store, column, from_ms, from_word, is_unique_violation, parse, parse_option, to_ms};
use crate::operations::State;

/// An invitation, and how far the addition of its tenant is. No `Debug`: an address is personal data.
#[derive(Clone, PartialEq, Eq)]
pub struct Invitation {
    /// The address in lower case.
    pub address: String,
    /// Whom it became.
    pub tenant: TenantName,
    /// Of the addition.
    pub request_id: Uuid,
    /// When.
    pub at: OffsetDateTime,
    /// The addition, once it has begun.
    pub operation: Option<(OperationId, State)>,
}

impl Invitation {
    /// False when no tenant came of it, so that the address may be invited again.
    pub fn stands(&self) -> bool {
        self.operation.as_ref().is_some_and(|(_, state)| !matches!(state, State::Failed | State::Cancelled))
    }
}

/// The text of a query that reads invitations, with a condition behind it or not.
macro_rules! select {
    ($condition:literal) => {
        concat!(
            "SELECT invitations.address AS address, invitations.tenant AS tenant, invitations.request_id AS request_id, \
             invitations.invited_ms AS invited_ms, operations.id AS operation, operations.state AS state \
             FROM invitations LEFT JOIN operations ON operations.request_id = invitations.request_id",
            $condition
        )
    };
}

fn invitation(row: &AnyRow) -> Result<Invitation> {
    let operation: Option<OperationId> = parse_option(column(row, "operation")?)?;
    let state = column::<Option<String>>(row, "state")?.as_deref().map(from_word).transpose()?;
    Ok(Invitation {
        address: column(row, "address")?,
        tenant: parse(&column::<String>(row, "tenant")?)?,
        request_id: parse(&column::<String>(row, "request_id")?)?,
        at: from_ms(column(row, "invited_ms")?)?,
        operation: operation.zip(state),
    })
}

impl Store {
    /// All invitations, also those that nothing came of.
    pub async fn invitations(&self) -> Result<Vec<Invitation>> {
        let rows = sqlx::query(select!("")).fetch_all(&self.pool).await?;
        rows.iter().map(invitation).collect()
    }

    /// That of one address, in lower case.
    pub async fn invitation(&self, address: &str) -> Result<Option<Invitation>> {
        let query = sqlx::query(select!(" WHERE invitations.address = $1"));
        let row = query.bind(address.to_owned()).fetch_optional(&self.pool).await?;
        row.as_ref().map(invitation).transpose()
    }

    /// Notes an invitation whose addition is about to begin, in place of one that nothing came of.
    pub async fn note_invitation(&self, new: &Invitation, instead_of: Option<Uuid>) -> Result<()> {
        let mut transaction = self.begin().await?;
        if let Some(old) = instead_of {
            sqlx::query("DELETE FROM invitations WHERE address = $1 AND request_id = $2")
                .bind(&new.address)
                .bind(old.to_string())
                .execute(&mut *transaction)
                .await?;
        }
        let inserted =
            sqlx::query("INSERT INTO invitations (address, tenant, request_id, invited_ms) VALUES ($1, $2, $3, $4)")
                .bind(&new.address)
                .bind(new.tenant.as_str())
                .bind(new.request_id.to_string())
                .bind(to_ms(new.at))
                .execute(&mut *transaction)
                .await;
        match inserted {
            Ok(_) => self.commit(transaction, "invitation").await,
            Err(error) if is_unique_violation(&error) => Err(WireError::stale(
                reason::WORLD_CHANGED,
                "the address was invited by someone else meanwhile; look with `featherctl waitlist list`",
            )
            .into()),
            Err(error) => Err(error.into()),
        }
    }

    /// Forgets the invitation of an address; with a request id only if it is that one.
    pub async fn forget_invitation(&self, address: &str, only: Option<Uuid>) -> Result<()> {
        let mut transaction = self.begin().await?;
        sqlx::query("DELETE FROM invitations WHERE address = $1 AND ($2 = '' OR request_id = $2)")
            .bind(address.to_owned())
            .bind(only.map(|id| id.to_string()).unwrap_or_default())
            .execute(&mut *transaction)
            .await?;
        self.commit(transaction, "forget invitation").await
    }
}
