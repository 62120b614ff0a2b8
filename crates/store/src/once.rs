//! What a request demands of the first write that it causes: that nobody did it before under the same idempotency key,
//! and that what it changes is still what the caller saw.
//!
//! A key is noted in the transaction of the write, so it is there exactly when the write is, whatever is killed when.
//! The answer follows when it is known. Conditions are looked at while the write lock is held: nobody changes anything
//! between the look and the write.

use crate::{CustomerStore, Result, StoreError, Write, from_json, now_s, sql::across, to_json};
use bastide_types::CustomerId;
use serde::{Deserialize, Serialize};
use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};
use uuid::Uuid;

/// Seconds for which a key is remembered.
pub const KEY_LIFE_S: i64 = 24 * 3600;

/// Says what a request is, as far as it was read: the digest of method, address and body.
pub type Fingerprint = Arc<dyn Fn() -> String + Send + Sync>;
/// Whether what is to be changed is still what the caller saw.
pub type Condition = Box<dyn Fn() -> Pin<Box<dyn Future<Output = bool> + Send>> + Send + Sync>;

/// A key that a request came with.
#[derive(Clone)]
pub struct OnceKey {
    /// Whose.
    pub customer: CustomerId,
    /// Who came with it: a subject.
    pub caller: String,
    /// Its digest.
    pub key: String,
    /// This try.
    pub run: Uuid,
    /// What is asked for.
    pub request: Fingerprint,
}

/// What a request demands of its first write.
pub struct Demands {
    once: Option<OnceKey>,
    condition: Option<Condition>,
    is_met: AtomicBool,
    is_noted: AtomicBool,
}

impl Demands {
    /// To be done once, and only while something is true.
    pub fn new(once: Option<OnceKey>, condition: Option<Condition>) -> Self {
        Self { once, condition, is_met: AtomicBool::new(false), is_noted: AtomicBool::new(false) }
    }

    /// The key, once a write began under it.
    pub fn done(&self) -> Option<&OnceKey> {
        self.once.as_ref().filter(|_| self.is_noted.load(Ordering::Relaxed))
    }
}

tokio::task_local! {
    static DEMANDS: Arc<Demands>;
}

/// Runs `work`; its writes obey the demands.
///
/// Writes of it fail with [`StoreError::Unmet`] or [`StoreError::Repeated`] otherwise.
pub async fn demanding<T>(demands: Arc<Demands>, work: impl Future<Output = T>) -> T {
    DEMANDS.scope(demands, work).await
}

/// What is known of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OnceRow {
    /// Digest of the request that was done.
    pub request: String,
    /// What was answered; missing while that is not known.
    pub answer: Option<KeptAnswer>,
    /// When it was done, in seconds since 1970.
    pub at: i64,
}

/// An answer as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptAnswer {
    /// Status.
    pub status: u16,
    /// Some of its fields.
    pub fields: Vec<(String, String)>,
    /// Body.
    pub body: String,
}

/// At the beginning of each write.
pub(crate) async fn check(write: &mut Write) -> Result<()> {
    let Ok(demands) = DEMANDS.try_with(Clone::clone) else { return Ok(()) };
    if let Some(condition) = &demands.condition
        && !demands.is_met.load(Ordering::Relaxed)
    {
        if !condition().await {
            return Err(StoreError::Unmet);
        }
        demands.is_met.store(true, Ordering::Relaxed);
    }
    if let Some(once) = &demands.once {
        note(write, once).await?;
        demands.is_noted.store(true, Ordering::Relaxed);
    }
    Ok(())
}

/// Notes the key. Another try may have been faster; a later write of the same try finds its own note.
async fn note(write: &mut Write, once: &OnceKey) -> Result<()> {
    let (customer, now) = (once.customer.to_string(), now_s());
    across("DELETE FROM once WHERE customer = ? AND at < ?")
        .bind(&customer)
        .bind(now - KEY_LIFE_S)
        .execute(&mut **write)
        .await?;
    across(
        "INSERT INTO once (customer, caller, key, run, request, at) VALUES (?, ?, ?, ?, ?, ?)
         ON CONFLICT (customer, caller, key) DO NOTHING",
    )
    .bind(&customer)
    .bind(&once.caller)
    .bind(&once.key)
    .bind(once.run.to_string())
    .bind((once.request)())
    .bind(now)
    .execute(&mut **write)
    .await?;
    let run = across("SELECT run FROM once WHERE customer = ? AND caller = ? AND key = ?")
        .bind(&customer)
        .bind(&once.caller)
        .bind(&once.key)
        .fetch_one(&mut **write)
        .await?;
    let run: String = run.try_get(0)?;
    if run == once.run.to_string() { Ok(()) } else { Err(StoreError::Repeated) }
}

impl CustomerStore<'_> {
    /// What is known of a key.
    pub async fn once(&self, caller: &str, key: &str) -> Result<Option<OnceRow>> {
        let row = self.query(
            "SELECT request, answer, at FROM once WHERE customer = ? AND caller = ? AND key = ? AND at >= ?",
        )
        .bind(self.customer.to_string())
        .bind(caller)
        .bind(key)
        .bind(now_s() - KEY_LIFE_S)
        .fetch_optional(&self.store.pool)
        .await?;
        let Some(row) = row else { return Ok(None) };
        let sealed: Option<Vec<u8>> = row.try_get(1)?;
        let answer = match sealed {
            // It may hold a secret that is shown once.
            Some(sealed) => {
                let open = self.store.kek.open(&self.place(caller, key), &sealed)?;
                Some(from_json(&String::from_utf8_lossy(&open))?)
            }
            None => None,
        };
        Ok(Some(OnceRow { request: row.try_get(0)?, answer, at: row.try_get(2)? }))
    }

    /// Keeps the answer of a try; without effect when the try wrote nothing.
    pub async fn keep_answer(&self, once: &OnceKey, answer: &KeptAnswer) -> Result<()> {
        let place = self.place(&once.caller, &once.key);
        let sealed = self.store.kek.seal(&place, to_json(answer)?.as_bytes())?;
        let mut write = self.store.write().await?;
        self.query("UPDATE once SET answer = ? WHERE customer = ? AND caller = ? AND key = ? AND run = ?")
            .bind(sealed)
            .bind(self.customer.to_string())
            .bind(&once.caller)
            .bind(&once.key)
            .bind(once.run.to_string())
            .execute(&mut *write)
            .await?;
        Ok(write.commit().await?)
    }

    fn place(&self, caller: &str, key: &str) -> String {
        format!("once/{}/{caller}/{key}", self.customer)
    }
}
