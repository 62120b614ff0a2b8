//! Proves on a running broker what accounts keep apart: every subject of the system is tried from two throw-away stages,
//! by an agent as they are made, and by users with more rights than we ever give.

use crate::account::{StageAccount, every_subject, open_user_jwt, seed_of, stage_scope, user_jwt};
use crate::connection::servers;
use crate::{Authority, Bus, BusError, Config, claims, jwt};
use async_nats::{Client, ConnectOptions, Event, ServerError, Subscriber};
use bastide_types::Secret;
use futures_util::StreamExt;
use nkeys::KeyPair;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// Longest wait for the broker.
const LIMIT: Duration = Duration::from_secs(30);
/// Life of what is made for a check, in seconds.
const LIFE_S: u64 = 600;
/// Subjects that are tried at once: the client keeps so many words of the broker for us.
const BATCH: usize = 32;
/// Subjects of the broker itself that no stage may use.
const OF_THE_BROKER: &[&str] = &[
    "$SYS.REQ.CLAIMS.LIST",
    "$SYS.REQ.CLAIMS.DELETE",
    "$SYS.REQ.SERVER.PING",
    "$SYS.ACCOUNT.word.CONNECT",
    "$JS.API.INFO",
    "$JS.API.STREAM.CREATE.word",
];
/// Wildcards that no agent may hear.
const WILDCARDS: &[&str] =
    &[">", "*", "cmd.>", "hint.>", "fact.>", "api.>", "platform.>", "_INBOX.>", "$SYS.>", "$JS.>"];
const LIE: &str = "lie";
const SECRET: &str = "secret";

/// A stage that exists only to be tried. Kept between checks, so that the broker's directory does not grow.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Room {
    /// Its account.
    pub account: String,
    /// Signs its agents.
    pub signing_seed: Secret,
    /// Signs users of full rights, which real stages have none of.
    pub open_seed: Secret,
}

impl Room {
    /// A new one.
    ///
    /// # Errors
    /// When no key can be made.
    pub fn generate() -> Result<Self, BusError> {
        let StageAccount { account, signing_seed } = StageAccount::generate()?;
        Ok(Self { account, signing_seed, open_seed: seed_of(&KeyPair::new_account())? })
    }

    fn stage(&self) -> StageAccount {
        StageAccount { account: self.account.clone(), signing_seed: self.signing_seed.clone() }
    }
}

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Things that were tried.
    pub tried: usize,
    /// What should have been forbidden and was not.
    pub faults: Vec<String>,
}

/// Tries everything. `sys` is a credential of the system account.
///
/// # Errors
/// When the broker cannot be asked, or does not take the throw-away accounts.
pub async fn run(
    sys: &Config,
    authority: &Authority,
    rooms: &[Room; 2],
    now_s: u64,
) -> Result<Report, BusError> {
    let system = Bus::connect(sys).await?;
    system.connected(LIMIT).await?;
    for room in rooms {
        let open = jwt::key_from_seed(room.open_seed.expose(), 'A')?.public_key();
        let account = room.stage().jwt_with(authority, &open, now_s, now_s + LIFE_S)?;
        claims::ensure(&system, &room.account, &account).await?;
    }
    system.close().await;
    let [victim, thief] = rooms;
    let accounts = [victim.account.as_str(), &thief.account];
    let mut every = every_subject(&authority.accounts, &accounts);
    every.extend(OF_THE_BROKER.iter().map(|&subject| subject.to_owned()));
    let mut report = Report::default();
    let agent = Credential::agent(thief, now_s)?;
    try_agent(sys, agent, &every, &mut report).await?;
    let users = (Credential::open(victim, now_s)?, Credential::open(thief, now_s)?);
    try_rooms(sys, users, &every, &mut report).await?;
    try_stolen_key(sys, (victim, thief), now_s, &mut report).await?;
    Ok(report)
}

/// A user that somebody could have.
pub(crate) struct Credential {
    jwt: String,
    key: KeyPair,
    name: String,
}

