//! What should run: a node learns which stages it has, the agent of each stage follows its desired
//! state.

use crate::follow::{self, Source};
use crate::request::{decode, now_ms};
use crate::{Bus, BusError, SigningKey, VerifyKey, account, file, jwt};
use bastide_types::message::{Lasting, NodeQuery, Signed, StageGrant, StageState, StateQuery};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

const LIMIT: Duration = Duration::from_secs(5);
const SEED_BYTES_MAX: u64 = 256;
/// How long a signed state may be on its way, in seconds: clocks of nodes may differ by minutes.
pub const STATE_LIFE_S: u64 = 900;

/// The key of a node, made on the node; its seed never leaves it.
#[derive(Debug, Clone)]
pub struct NodeKey {
    public: String,
}

impl NodeKey {
    /// Reads the seed file, or makes a key and writes it (mode 0600).
    pub fn load_or_create(seed_file: &Path) -> Result<Self, BusError> {
        let key = match file::read(seed_file, SEED_BYTES_MAX)? {
            Some(seed) => jwt::key_from_seed(&String::from_utf8_lossy(&seed), 'U')?,
            None => {
                let key = nkeys::KeyPair::new_user();
                file::write(seed_file, account::seed_of(&key)?.expose().as_bytes())?;
                key
            }
        };
        Ok(Self { public: key.public_key() })
    }

    /// Its public half, for [`grants`].
    pub fn public(&self) -> &str {
        &self.public
    }
}

/// Node (account NODE): the stages that it runs, each with a credential for `user_key`. Ask again
/// well before the credentials end and give the new ones to [`Bus::renew`].
pub async fn grants(bus: &Bus, user_key: &str, limit: Duration) -> Result<Vec<StageGrant>, BusError> {
    bus.request("platform.node.stages", &NodeQuery { user_key: user_key.to_owned() }, limit).await
}

/// Seconds since 1970 at which a user JWT ends; `None` when it does not, or is none.
pub fn expires_at(user_jwt: &str) -> Option<u64> {
    jwt::claims(user_jwt).ok()?["exp"].as_u64()
}

/// Platform: signs the state of a stage, for an agent that asks now.
///
/// # Errors
/// When it cannot be written as JSON.
pub fn sign(key: &SigningKey, state: StageState, now_s: u64) -> Result<Signed, BusError> {
    key.sign(&Lasting { until_s: now_s.saturating_add(STATE_LIFE_S), said: state })
}

/// Agent: follows the desired state of its stage. The last good one is read from `dir` (blocking)
/// before this returns; a state of another account, with a wrong signature or not of a later
/// generation is refused, and so is one that was signed long ago: somebody may have kept it for an agent that knows
/// nothing yet. Ends with `stop`, with the bus, or when no receiver is left.
pub fn follow(
    bus: &Bus,
    dir: &Path,
    key: VerifyKey,
    account: &str,
    stop: CancellationToken,
) -> watch::Receiver<Option<Arc<StageState>>> {
    follow::follow(bus, dir, States { key, account: account.to_owned() }, stop)
}

struct States {
    key: VerifyKey,
    account: String,
}

impl States {
    fn read(&self, signed: &Signed) -> Result<StageState, BusError> {
        let mut state: StageState = self.key.verify(signed)?;
        if state.account != self.account {
            return Err(BusError::Malformed("it is the state of another stage".into()));
        }
        state.hand_out_settings();
        Ok(state)
    }

    /// What comes from the bus must have been signed lately; what is on disk came in time.
    fn read_in_time(&self, signed: &Signed, now_s: u64) -> Result<StageState, BusError> {
        let lasting: Lasting<StageState> = self.key.verify(signed)?;
        if lasting.until_s < now_s {
            tracing::warn!(
                until_s = lasting.until_s,
                now_s,
                "a state that has ended is refused; are the clocks right?"
            );
            return Err(BusError::Malformed("the state has ended".into()));
        }
        self.read(signed)
    }
}

impl Source for States {
    type State = StageState;
    const FILE: &'static str = "state.json";
    const BYTES_MAX: u64 = 4 * 1024 * 1024;
    const HINT: &'static str = "cmd.state.changed";

    async fn pull(&self, bus: &Bus, have: Option<Arc<StageState>>) -> Result<Option<Vec<u8>>, BusError> {
        let applied = have.as_ref().map(|have| have.generation);
        let signed: Signed = bus.request("platform.state.get", &StateQuery { applied }, LIMIT).await?;
        // The answer is always the whole state: most often the one we have.
        if self.read_in_time(&signed, now_ms() / 1000)?.generation == applied.unwrap_or_default()
            && applied.is_some()
        {
            return Ok(None);
        }
        serde_json::to_vec(&signed).map(Some).map_err(|error| BusError::Malformed(error.to_string()))
    }

    fn admit(&self, bytes: &[u8], have: Option<&StageState>) -> Result<StageState, String> {
        let signed: Signed = decode(bytes).map_err(|error| error.to_string())?;
        let state = self.read(&signed).map_err(|error| error.to_string())?;
        match have {
            Some(have) if state.generation <= have.generation => {
                Err(format!("generation {} is not later than {}", state.generation, have.generation))
            }
            _ => Ok(state),
        }
    }
}
