//! Requests of customers in a minute, so that replicas count together.

use crate::{Result, Store, parse, sql::across};
use bastide_types::CustomerId;

/// Minutes that are kept.
const KEPT_MINUTES: i64 = 2;

/// How many requests a replica let through.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PaceRow {
    /// Whose.
    pub customer: CustomerId,
    /// In which minute since 1970.
    pub minute: i64,
    /// Which ones.
    pub class: String,
    /// How many.
    pub requests: u32,
}

impl Store {
    /// Says what `replica` counted, and hears what all others did in this minute, added up.
    pub async fn exchange_pace(&self, replica: &str, news: &[PaceRow], minute: i64) -> Result<Vec<PaceRow>> {
        if !news.is_empty() {
            let mut write = self.write().await?;
            across("DELETE FROM pace WHERE minute < ?")
                .bind(minute - KEPT_MINUTES)
                .execute(&mut *write)
                .await?;
            for row in news {
                across(
                    "INSERT INTO pace (customer, minute, class, replica, requests) VALUES (?, ?, ?, ?, ?)
                     ON CONFLICT (customer, minute, class, replica) DO UPDATE SET requests = excluded.requests",
                )
                .bind(row.customer.to_string())
                .bind(row.minute)
                .bind(&row.class)
                .bind(replica)
                .bind(i64::from(row.requests))
                .execute(&mut *write)
                .await?;
            }
            write.commit().await?;
        }
        let rows = across(
            "SELECT customer, class, CAST(SUM(requests) AS BIGINT) FROM pace WHERE minute = ? AND replica != ? GROUP BY customer, class",
        )
        .bind(minute)
        .bind(replica)
        .fetch_all(&self.pool)
        .await?;
        rows.iter()
            .map(|row| {
                let (customer, class, requests): (String, String, i64) =
                    (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
                let requests = u32::try_from(requests).unwrap_or(u32::MAX);
                Ok(PaceRow { customer: parse(&customer)?, minute, class, requests })
            })
            .collect()
    }
}
