//! Passkeys (Web Authentication Level 3): what an authenticator is asked, and whether its answer is good.
//!
//! CBOR, COSE and signatures are the work of `webauthn-rs`. That a challenge counts once, and whose passkey may be used
//! where, is for the caller to see to.

use aws_lc_rs::digest::{SHA256, digest};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use serde::Deserialize;
use serde_json::{Value, json};
use std::time::Duration;
use url::Url;
use uuid::Uuid;
use webauthn_rs::prelude::{
    DiscoverableAuthentication, Passkey as Credential, PasskeyRegistration, Webauthn, WebauthnBuilder,
    WebauthnError,
};

/// How long a browser asks its user.
const ASK: Duration = Duration::from_mins(5);
/// Longest id of a credential (Web Authentication §4), in bytes.
const ID_BYTES_MAX: usize = 1023;

/// Why there is no passkey, or none was shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PasskeyFault {
    /// The host or origin of the pages will not do.
    #[error("the origin of the pages cannot have passkeys")]
    Setup,
    /// What was kept of the challenge, or of the passkey, cannot be read.
    #[error("what was kept cannot be read")]
    Kept,
    /// The answer is malformed.
    #[error("the answer cannot be read")]
    Unreadable,
    /// It belongs to another challenge.
    #[error("the answer belongs to another challenge")]
    Challenge,
    /// A page of another origin asked for it, or one in a frame.
    #[error("the answer was given to another origin")]
    Origin,
    /// It is bound to another relying party.
    #[error("the answer is for another relying party")]
    Party,
    /// Nobody showed the authenticator who they are.
    #[error("the authenticator has not verified its user")]
    Unverified,
    /// Its counter is not above the last one.
    #[error("its counter went back: there may be a copy of it")]
    Copied,
    /// Another credential, a signature of another key, or anything else that is wrong.
    #[error("the credential or its signature is wrong")]
    Wrong,
}

impl From<WebauthnError> for PasskeyFault {
    fn from(error: WebauthnError) -> Self {
        match error {
            WebauthnError::MismatchedChallenge => Self::Challenge,
            WebauthnError::InvalidRPOrigin | WebauthnError::CredentialCrossOrigin => Self::Origin,
            WebauthnError::InvalidRPIDHash => Self::Party,
            WebauthnError::UserNotPresent | WebauthnError::UserNotVerified => Self::Unverified,
            WebauthnError::CredentialPossibleCompromise => Self::Copied,
            WebauthnError::ParseBase64Failure(_)
            | WebauthnError::ParseCBORFailure(_)
            | WebauthnError::ParseJSONFailure(_)
            | WebauthnError::ParseNOMFailure
            | WebauthnError::ParseInsufficientBytesAvailable => Self::Unreadable,
            _ => Self::Wrong,
        }
    }
}

/// For whom passkeys are: the pages of one host.
pub struct RelyingParty(Webauthn);

/// A question to an authenticator.
pub struct Asked {
    /// For `navigator.credentials`, as JSON.
    pub options: String,
    /// What the answer is checked with: to be kept where its asker cannot reach it, and used once.
    pub state: String,
}

/// Somebody who gets a passkey.
pub struct Owner<'a> {
    /// Comes back with each answer of a passkey that was found without a name.
    pub id: Uuid,
    /// Address.
    pub email: &'a str,
    /// Name; may be empty.
    pub name: &'a str,
}

/// A passkey as it is kept.
#[derive(Debug, Clone)]
pub struct Passkey(Credential);

/// A passkey that has just been shown.
#[derive(Debug)]
pub struct Shown {
    /// As it is to be kept from now on.
    pub passkey: Passkey,
    /// How often it was used, by its own word; 0 when it does not count.
    pub counter: u32,
}

impl Passkey {
    fn id(&self) -> &[u8] {
        self.0.cred_id().as_slice()
    }

    /// The hash under which its credential is found.
    pub fn hash(&self) -> [u8; 32] {
        hash(self.id())
    }

    /// To be kept. It is no secret.
    pub fn to_bytes(&self) -> Result<Vec<u8>, PasskeyFault> {
        serde_json::to_vec(&self.0).map_err(|_| PasskeyFault::Kept)
    }

    /// Reads what was kept.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, PasskeyFault> {
        serde_json::from_slice(bytes).map(Self).map_err(|_| PasskeyFault::Kept)
    }
}

/// What a new passkey says; parts are base64url without padding.
#[derive(Debug, Clone, Copy)]
pub struct NewAnswer<'a> {
    /// `clientDataJSON`.
    pub client_data: &'a str,
    /// `attestationObject`.
    pub attestation: &'a str,
}

