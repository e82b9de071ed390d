//! The embedded store as a file: copying it while it is in use, and looking whether it is sound.

use std::path::Path;

use feather_proto::error::{Error as WireError, reason};
use sqlx::{Connection as _, Row as _};

use super::{Result, Store, column};

/// Writes what is in the write-ahead log of an embedded store into its file, which then is all of it. Its schema stays as it is. Nobody else
/// may have it open.
pub async fn fold_log(file: &Path) -> Result<()> {
    sqlx::any::install_default_drivers();
    let mut connection = sqlx::AnyConnection::connect(&format!("sqlite://{}?mode=rw", file.display())).await?;
    let folded = sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)").execute(&mut connection).await;
    // The last one to close it takes the empty log away.
    connection.close().await?;
    folded?;
    Ok(())
}

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
