//! The embedded store as a file: copying it while it is in use, and looking whether it is sound.

use std::path::Path;

use feather_proto::error::{Error as WireError, reason};
use sqlx::Row as _;

use super::{Result, Store, column};

impl Store {
    /// Writes a consistent copy to a file that is not there yet. Other calls wait meanwhile.
    pub async fn copy_to(&self, file: &Path) -> Result<()> {
        if !self.embedded {
            return Err(WireError::refused(
                reason::STORAGE,
                "this store is no embedded one; copy it with the tools of its database (pg_dump)",
            )
            .into());
        }
        sqlx::query("VACUUM INTO $1").bind(file.display().to_string()).execute(&self.pool).await?;
        Ok(())
    }

    /// Looks at every page of an embedded store; what is wrong, if anything is.
    pub async fn integrity(&self) -> Result<Option<String>> {
        let rows = sqlx::query("PRAGMA integrity_check").fetch_all(&self.pool).await?;
        let first: String = rows.first().map(|row| row.try_get(0)).transpose()?.unwrap_or_default();
        if first != "ok" {
            return Ok(Some(first));
        }
        // Readable row by row, too: what a page says of its cells is not all that can be wrong.
        let members = sqlx::query("SELECT name FROM servers").fetch_all(&self.pool).await?;
        members.iter().try_for_each(|row| column::<String>(row, "name").map(drop))?;
        Ok(None)
    }
}
