//! Who a client is, and whether it is that: registered ones, the command line, the gateways.

use super::{
    CLI, Fault, GATEWAY, Identity,
    fault::{Answer, oauth},
    form::Form,
    issuer::Issuer,
    source::{Count, Source},
    tenant::Tenant,
};
use axum::http::{HeaderMap, header};
use base64::{Engine, prelude::BASE64_STANDARD};
use bastide_identity::{
    AssertionFault, ClientKey, Unproven, client_assertion::CLIENT_ASSERTION_TYPE, opaque,
};
use bastide_store::{ClientRow, MemberRow, StoreError, now_s};
use bastide_types::{Code, HeldRole, Secret};
use std::{borrow::Cow, collections::BTreeSet};
use url::Url;

/// What a client is made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Runs with its users and keeps no secret.
    Public,
    /// Runs on a server and keeps a secret or a private key.
    Confidential,
    /// Acts for itself, without users.
    Service,
    /// Has users but no browser, and keeps no secret.
    Device,
}

/// A client that may ask for something.
#[derive(Debug, Clone)]
pub struct Client {
    /// Id.
    pub id: String,
    /// Name to show.
    pub name: String,
    /// What it is made for.
    pub kind: Kind,
    /// Its registration; `None` for the command line.
    pub row: Option<ClientRow>,
    /// Grant of the secret or key by which it proved itself, if it did.
    pub grant: Option<String>,
}

impl Client {
    fn of(row: ClientRow) -> Option<Self> {
        let kind = match row.kind.as_str() {
            "public" => Kind::Public,
            "confidential" => Kind::Confidential,
            "service" => Kind::Service,
            "device" => Kind::Device,
            _ => return None,
        };
        Some(Self { id: row.id.clone(), name: row.name.clone(), kind, row: Some(row), grant: None })
    }

    /// One that has proven itself.
    fn proven(row: ClientRow, grant: String) -> Option<Self> {
        Some(Self { grant: Some(grant), ..Self::of(row)? })
    }

    /// The command line: known to every organization, public, with loopback redirects.
    pub fn command_line() -> Self {
        Self {
            id: CLI.to_owned(),
            name: "Bastide command line".to_owned(),
            kind: Kind::Public,
            row: None,
            grant: None,
        }
    }

    /// Whether it keeps a secret or a private key, and proves itself by it.
    pub fn proves_itself(&self) -> bool {
        matches!(self.kind, Kind::Confidential | Kind::Service)
    }

    /// Whether users sign in for it.
    pub fn has_users(&self) -> bool {
        self.kind != Kind::Service
    }

    /// The member as this client may act for them: with those organization roles that its registration
    /// names, in the stages of both. The command line acts with all.
    pub fn bound(&self, mut member: MemberRow) -> MemberRow {
        if let Some(row) = &self.row {
            let mut both = BTreeSet::new();
            for held in &member.roles {
                let held = HeldRole::read(held);
                let named = row.roles.iter().filter_map(|role| held.both(HeldRole::read(role)));
                both.extend(named.map(|held| held.to_string()));
            }
            member.roles = both.into_iter().collect();
        }
        member
    }

    /// Whether the browser may take an answer there.
    pub fn takes(&self, redirect_uri: &str) -> bool {
        match &self.row {
            Some(row) => row.redirect_uris.iter().any(|known| same_redirect(known, redirect_uri)),
            None => {
                same_redirect("http://127.0.0.1/callback", redirect_uri)
                    || same_redirect("http://[::1]/callback", redirect_uri)
            }
        }
    }
}

/// Whether a redirect URI is the registered one: the very same text, only that on loopback the port is free
/// (RFC 8252 §7.3).
fn same_redirect(known: &str, sent: &str) -> bool {
    known == sent || loopback(known).is_some_and(|known| loopback(sent) == Some(known))
}

/// Host and rest of a loopback address, without its port.
fn loopback(uri: &str) -> Option<(&str, &str)> {
    let after = uri.strip_prefix("http://")?;
    let host = ["127.0.0.1", "[::1]"].into_iter().find(|host| after.starts_with(host))?;
    let (port, path) = after[host.len()..].split_at(after[host.len()..].find('/')?);
    let good = match port.strip_prefix(':') {
        Some(digits) => {
            digits.bytes().all(|b| b.is_ascii_digit()) && digits.parse::<u16>().is_ok_and(|number| number > 0)
        }
        None => port.is_empty(),
    };
    good.then_some((host, path))
}

/// Says what is wrong with a redirect URI that somebody wants to register.
pub fn demand_redirect(uri: &str, kind: &str) -> Result<(), &'static str> {
    let odd = |c: char| c.is_control() || c.is_whitespace() || matches!(c, '*' | '\\' | '<' | '>' | '"');
    if uri.len() > 2000 || uri.chars().any(odd) || !uri.is_ascii() {
        return Err("a plain address of at most 2000 characters, without `*`");
    }
    let url = Url::parse(uri).map_err(|_| "a complete address, such as https://example.com/callback")?;
    if uri.contains('#') {
        return Err("an address without a fragment (`#`)");
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("an address without a user");
    }
    let local = matches!(url.host_str(), Some("127.0.0.1" | "[::1]" | "localhost"));
    match url.scheme() {
        "https" if url.has_host() => Ok(()),
        "http" if local => Ok(()),
        "http" => Err("https, except on 127.0.0.1, [::1] and localhost"),
        // RFC 8252 §7.1: a scheme that is somebody's domain, reversed.
        scheme if scheme.contains('.') && kind == "public" => Ok(()),
        _ => Err("https, or http on loopback, or for public clients a scheme such as com.example.app"),
    }
}