/// What a passkey says; parts are base64url without padding.
#[derive(Debug, Clone, Copy)]
pub struct Answer<'a> {
    /// Id of the credential.
    pub credential: &'a str,
    /// `clientDataJSON`.
    pub client_data: &'a str,
    /// `authenticatorData`.
    pub authenticator_data: &'a str,
    /// `signature`.
    pub signature: &'a str,
    /// `userHandle`, if there is one.
    pub user_handle: Option<&'a str>,
}

impl Answer<'_> {
    /// The hash under which the credential that it names is found.
    pub fn hash(&self) -> Result<[u8; 32], PasskeyFault> {
        let id = bytes(self.credential)?;
        if (1..=ID_BYTES_MAX).contains(&id.len()) { Ok(hash(&id)) } else { Err(PasskeyFault::Unreadable) }
    }

    /// Whose it is by its own word.
    pub fn owner(&self) -> Result<Option<Uuid>, PasskeyFault> {
        let Some(handle) = self.user_handle else { return Ok(None) };
        Uuid::from_slice(&bytes(handle)?).map(Some).map_err(|_| PasskeyFault::Unreadable)
    }
}

impl RelyingParty {
    /// The pages of `host`, which are at `origin` and nowhere else; `name` is shown to people.
    pub fn new(host: &str, origin: &str, name: &str) -> Result<Self, PasskeyFault> {
        let origin = Url::parse(origin).map_err(|_| PasskeyFault::Setup)?;
        let made = WebauthnBuilder::new(host, &origin).and_then(|one| one.rp_name(name).timeout(ASK).build());
        made.map(Self).map_err(|_| PasskeyFault::Setup)
    }

    /// Asks for a new passkey, which can be found again without a name, on none of the authenticators that have one of
    /// these.
    pub fn ask_new(&self, owner: &Owner<'_>, have: &[Passkey]) -> Result<Asked, PasskeyFault> {
        let have = have.iter().map(|one| one.0.cred_id().clone()).collect();
        let name = if owner.name.is_empty() { owner.email } else { owner.name };
        let (options, state) = self.0.start_passkey_registration(owner.id, owner.email, name, Some(have))?;
        let mut options = serde_json::to_value(options).map_err(|_| PasskeyFault::Setup)?;
        // The library only allows to be found; who signs in with a passkey alone needs it.
        options["publicKey"]["authenticatorSelection"]["residentKey"] = "required".into();
        options["publicKey"]["authenticatorSelection"]["requireResidentKey"] = true.into();
        let state = serde_json::to_string(&state).map_err(|_| PasskeyFault::Setup)?;
        Ok(Asked { options: options.to_string(), state })
    }

    /// The passkey that was made.
    pub fn made(&self, state: &str, answer: &NewAnswer<'_>) -> Result<Passkey, PasskeyFault> {
        let state: PasskeyRegistration = serde_json::from_str(state).map_err(|_| PasskeyFault::Kept)?;
        demand_top_frame(answer.client_data)?;
        // The id is taken from the attestation.
        let answer = serde_json::from_value(json!({
            "id": "",
            "rawId": "",
            "type": "public-key",
            "response": {
                "clientDataJSON": answer.client_data,
                "attestationObject": answer.attestation,
            },
        }));
        let answer = answer.map_err(|_| PasskeyFault::Unreadable)?;
        let passkey = Passkey(self.0.finish_passkey_registration(&answer, &state)?);
        if passkey.id().is_empty() || passkey.id().len() > ID_BYTES_MAX {
            return Err(PasskeyFault::Unreadable);
        }
        Ok(passkey)
    }

    /// Asks for one of these passkeys; without any, for whichever of this host the user chooses.
    pub fn ask(&self, allowed: &[Passkey]) -> Result<Asked, PasskeyFault> {
        let (options, state) = self.0.start_discoverable_authentication()?;
        let mut options = serde_json::to_value(options).map_err(|_| PasskeyFault::Setup)?;
        let allowed: Vec<Value> = allowed
            .iter()
            .map(|one| json!({ "type": "public-key", "id": BASE64_URL_SAFE_NO_PAD.encode(one.id()) }))
            .collect();
        options["publicKey"]["allowCredentials"] = allowed.into();
        // Somebody has pressed a button: nothing waits in the field of a form.
        if let Some(options) = options.as_object_mut() {
            options.remove("mediation");
        }
        let state = serde_json::to_string(&state).map_err(|_| PasskeyFault::Setup)?;
        Ok(Asked { options: options.to_string(), state })
    }