impl Credential {
    fn agent(room: &Room, now_s: u64) -> Result<Self, BusError> {
        let key = KeyPair::new_user();
        let name = key.public_key();
        let jwt = room.stage().agent_jwt(&name, now_s, LIFE_S)?;
        Ok(Self { jwt, key, name })
    }

    fn open(room: &Room, now_s: u64) -> Result<Self, BusError> {
        let key = KeyPair::new_user();
        let name = key.public_key();
        let jwt = open_user_jwt(&room.open_seed, &room.account, &name, now_s, now_s + LIFE_S)?;
        Ok(Self { jwt, key, name })
    }
}

/// An agent says and hears what its scope names, and nothing else.
async fn try_agent(
    config: &Config,
    agent: Credential,
    every: &BTreeSet<String>,
    report: &mut Report,
) -> Result<(), BusError> {
    let (may_say, may_hear) = stage_scope();
    let (client, mut words) = dial(config, agent).await?;
    let all: Vec<&str> = every.iter().map(String::as_str).collect();
    for part in all.chunks(BATCH) {
        for subject in part {
            client.publish((*subject).to_owned(), LIE.into()).await.map_err(|_| BusError::Closed)?;
        }
        let denied = denied(&client, &mut words, "Publish to").await?;
        judge(part, may_say, &denied, "say", report);
    }
    let all: Vec<&str> = all.iter().copied().chain(WILDCARDS.iter().copied()).collect();
    for part in all.chunks(BATCH) {
        let mut heard = Vec::new();
        for subject in part {
            heard.push(client.subscribe((*subject).to_owned()).await.map_err(|_| BusError::Closed)?);
        }
        let denied = denied(&client, &mut words, "Subscription to").await?;
        judge(part, may_hear, &denied, "hear", report);
    }
    Ok(())
}

fn judge(tried: &[&str], allowed: &[&str], denied: &BTreeSet<String>, what: &str, report: &mut Report) {
    report.tried += tried.len();
    for subject in tried {
        match (allowed.contains(subject), denied.contains(*subject)) {
            (false, false) => report.faults.push(format!("an agent may {what} `{subject}`")),
            (true, true) => {
                report.faults.push(format!("an agent may not {what} `{subject}`, which it needs"))
            }
            _ => {}
        }
    }
}

/// What the broker forbade until now. It handles what one connection sends in order, so that with the answer to a
/// question all its words about what came before are here.
async fn denied(
    client: &Client,
    words: &mut mpsc::Receiver<String>,
    kind: &str,
) -> Result<BTreeSet<String>, BusError> {
    let asked = async_nats::Request::new().payload("{}".into()).timeout(Some(LIMIT));
    match client.send_request("platform.state.get", asked).await {
        Ok(_) => {}
        Err(error) if error.kind() == async_nats::RequestErrorKind::NoResponders => {}
        Err(_) => return Err(BusError::TimedOut("platform.state.get".into())),
    }
    let mut denied = BTreeSet::new();
    while let Ok(text) = words.try_recv() {
        if let (true, Some(subject)) = (text.contains(kind), text.split('"').nth(1)) {
            denied.insert(subject.to_owned());
        }
    }
    Ok(denied)
}

/// Whoever has all rights in one stage says everything and hears everything there: nothing gets to the other.
async fn try_rooms(
    config: &Config,
    (victim, thief): (Credential, Credential),
    every: &BTreeSet<String>,
    report: &mut Report,
) -> Result<(), BusError> {
    let (mut victim, mut thief) = (Ear::new(config, victim).await?, Ear::new(config, thief).await?);
    for (speaker, listener, word) in [(1, 0, LIE), (0, 1, SECRET)] {
        let ears = [&mut victim, &mut thief];
        ears[speaker].say(every, word).await?;
        let own = ears[speaker].heard(word).await?;
        // What is not heard where it was said was not said: the silence elsewhere would prove nothing.
        for subject in every.difference(&own) {
            report.faults.push(format!("`{subject}` could not be tried"));
        }
        for subject in ears[listener].heard(word).await? {
            report.faults.push(format!("what one stage says on another's side is heard as `{subject}`"));
        }
        report.tried += every.len();
    }
    Ok(())
}