impl Identity {
    /// A client that may send its users here, by its id alone.
    pub(super) async fn client_with_users(&self, tenant: &Tenant, id: &str) -> Answer<Option<Client>> {
        if id == CLI {
            return Ok(Some(Client::command_line()));
        }
        let row = self.of(tenant).client_with_id(id).await?.filter(|row| !row.suspended);
        Ok(row.and_then(Client::of).filter(Client::has_users))
    }

    /// The client that sends this form: proven by its secret or key, or a public one that has none.
    pub(super) async fn authenticate(
        &self,
        issuer: &Issuer,
        headers: &HeaderMap,
        form: &Form,
    ) -> Answer<Client> {
        let found = match credentials(headers, form)? {
            Shown::Nothing(GATEWAY) => {
                return Err(oauth("unauthorized_client", "This client does not use this endpoint."));
            }
            Shown::Nothing(id) => {
                let found = self.client_with_users(&issuer.tenant, id).await?;
                found.filter(|client| !client.proves_itself()).ok_or(WRONG)
            }
            Shown::Secret(id, secret) => {
                let known = self.of(&issuer.tenant).client(&id, &opaque::hash(secret.expose())).await?;
                known.and_then(|(row, grant)| Client::proven(row, grant)).ok_or(WRONG)
            }
            Shown::Assertion(id, text) => self.by_assertion(issuer, id, text).await?,
        };
        match found {
            Ok(client) => Ok(client),
            Err(why) => Err(self.client_refused(&issuer.tenant, headers, &why).await?),
        }
    }

    /// As [`Self::authenticate`], but a public client will not do.
    pub(super) async fn authenticate_proven(
        &self,
        issuer: &Issuer,
        headers: &HeaderMap,
        form: &Form,
    ) -> Answer<Client> {
        let client = self.authenticate(issuer, headers, form).await?;
        if client.proves_itself() {
            Ok(client)
        } else {
            Err(self.client_refused(&issuer.tenant, headers, &WRONG).await?)
        }
    }

    /// The client whose key signed this word, which counts once over all replicas; or why there is none.
    async fn by_assertion(
        &self,
        issuer: &Issuer,
        id: Option<&str>,
        text: &str,
    ) -> Answer<Result<Client, NotProven>> {
        let store = self.of(&issuer.tenant);
        let unproven = match Unproven::read(text) {
            Ok(unproven) if id.is_none_or(|id| id == unproven.client()) => unproven,
            Ok(_) => return Ok(Err(AssertionFault::WrongClient.into())),
            Err(fault) => return Ok(Err(fault.into())),
        };
        let Some((row, grant, jwk)) = store.client_by_key(unproven.client(), unproven.kid()).await? else {
            return Ok(Err(AssertionFault::UnknownKey.into()));
        };
        let proven = match unproven.prove(&kept_key(&jwk)?, &issuer.url, now_s().unsigned_abs()) {
            Ok(proven) => proven,
            Err(fault) => return Ok(Err(fault.into())),
        };
        let until = i64::try_from(proven.until_s).unwrap_or(i64::MAX);
        let mut write = self.store().write().await?;
        let is_first =
            store.take_client_assertion(&mut write, &row.id, &opaque::hash(&proven.jti), until).await?;
        write.commit().await.map_err(StoreError::from)?;
        if !is_first {
            return Ok(Err(NotProven("the assertion has counted already".into())));
        }
        Ok(Client::proven(row, grant).ok_or(WRONG))
    }

    /// Writes a failure of a client down. A source that fails too often gets another answer and no more entries,
    /// so that it cannot fill the disk; clients that prove themselves are not touched by it.
    pub(super) async fn note_refused(
        &self,
        tenant: &Tenant,
        headers: &HeaderMap,
        what: &str,
        detail: &str,
    ) -> Answer<()> {
        match self.limits().clients.count(Source::of(headers), now_s()) {
            Count::Over(wait_s) => Err(Fault::Refused(Code::LoginLocked.problem(), Some(wait_s))),
            Count::Free | Count::Reached => self.note(tenant, "anonymous", what, detail).await,
        }
    }

    /// Notes why a client is not proven, for administrators; the client hears the same whatever it was.
    async fn client_refused(&self, tenant: &Tenant, headers: &HeaderMap, why: &NotProven) -> Answer<Fault> {
        self.note_refused(tenant, headers, "client.refused", &why.0).await?;
        Ok(oauth("invalid_client", "The client is unknown or has not proven itself."))
    }
}