    /// Whether the answer shows this passkey.
    pub fn shown(&self, state: &str, answer: &Answer<'_>, passkey: &Passkey) -> Result<Shown, PasskeyFault> {
        let state: DiscoverableAuthentication =
            serde_json::from_str(state).map_err(|_| PasskeyFault::Kept)?;
        demand_top_frame(answer.client_data)?;
        let answer = serde_json::from_value(json!({
            "id": answer.credential,
            "rawId": answer.credential,
            "type": "public-key",
            "response": {
                "clientDataJSON": answer.client_data,
                "authenticatorData": answer.authenticator_data,
                "signature": answer.signature,
                "userHandle": answer.user_handle,
            },
        }));
        let answer = answer.map_err(|_| PasskeyFault::Unreadable)?;
        let result = self.0.finish_discoverable_authentication_v2(&answer, state, &passkey.0)?;
        if !result.user_verified() {
            return Err(PasskeyFault::Unverified);
        }
        let mut passkey = passkey.clone();
        passkey.0.update_credential(&result).ok_or(PasskeyFault::Wrong)?;
        Ok(Shown { passkey, counter: result.counter() })
    }
}

fn hash(id: &[u8]) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes.copy_from_slice(digest(&SHA256, id).as_ref());
    bytes
}

fn bytes(text: &str) -> Result<Vec<u8>, PasskeyFault> {
    BASE64_URL_SAFE_NO_PAD.decode(text).map_err(|_| PasskeyFault::Unreadable)
}

/// Where the page was that asked.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Frame {
    #[serde(default)]
    cross_origin: bool,
    #[serde(default)]
    top_origin: Option<String>,
}

/// Our pages are in no frame; the library asks for it only at registration.
fn demand_top_frame(client_data: &str) -> Result<(), PasskeyFault> {
    let frame: Frame = serde_json::from_slice(&bytes(client_data)?).map_err(|_| PasskeyFault::Unreadable)?;
    if frame.cross_origin || frame.top_origin.is_some() { Err(PasskeyFault::Origin) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HOST: &str = "acme.platform.localhost";
    const ORIGIN: &str = "https://acme.platform.localhost:8443";

    fn party() -> RelyingParty {
        RelyingParty::new(HOST, ORIGIN, "acme").unwrap()
    }

    fn new_state() -> String {
        let owner = Owner { id: Uuid::nil(), email: "ann@example.com", name: "" };
        party().ask_new(&owner, &[]).unwrap().state
    }

    #[test]
    fn a_host_that_is_not_that_of_its_origin_has_no_passkeys() {
        let check = |host: &str, origin: &str, expected: bool| {
            assert_eq!(RelyingParty::new(host, origin, "acme").is_ok(), expected, "{host} {origin}");
        };
        check(HOST, ORIGIN, true);
        check("beta.platform.localhost", ORIGIN, false);
        check("127.0.0.1", "https://127.0.0.1:8443", false);
        check(HOST, "nonsense", false);
    }

    #[test]
    fn what_is_asked_wants_a_verified_user_and_a_passkey_that_is_found_without_a_name() {
        let owner = Owner { id: Uuid::nil(), email: "ann@example.com", name: "" };
        let options: Value = serde_json::from_str(&party().ask_new(&owner, &[]).unwrap().options).unwrap();
        let options = &options["publicKey"];
        assert_eq!(options["rp"]["id"], HOST);
        assert_eq!(options["authenticatorSelection"]["residentKey"], "required");
        assert_eq!(options["authenticatorSelection"]["userVerification"], "required");
        assert_eq!(options["attestation"], "none");
        assert_eq!(options["user"]["displayName"], "ann@example.com");
        let options: Value = serde_json::from_str(&party().ask(&[]).unwrap().options).unwrap();
        assert_eq!(options["publicKey"]["userVerification"], "required");
        assert_eq!(options["publicKey"]["allowCredentials"], json!([]));
        assert_eq!(options.get("mediation"), None);
    }

    #[test]
    fn a_page_in_a_frame_is_another_origin() {
        let check = |text: &str, expected: Result<(), PasskeyFault>| {
            assert_eq!(demand_top_frame(&BASE64_URL_SAFE_NO_PAD.encode(text)), expected, "{text}");
        };
        check(r#"{"type":"webauthn.get"}"#, Ok(()));
        check(r#"{"crossOrigin":false}"#, Ok(()));
        check(r#"{"crossOrigin":true}"#, Err(PasskeyFault::Origin));
        check(r#"{"topOrigin":"https://evil.example"}"#, Err(PasskeyFault::Origin));
        check("[", Err(PasskeyFault::Unreadable));
    }

    proptest! {
        #[test]
        fn no_bytes_make_a_passkey(client_data: Vec<u8>, attestation: Vec<u8>, text: String) {
            let (party, state) = (party(), new_state());
            let [client_data, attestation] =
                [client_data, attestation].map(|part| BASE64_URL_SAFE_NO_PAD.encode(part));
            let good_data = BASE64_URL_SAFE_NO_PAD.encode(r#"{"type":"webauthn.create"}"#);
            for client_data in [&client_data, &text, &good_data] {
                for attestation in [&attestation, &text] {
                    let answer = NewAnswer { client_data, attestation };
                    prop_assert!(party.made(&state, &answer).is_err());
                }
            }
            prop_assert!(Passkey::from_bytes(text.as_bytes()).is_err());
        }
    }
}
