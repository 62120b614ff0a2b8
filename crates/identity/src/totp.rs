//! Codes of authenticator apps: six digits that change every 30 seconds (RFC 6238), and recovery codes.
//!
//! HMAC-SHA-1, because most apps know nothing else; the hash's collisions do not matter to an HMAC. That a code counts
//! once is the caller's to remember: [`TotpSecret::step_of`] says which step it was.

use crate::key::KeyError;
use aws_lc_rs::{hmac, rand};
use bastide_types::Secret;
use data_encoding::BASE32_NOPAD;
use subtle::ConstantTimeEq;
use url::form_urlencoded::byte_serialize;

/// Life of a code, in seconds (RFC 6238 §5.2).
const STEP_S: u64 = 30;
/// Bytes of a secret: as long as the hash (RFC 4226 §4).
const SECRET_BYTES: usize = 20;
/// Bytes of a recovery code: nobody finds one from its hash.
const RECOVERY_BYTES: usize = 10;

/// What an authenticator app and we share.
pub struct TotpSecret([u8; SECRET_BYTES]);

impl TotpSecret {
    /// Makes one.
    ///
    /// # Errors
    /// Without randomness.
    pub fn generate() -> Result<Self, KeyError> {
        let mut bytes = [0; SECRET_BYTES];
        rand::fill(&mut bytes).map_err(|_| KeyError::Randomness)?;
        Ok(Self(bytes))
    }

    /// Reads one back; `None` when it has another length.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// To be kept sealed.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// As people type it into an app: base32 (RFC 4648 §6).
    pub fn text(&self) -> Secret {
        Secret::new(BASE32_NOPAD.encode(&self.0))
    }

    /// The address that apps read from a QR code: whose secret it is, at which issuer.
    pub fn uri(&self, issuer: &str, account: &str) -> Secret {
        // Blanks as `%20`: some apps show a `+`.
        let escaped = |text: &str| byte_serialize(text.as_bytes()).collect::<String>().replace('+', "%20");
        let (issuer, account) = (escaped(issuer), escaped(account));
        let secret = self.text();
        Secret::new(format!("otpauth://totp/{issuer}:{account}?secret={}&issuer={issuer}", secret.expose()))
    }

    /// The step whose code this is: the present one, the one before or the one after (RFC 6238 §5.2). Takes as long
    /// for a wrong code as for a right one.
    pub fn step_of(&self, code: &str, now_s: u64) -> Option<u64> {
        let now = now_s / STEP_S;
        let steps = [now.saturating_sub(1), now, now + 1];
        let is_of = |step: u64| bool::from(self.code(step).as_bytes().ct_eq(code.as_bytes()));
        steps.map(|step| is_of(step).then_some(step)).into_iter().flatten().next()
    }

    /// The code at a time, in seconds since 1970.
    pub fn code_at(&self, now_s: u64) -> String {
        self.code(now_s / STEP_S)
    }

    /// RFC 4226 §5.3.
    fn code(&self, step: u64) -> String {
        let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, &self.0);
        let tag = hmac::sign(&key, &step.to_be_bytes());
        let tag = tag.as_ref();
        let at = usize::from(tag[tag.len() - 1] & 0xf);
        let bits = u32::from_be_bytes([tag[at] & 0x7f, tag[at + 1], tag[at + 2], tag[at + 3]]);
        format!("{:06}", bits % 1_000_000)
    }
}

/// Whether a text has the form of a code. Blanks, which apps show, have been taken out.
pub fn is_code(text: &str) -> bool {
    text.len() == 6 && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// A code for whoever has lost the app, in the form in which it is shown.
///
/// # Errors
/// Without randomness.
pub fn recovery_code() -> Result<Secret, KeyError> {
    let mut bytes = [0; RECOVERY_BYTES];
    rand::fill(&mut bytes).map_err(|_| KeyError::Randomness)?;
    let letters = BASE32_NOPAD.encode(&bytes);
    let groups: Vec<_> = letters.as_bytes().chunks(4).map(String::from_utf8_lossy).collect();
    Ok(Secret::new(groups.join("-")))
}

/// A recovery code as typed, in the form in which it is hashed: capitals, and letters for the digits that it never has.
pub fn typed_recovery_code(text: &str) -> String {
    let letters = text.chars().filter(char::is_ascii_alphanumeric).map(|c| match c.to_ascii_uppercase() {
        '0' => 'O',
        '1' => 'I',
        '8' => 'B',
        other => other,
    });
    letters.take(2 * RECOVERY_BYTES).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of_the_rfc() -> TotpSecret {
        TotpSecret::from_bytes(b"12345678901234567890").unwrap()
    }

    #[test]
    fn codes_are_those_of_rfc_6238() {
        // Appendix B: the last six of eight digits.
        let check = |now_s: u64, expected: &str| assert_eq!(of_the_rfc().code_at(now_s), expected, "{now_s}");
        check(59, "287082");
        check(1_111_111_109, "081804");
        check(1_111_111_111, "050471");
        check(1_234_567_890, "005924");
        check(2_000_000_000, "279037");
        check(20_000_000_000, "353130");
    }

    #[test]
    fn a_code_counts_one_step_early_and_one_step_late_and_no_more() {
        let (secret, step) = (of_the_rfc(), 1_000_000_u64);
        for (distance, expected) in [(-2, false), (-1, true), (0, true), (1, true), (2, false)] {
            let code = secret.code(step.saturating_add_signed(distance));
            let found = secret.step_of(&code, step * STEP_S);
            assert_eq!(found.is_some(), expected, "{distance}");
            assert!(found.is_none_or(|found| found == step.saturating_add_signed(distance)));
        }
        assert!(secret.step_of("", 0).is_none() && secret.step_of("0", 0).is_none());
    }

    #[test]
    fn an_address_keeps_names_apart() {
        let uri = of_the_rfc().uri("Acme & Co", "ann@example.com");
        assert_eq!(
            uri.expose(),
            "otpauth://totp/Acme%20%26%20Co:ann%40example.com?secret=GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ&issuer=Acme%20%26%20Co"
        );
    }

    #[test]
    fn a_recovery_code_is_read_however_it_is_typed() {
        let (code, other) = (recovery_code().unwrap(), recovery_code().unwrap());
        let shown = code.expose();
        assert_eq!((shown.len(), shown.matches('-').count()), (19, 3), "{shown}");
        assert_ne!(shown, other.expose());
        let typed = typed_recovery_code(shown);
        assert_eq!(typed.len(), 16);
        assert_eq!(typed_recovery_code(&format!(" {} ", shown.to_lowercase().replace('-', " "))), typed);
        assert_eq!(typed_recovery_code(&typed.replace('O', "0").replace('I', "1").replace('B', "8")), typed);
    }

    proptest! {
        #[test]
        fn nothing_typed_is_taken_but_the_code(text in ".{0,12}", now_s in 30u64..4_000_000_000) {
            let secret = of_the_rfc();
            let near = [now_s - 30, now_s, now_s + 30].map(|at| secret.code_at(at));
            prop_assert_eq!(secret.step_of(&text, now_s).is_some(), near.contains(&text));
            prop_assert!(typed_recovery_code(&text).len() <= 20);
        }
    }
}