/// Why a client is not proven.
struct NotProven(Cow<'static, str>);

const WRONG: NotProven = NotProven(Cow::Borrowed("wrong id or secret"));

impl From<AssertionFault> for NotProven {
    fn from(fault: AssertionFault) -> Self {
        Self(fault.to_string().into())
    }
}

/// A key as the store has it.
pub(super) fn kept_key(jwk: &str) -> Result<ClientKey, StoreError> {
    let damaged = || StoreError::Damaged("a key of a client".into());
    ClientKey::read(&serde_json::from_str(jwk).map_err(|_| damaged())?).map_err(|_| damaged())
}

/// How a client says who it is.
enum Shown<'a> {
    /// By its id alone.
    Nothing(&'a str),
    /// By its secret.
    Secret(Cow<'a, str>, Secret),
    /// By a word that its key signed; it may say its id besides (RFC 7521 §4.2).
    Assertion(Option<&'a str>, &'a str),
}

/// How the client says who it is: by Basic authentication, in the form or by a signature, never by two of them (RFC 6749
/// §2.3).
fn credentials<'a>(headers: &HeaderMap, form: &'a Form) -> Answer<Shown<'a>> {
    let refuse = || oauth("invalid_client", "Client authentication is missing or malformed.");
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let field = values.next();
    let (secret, assertion) = (form.get("client_secret"), form.get("client_assertion"));
    let ways = [field.is_some(), values.next().is_some(), secret.is_some(), assertion.is_some()];
    if ways.into_iter().filter(|way| *way).count() > 1 {
        return Err(oauth("invalid_request", "The client authenticates in two ways."));
    }
    match (assertion, form.get("client_assertion_type")) {
        (None, None) => {}
        (Some(text), Some(CLIENT_ASSERTION_TYPE)) => {
            return Ok(Shown::Assertion(form.get("client_id"), text));
        }
        _ => return Err(refuse()),
    }
    let Some(value) = field else {
        let id = form.get("client_id").ok_or_else(refuse)?;
        return Ok(match secret {
            Some(secret) => Shown::Secret(id.into(), Secret::new(secret)),
            None => Shown::Nothing(id),
        });
    };
    let (scheme, encoded) = value.to_str().ok().and_then(|value| value.split_once(' ')).ok_or_else(refuse)?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return Err(refuse());
    }
    let bytes = BASE64_STANDARD.decode(encoded.trim()).map_err(|_| refuse())?;
    let pair = String::from_utf8(bytes).map_err(|_| refuse())?;
    let (id, secret) = pair.split_once(':').ok_or_else(refuse)?;
    // Both halves are form-encoded before they are joined.
    let decode = |part: &str| {
        url::form_urlencoded::parse(format!("v={part}").as_bytes()).next().map(|(_, v)| v.into_owned())
    };
    let id = decode(id).ok_or_else(refuse)?;
    if form.get("client_id").is_some_and(|sent| sent != id) {
        return Err(refuse());
    }
    Ok(Shown::Secret(id.into(), Secret::new(decode(secret).ok_or_else(refuse)?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn on_loopback_the_port_is_free_and_nothing_else() {
        let known = "http://127.0.0.1/callback";
        let check = |uri: &str, good| assert_eq!(same_redirect(known, uri), good, "{uri}");
        check("http://127.0.0.1/callback", true);
        check("http://127.0.0.1:1/callback", true);
        check("http://127.0.0.1:65535/callback", true);
        for uri in [
            "http://[::1]:1/callback",
            "http://127.0.0.1:0/callback",
            "http://127.0.0.1:65536/callback",
            "http://127.0.0.1:/callback",
            "http://127.0.0.1:1/callback/",
            "http://127.0.0.1:1/callback?x",
            "http://127.0.0.1:1@evil/callback",
            "http://127.0.0.1:1.evil/callback",
            "http://127.0.0.1.evil/callback",
            "http://127.0.0.1:+1/callback",
            "https://127.0.0.1:1/callback",
            "http://localhost:1/callback",
            "HTTP://127.0.0.1:1/callback",
            "",
        ] {
            check(uri, false);
        }
        assert!(same_redirect("http://[::1]:9/cb?a=b", "http://[::1]:1/cb?a=b"));
        assert!(!same_redirect("https://a.example/cb", "https://a.example:444/cb"));
        assert!(!same_redirect("http://localhost:1/cb", "http://localhost:2/cb"));
    }

    #[test]
    fn only_safe_redirects_can_be_registered() {
        let check =
            |uri: &str, kind: &str, good| assert_eq!(demand_redirect(uri, kind).is_ok(), good, "{uri}");
        check("https://a.example/cb?x=1", "confidential", true);
        check("http://127.0.0.1/cb", "public", true);
        check("http://localhost:3000/cb", "confidential", true);
        check("com.example.app:/cb", "public", true);
        for uri in [
            "com.example.app:/cb",
            "http://a.example/cb",
            "https://a.example/cb#x",
            "https://u@a.example/cb",
            "https://*.example/cb",
            "https://a.example/c b",
            "https://a.example\\@evil/",
            "javascript:alert(1)",
            "data:text/html,x",
            "/cb",
            "",
        ] {
            check(uri, "confidential", false);
        }
        check("javascript:alert(1)", "public", false);
    }
}
