//! The gateway's signed word about who asks (`types::assertion`).

use crate::{
    fault::TokenFault,
    key::{KeyError, SigningKey},
    verify::{LEEWAY_S, header, rules, signed},
};
use bastide_types::{
    assertion::{Assertion, ISSUER},
    snapshot::VerifyingKey,
};

/// `typ` of an assertion.
pub const ASSERTION_TYPE: &str = "bst+jwt";
/// Longest life, in seconds.
pub const ASSERTION_LIFE_S: u64 = 60;

/// Signs an assertion.
pub fn mint_assertion(key: &SigningKey, assertion: &Assertion) -> Result<String, KeyError> {
    key.sign(ASSERTION_TYPE, assertion)
}

/// Checks an assertion that was made for `audience`.
pub fn verify_assertion(
    token: &str,
    keys: &[VerifyingKey],
    audience: &str,
    now_s: u64,
) -> Result<Assertion, TokenFault> {
    let header = header(token, ASSERTION_TYPE)?;
    let key = keys.iter().find(|key| key.kid == header.kid).ok_or(TokenFault::UnknownKey)?;
    let mut rules = rules();
    rules.set_issuer(&[ISSUER]);
    rules.set_audience(&[audience]);
    rules.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
    let assertion: Assertion = signed(token, key, &rules)?;
    if now_s >= assertion.exp.saturating_add(LEEWAY_S) {
        return Err(TokenFault::Expired);
    }
    if assertion.iat > now_s.saturating_add(LEEWAY_S) {
        return Err(TokenFault::NotYetValid);
    }
    if assertion.exp < assertion.iat || assertion.exp - assertion.iat > ASSERTION_LIFE_S {
        return Err(TokenFault::TooLongLived);
    }
    Ok(assertion)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bastide_types::{CustomerId, RequestId};

    fn assertion() -> Assertion {
        Assertion {
            iss: ISSUER.into(),
            aud: "platform".into(),
            sub: "u".into(),
            name: "n".into(),
            org: CustomerId::generate(),
            org_name: "demo".into(),
            stage: None,
            roles: vec![],
            sid: "s".into(),
            acr: bastide_types::Acr::Mfa,
            auth_time: 900,
            request: RequestId::generate(),
            iat: 1000,
            exp: 1060,
        }
    }

    #[test]
    fn an_assertion_counts_for_its_audience_and_its_minute_only() {
        let key = SigningKey::generate().unwrap();
        let keys = [key.verifying_key().clone()];
        let token = mint_assertion(&key, &assertion()).unwrap();
        assert_eq!(verify_assertion(&token, &keys, "platform", 1030), Ok(assertion_like(&token, &keys)));
        assert_eq!(verify_assertion(&token, &keys, "https://app", 1030), Err(TokenFault::WrongAudience));
        assert_eq!(verify_assertion(&token, &keys, "platform", 1065), Err(TokenFault::Expired));
        assert_eq!(verify_assertion(&token, &[], "platform", 1030), Err(TokenFault::UnknownKey));
        let long = Assertion { exp: 2000, ..assertion() };
        let token = mint_assertion(&key, &long).unwrap();
        assert_eq!(verify_assertion(&token, &keys, "platform", 1030), Err(TokenFault::TooLongLived));
    }

    fn assertion_like(token: &str, keys: &[VerifyingKey]) -> Assertion {
        verify_assertion(token, keys, "platform", 1001).unwrap()
    }
}
