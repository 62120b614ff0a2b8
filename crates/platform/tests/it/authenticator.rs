//! An authenticator of software: one key, which does what a browser and a security key would do, and on demand what they
//! never would.

use aws_lc_rs::{
    digest::{SHA256, digest},
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair},
};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use serde_json::{Value, json};

pub(super) const ORIGIN: &str = "https://acme.platform.localhost:8443";

/// What an authenticator says, by the names of the form.
pub(super) type Said = Vec<(String, String)>;

pub(super) struct Authenticator {
    key: EcdsaKeyPair,
    pub(super) id: Vec<u8>,
    /// What the owner is called by, once there is one.
    pub(super) handle: Option<Vec<u8>>,
    /// Uses; `None` does not count.
    pub(super) counter: Option<u32>,
    pub(super) origin: String,
    pub(super) rp_id: String,
    pub(super) verifies: bool,
    pub(super) framed: bool,
}

/// What a page asks.
pub(super) fn options(page: &str) -> Value {
    let from = page.split_once("data-options=\"").unwrap_or_else(|| panic!("{page}")).1;
    let text = from.split_once('"').unwrap().0;
    let pairs = [("&#34;", "\""), ("&quot;", "\""), ("&#39;", "'"), ("&#60;", "<"), ("&#62;", ">")];
    let text = pairs.iter().fold(text.to_owned(), |text, (from, to)| text.replace(from, to));
    serde_json::from_str::<Value>(&text.replace("&#38;", "&")).unwrap()["publicKey"].take()
}

fn spelled(bytes: &[u8]) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}

impl Authenticator {
    pub(super) fn new() -> Self {
        let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).unwrap();
        let mut id = vec![0; 32];
        aws_lc_rs::rand::fill(&mut id).unwrap();
        Self {
            key,
            id,
            handle: None,
            counter: Some(0),
            origin: ORIGIN.to_owned(),
            rp_id: "acme.platform.localhost".to_owned(),
            verifies: true,
            framed: false,
        }
    }

    fn client_data(&self, kind: &str, challenge: &Value) -> Vec<u8> {
        let data = json!({
            "type": kind, "challenge": challenge, "origin": self.origin, "crossOrigin": self.framed,
        });
        data.to_string().into_bytes()
    }

    fn authenticator_data(&mut self, made: &[u8]) -> Vec<u8> {
        self.counter = self.counter.map(|counter| counter + 1);
        let flags = 0x01 | if self.verifies { 0x04 } else { 0 } | if made.is_empty() { 0 } else { 0x40 };
        let counter = self.counter.unwrap_or_default().to_be_bytes();
        [digest(&SHA256, self.rp_id.as_bytes()).as_ref(), &[flags], &counter, made].concat()
    }

    /// Makes the passkey that a page asks for.
    pub(super) fn make(&mut self, page: &str) -> Said {
        let options = options(page);
        let handle = options["user"]["id"].as_str().unwrap();
        self.handle = Some(BASE64_URL_SAFE_NO_PAD.decode(handle).unwrap());
        let client_data = self.client_data("webauthn.create", &options["challenge"]);
        // The uncompressed point: 4, x, y.
        let point = self.key.public_key().as_ref();
        let (x, y) = point[1..].split_at(32);
        let cose = [&[0xa5, 1, 2, 3, 0x26, 0x20, 1, 0x21, 0x58, 32], x, &[0x22, 0x58, 32], y].concat();
        let length = u16::try_from(self.id.len()).unwrap().to_be_bytes();
        let made = [&[0; 16][..], &length, &self.id, &cose].concat();
        let data = self.authenticator_data(&made);
        let length = u16::try_from(data.len()).unwrap().to_be_bytes();
        let attestation =
            [b"\xa3\x63fmt\x64none\x67attStmt\xa0\x68authData\x59".as_slice(), &length, &data].concat();
        [("client_data", spelled(&client_data)), ("attestation", spelled(&attestation))]
            .map(|(name, value)| (name.to_owned(), value))
            .to_vec()
    }

    /// Shows the passkey to a page that asks for one.
    pub(super) fn show(&mut self, page: &str) -> Said {
        let challenge = options(page)["challenge"].clone();
        self.answer(&challenge)
    }

    /// Answers this challenge.
    pub(super) fn answer(&mut self, challenge: &Value) -> Said {
        let client_data = self.client_data("webauthn.get", challenge);
        let data = self.authenticator_data(&[]);
        let signed = [&data, digest(&SHA256, &client_data).as_ref()].concat();
        let signature = self.key.sign(&SystemRandom::new(), &signed).unwrap();
        let mut said = vec![
            ("credential", spelled(&self.id)),
            ("client_data", spelled(&client_data)),
            ("authenticator_data", spelled(&data)),
            ("signature", spelled(signature.as_ref())),
        ];
        said.extend(self.handle.as_ref().map(|handle| ("user_handle", spelled(handle))));
        said.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }
}
