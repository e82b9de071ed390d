//! Secrets that somebody sealed before they came here. Opens nothing, and has no key.

use super::{Result, Store, column};

impl Store {
    /// What was kept under this name.
    pub async fn sealed(&self, name: &str) -> Result<Option<String>> {
        let row = sqlx::query("SELECT content FROM sealed WHERE name = $1")
            .bind(name.to_owned())
            .fetch_optional(&self.pool)
            .await?;
        row.as_ref().map(|row| column(row, "content")).transpose()
    }

    /// Keeps a sealed text in the place of an earlier one.
    pub async fn keep_sealed(&self, name: &str, content: &str) -> Result<()> {
        let mut transaction = self.begin().await?;
        sqlx::query(
            "INSERT INTO sealed (name, content) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET content = excluded.content",
        )
        .bind(name.to_owned())
        .bind(content.to_owned())
        .execute(&mut *transaction)
        .await?;
        self.commit(transaction, "sealed").await
    }

    /// Forgets it.
    pub async fn forget_sealed(&self, name: &str) -> Result<()> {
        let mut transaction = self.begin().await?;
        sqlx::query("DELETE FROM sealed WHERE name = $1").bind(name.to_owned()).execute(&mut *transaction).await?;
        self.commit(transaction, "sealed").await
    }
}
