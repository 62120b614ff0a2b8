//! Passwords: the rules, and a bounded pool that hashes them.

use super::{
    fault::{Answer, Fault},
    guess,
    workers::Workers,
};
use argon2::{
    Algorithm, Argon2, Params, Version,
    password_hash::{PasswordHasher, PasswordVerifier, phc::PasswordHash},
};
use bastide_types::{Code, Problem, Secret};
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Memory of one hash, in KiB (OWASP's minimum with two passes).
const MEMORY_KIB: u32 = 19 * 1024;
const PASSES: u32 = 2;
/// Logins that may wait for the pool.
const QUEUE_MAX: usize = 64;
/// Longest password, in bytes.
const BYTES_MAX: usize = 1024;

/// Says what is missing in a password.
pub fn demand_strong(password: &str) -> Result<(), Problem> {
    let good = password.chars().count() >= 12
        && password.len() <= BYTES_MAX
        && password.chars().any(|c| c.is_ascii_digit())
        && password.chars().any(char::is_uppercase);
    let because = "It needs at least 12 characters, one digit and one capital letter.";
    if !good {
        return Err(Code::PasswordWeak.because(because));
    }
    match guess::hardness(password) {
        ..guess::LEAST => Err(Code::PasswordWeak.because(
            "It is easy to guess: common words, years, repetitions and rows such as 1234 or qwerty count as one \
             character each. Add something that nobody expects.",
        )),
        _ => Ok(()),
    }
}

/// Hashes in a bounded pool of threads that yield to all others, so that a flood of logins cannot take the machine.
pub struct Hasher {
    entrance: Arc<Semaphore>,
    places: Arc<Semaphore>,
    workers: Workers,
}

/// A place in the pool, held until dropped.
pub struct Slot {
    _entrance: OwnedSemaphorePermit,
    _place: OwnedSemaphorePermit,
}

impl Hasher {
    /// A pool of half the cores.
    pub fn new() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let places = (cores / 2).max(1);
        Self {
            entrance: Arc::new(Semaphore::new(places + QUEUE_MAX)),
            places: Arc::new(Semaphore::new(places)),
            workers: Workers::start(places),
        }
    }

    /// Waits for a place.
    ///
    /// # Errors
    /// At once with 503 when too many wait already.
    pub async fn enter(&self) -> Answer<Slot> {
        let busy = || Fault::Refused(Code::Overloaded.problem(), Some(1));
        let entrance = self.entrance.clone().try_acquire_owned().map_err(|_| busy())?;
        let place = self.places.clone().acquire_owned().await.map_err(|_| busy())?;
        Ok(Slot { _entrance: entrance, _place: place })
    }

    /// Makes a hash as PHC string.
    pub async fn hash(&self, slot: Slot, password: Secret) -> Answer<String> {
        // The slot goes along: a client that hangs up does not free it before the work is done.
        let work = move || {
            let made = hash(password.expose());
            drop(slot);
            made
        };
        self.workers.run(work).await.ok_or(Fault::Hash)?
    }

    /// Whether the password is the one of this hash; without a hash the same work is done for nothing.
    pub async fn matches(&self, slot: Slot, password: Secret, phc: Option<String>) -> Answer<bool> {
        let work = move || {
            let good = password.expose().len() <= BYTES_MAX && is_of(password.expose(), phc.as_deref());
            drop(slot);
            good
        };
        self.workers.run(work).await.ok_or(Fault::Hash)
    }
}

/// Unknown addresses cost the same work as known ones: without a hash, one is made and thrown away.
fn is_of(password: &str, phc: Option<&str>) -> bool {
    let Some(phc) = phc else {
        let _ = hash(password);
        return false;
    };
    PasswordHash::new(phc)
        .is_ok_and(|hash| Argon2::default().verify_password(password.as_bytes(), &hash).is_ok())
}

fn hash(password: &str) -> Answer<String> {
    let params = Params::new(MEMORY_KIB, PASSES, 1, None).map_err(|_| Fault::Hash)?;
    let hash = Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password(password.as_bytes())
        .map_err(|_| Fault::Hash)?;
    Ok(hash.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_needs_length_a_digit_and_a_capital() {
        let check = |password: &str, good| assert_eq!(demand_strong(password).is_ok(), good, "{password}");
        check("Correct-horse-1", true);
        check("Correct-horse-x", false);
        check("correct-horse-1", false);
        check("Short-1", false);
        check(&format!("A1{}", "x".repeat(2000)), false);
        check("Password1234", false);
    }

    #[tokio::test]
    async fn only_the_right_password_matches_and_unknown_ones_never_do() {
        let pool = Hasher::new();
        let phc = pool.hash(pool.enter().await.unwrap(), Secret::new("a")).await.unwrap();
        assert!(phc.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{phc}");
        let check = async |password: &str, phc: Option<&String>| {
            let slot = pool.enter().await.unwrap();
            pool.matches(slot, Secret::new(password), phc.cloned()).await.unwrap()
        };
        assert!(check("a", Some(&phc)).await);
        assert!(!check("b", Some(&phc)).await);
        assert!(!check("a", None).await);
    }

    #[tokio::test]
    async fn a_full_queue_refuses_at_once() {
        let pool = Hasher::new();
        let all = pool.entrance.available_permits() as u32;
        let _all = pool.entrance.clone().acquire_many_owned(all).await.unwrap();
        assert!(matches!(pool.enter().await, Err(Fault::Refused(_, Some(1)))));
    }
}
