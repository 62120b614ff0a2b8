//! ID tokens and what `/userinfo` says about a member.

use super::{Fault, Identity, fault::Answer, issuer::Issuer};
use bastide_identity::{
    IdClaims, IdKey, KeyError,
    id_token::{ID_LIFE_S, at_hash, read_hint},
};
use bastide_store::{KeyKind, MemberRow, SessionUse, now_s};
use bastide_types::Acr;
use serde_json::{Map, Value};

/// Whether a scope is among those given.
pub fn has(scope: &str, one: &str) -> bool {
    scope.split(' ').any(|given| given == one)
}

/// The ways of signing in (RFC 8176 §2).
fn amr(acr: Acr) -> Vec<String> {
    let ways: &[&str] = match acr {
        // Nothing attests that the key is in hardware, so the lesser is said.
        Acr::Passkey => &["swk", "user", "mfa"],
        Acr::Mfa => &["pwd", "otp", "mfa"],
        Acr::Password | Acr::Client => &["pwd"],
    };
    ways.iter().map(|way| (*way).to_owned()).collect()
}

/// What the scopes open about a member.
pub fn about(member: &MemberRow, scope: &str) -> Map<String, Value> {
    let mut claims = Map::from_iter([("sub".to_owned(), Value::from(member.id.to_string()))]);
    if has(scope, "profile") {
        claims.insert("name".to_owned(), member.name.clone().into());
    }
    if has(scope, "email") {
        claims.insert("email".to_owned(), member.email.clone().into());
        // An invitation may have come by another way than mail: then nothing proves the address.
        claims.insert("email_verified".to_owned(), member.verified.into());
    }
    claims
}

impl Identity {
    /// An ID token beside this access token, if the scopes ask for one.
    pub(super) async fn id_token(
        &self,
        issuer: &Issuer,
        member: &MemberRow,
        session: &str,
        used: &SessionUse,
        nonce: Option<&str>,
        access_token: &str,
    ) -> Answer<Option<String>> {
        if !has(&used.scope, "openid") {
            return Ok(None);
        }
        self.demand_id_key(issuer).await?;
        let key = self.of(&issuer.tenant).signing_key(issuer.stage.as_ref(), KeyKind::Id).await?;
        let key = IdKey::from_pkcs8(&key.ok_or(Fault::Key(KeyError::NotAKey))?)?;
        let now = now_s().unsigned_abs();
        let email = has(&used.scope, "email");
        let claims = IdClaims {
            iss: issuer.url.clone(),
            sub: member.id.to_string(),
            aud: used.client.clone(),
            exp: now + ID_LIFE_S,
            iat: now,
            auth_time: used.auth_time.unsigned_abs(),
            nonce: nonce.map(str::to_owned),
            acr: used.acr.to_string(),
            amr: amr(used.acr),
            at_hash: at_hash(access_token),
            sid: session.to_owned(),
            name: has(&used.scope, "profile").then(|| member.name.clone()),
            email: email.then(|| member.email.clone()),
            email_verified: email.then_some(member.verified),
        };
        Ok(Some(key.mint(&claims)?))
    }

    /// An ID token of this issuer that came back as a hint.
    pub(super) async fn hinted(&self, issuer: &Issuer, hint: &str) -> Answer<Option<IdClaims>> {
        let keys = self.of(&issuer.tenant).public_keys(issuer.stage.as_ref(), KeyKind::Id).await?;
        let keys: Vec<_> = keys.iter().map(|key| (key.kid.as_str(), key.public.as_str())).collect();
        Ok(read_hint(hint, &issuer.url, &keys))
    }
}
