//! How an organization looks on its pages: a title and a logo.

use crate::{
    CustomerRow, CustomerStore, Result, Store, Write, parse,
    sql::{Row, across},
};
use bastide_types::{CustomerName, Digest, picture::Picture};

/// How an organization looks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Look {
    /// What its pages are headed with; its name without.
    pub title: Option<String>,
    /// Its logo.
    pub logo: Option<Logo>,
}

/// A logo without its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Logo {
    /// What kind of picture it is, and how large.
    pub picture: Picture,
    /// Digest of its bytes.
    pub digest: Digest,
}

const COLUMNS: &str = "l.title, l.logo_kind, l.logo_width, l.logo_height, l.logo_digest";

impl Store {
    /// A customer by name, and how it looks.
    pub async fn customer_that_looks(&self, name: &CustomerName) -> Result<Option<(CustomerRow, Look)>> {
        let sql = format!(
            "SELECT {COLUMNS}, c.id FROM customer c LEFT JOIN organization_look l ON l.customer = c.id WHERE c.name = ?"
        );
        let row = across(sqlx::AssertSqlSafe(sql)).bind(name.as_str()).fetch_optional(&self.pool).await?;
        let both =
            |row: Row| Ok((CustomerRow { id: parse(row.try_get(5)?)?, name: name.clone() }, look(&row)?));
        row.map(both).transpose()
    }
}

impl CustomerStore<'_> {
    /// How the organization looks, as it is in a transaction.
    pub async fn look(&self, write: &mut Write) -> Result<Look> {
        let sql = format!("SELECT {COLUMNS} FROM organization_look l WHERE l.customer = ?");
        let row = self
            .query(sqlx::AssertSqlSafe(sql))
            .bind(self.customer.to_string())
            .fetch_optional(&mut **write)
            .await?;
        row.as_ref().map_or_else(|| Ok(Look::default()), look)
    }

    /// The bytes of the logo with this digest.
    pub async fn logo(&self, digest: &Digest) -> Result<Option<(Picture, Vec<u8>)>> {
        let sql = format!(
            "SELECT {COLUMNS}, l.logo FROM organization_look l WHERE l.customer = ? AND l.logo_digest = ?"
        );
        let row = self
            .query(sqlx::AssertSqlSafe(sql))
            .bind(self.customer.to_string())
            .bind(digest.to_string())
            .fetch_optional(&self.store.pool)
            .await?;
        let Some(row) = row else { return Ok(None) };
        let bytes: Option<Vec<u8>> = row.try_get(5)?;
        Ok(look(&row)?.logo.map(|logo| logo.picture).zip(bytes))
    }

    /// Sets the title, or goes back to the name.
    pub async fn set_title(&self, write: &mut Write, title: Option<&str>) -> Result<()> {
        self.query(
            "INSERT INTO organization_look (customer, title) VALUES (?1, ?2) ON CONFLICT (customer) DO UPDATE SET title = ?2",
        )
        .bind(self.customer.to_string())
        .bind(title)
        .execute(&mut **write)
        .await?;
        Ok(())
    }

    /// Sets the logo, or takes it away.
    pub async fn set_logo(&self, write: &mut Write, logo: Option<(&Logo, &[u8])>) -> Result<()> {
        let picture = logo.map(|(logo, _)| logo.picture);
        self.query(
            "INSERT INTO organization_look (customer, logo, logo_kind, logo_width, logo_height, logo_digest)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)
             ON CONFLICT (customer) DO UPDATE SET logo = ?2, logo_kind = ?3, logo_width = ?4, logo_height = ?5, logo_digest = ?6",
        )
        .bind(self.customer.to_string())
        .bind(logo.map(|(_, bytes)| bytes))
        .bind(picture.map(|picture| picture.kind.as_str()))
        .bind(picture.map(|picture| picture.width))
        .bind(picture.map(|picture| picture.height))
        .bind(logo.map(|(logo, _)| logo.digest.to_string()))
        .execute(&mut **write)
        .await?;
        Ok(())
    }
}

fn look(row: &Row) -> Result<Look> {
    let kind: Option<&str> = row.try_get(1)?;
    let logo = match kind {
        None => None,
        Some(kind) => {
            let picture = Picture { kind: parse(kind)?, width: row.try_get(2)?, height: row.try_get(3)? };
            Some(Logo { picture, digest: parse(row.try_get(4)?)? })
        }
    };
    Ok(Look { title: row.try_get(0)?, logo })
}