/// The key that signs the agents of one stage makes none of another.
async fn try_stolen_key(
    config: &Config,
    (victim, thief): (&Room, &Room),
    now_s: u64,
    report: &mut Report,
) -> Result<(), BusError> {
    let key = KeyPair::new_user();
    let name = key.public_key();
    let jwt = user_jwt(&thief.signing_seed, &victim.account, &name, &name, now_s, Some(now_s + LIFE_S))?;
    report.tried += 1;
    if dial(config, Credential { jwt, key, name }).await.is_ok() {
        report.faults.push("the key of one stage makes agents of another".into());
    }
    Ok(())
}

/// Somebody who hears all that is said in an account.
struct Ear {
    client: Client,
    tap: Subscriber,
    marker: String,
}

impl Ear {
    async fn new(config: &Config, user: Credential) -> Result<Self, BusError> {
        let marker = format!("marker.{}", user.name);
        let (client, _) = dial(config, user).await?;
        let tap = client.subscribe(">").await.map_err(|_| BusError::Closed)?;
        let mut ear = Self { client, tap, marker };
        ear.heard("").await?; // the broker knows of the tap now
        Ok(ear)
    }

    async fn say(&self, subjects: &BTreeSet<String>, word: &'static str) -> Result<(), BusError> {
        for subject in subjects {
            self.client.publish(subject.clone(), word.into()).await.map_err(|_| BusError::Closed)?;
        }
        Ok(())
    }

    /// Subjects on which this word came until now. Another's words are here when that one has heard its own.
    async fn heard(&mut self, word: &str) -> Result<BTreeSet<String>, BusError> {
        self.client.publish(self.marker.clone(), "".into()).await.map_err(|_| BusError::Closed)?;
        let mut heard = BTreeSet::new();
        loop {
            let message = tokio::time::timeout(LIMIT, self.tap.next()).await;
            let message = message.map_err(|_| BusError::TimedOut(">".into()))?.ok_or(BusError::Closed)?;
            if *message.subject == *self.marker {
                return Ok(heard);
            }
            if message.payload == word.as_bytes() {
                heard.insert(message.subject.to_string());
            }
        }
    }
}

/// Connects once; whatever the broker reports is sent on.
async fn dial(config: &Config, user: Credential) -> Result<(Client, mpsc::Receiver<String>), BusError> {
    let (sender, words) = mpsc::channel(4 * BATCH);
    let key = Arc::new(user.key);
    let sign = move |nonce: Vec<u8>| {
        let key = key.clone();
        async move { key.sign(&nonce).map_err(async_nats::AuthError::new) }
    };
    let client = ConnectOptions::with_jwt(user.jwt, sign)
        .name("check")
        .require_tls(true)
        .add_root_certificates(config.ca_file.clone())
        .custom_inbox_prefix(format!("_INBOX.{}", user.name))
        .connection_timeout(LIMIT)
        .subscription_capacity(4096)
        .max_reconnects(Some(1))
        .ignore_discovered_servers()
        .event_callback(move |event| {
            if let Event::ServerError(ServerError::Other(text)) = event {
                // A word that is lost makes a fault of what was forbidden, never the other way round.
                let _ = sender.try_send(text);
            }
            std::future::ready(())
        })
        .connect(servers(&config.url)?)
        .await
        .map_err(|error| BusError::Config(error.to_string()))?;
    Ok((client, words))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_allowed_and_should_not_be_is_a_fault_and_so_is_the_contrary() {
        let mut report = Report::default();
        let denied = BTreeSet::from(["a".to_owned(), "b".to_owned()]);
        judge(&["a", "b", "c", "d"], &["b", "d"], &denied, "say", &mut report);
        let faults = ["an agent may not say `b`, which it needs", "an agent may say `c`"];
        assert_eq!(report, Report { tried: 4, faults: faults.map(Into::into).into() });
    }
}
