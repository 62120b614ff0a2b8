//! What is decided about a provider of identity outside.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Most groups that a provider's claim is mapped to.
const GROUPS_MAX: usize = 200;
/// Most scopes that are asked for.
const SCOPES_MAX: usize = 20;

/// How we prove there who we are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Auth {
    /// By a secret in the head.
    #[default]
    ClientSecretBasic,
    /// By a secret in the form.
    ClientSecretPost,
    /// By a signature of a key that only we have; its public half is at `jwks_uri`.
    PrivateKeyJwt,
    /// Not at all: PKCE alone.
    None,
}

/// When an address that the provider names counts as proven.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Verified {
    /// When its claim says so.
    #[default]
    Claim,
    /// Always: the provider gives nobody an address that is not theirs.
    Always,
    /// Never.
    Never,
}

/// When somebody whom the provider sends is the account that has the address already.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Existing {
    /// When both have proven the address, or the account was only invited.
    #[default]
    Verified,
    /// When the provider has proven it.
    Provider,
    /// Never.
    Never,
}

/// Claims by which the provider says what it says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ClaimNames {
    /// Of the address.
    pub email: String,
    /// Of whether it is proven.
    pub email_verified: String,
    /// Of the name to show.
    pub name: String,
    /// Of groups: a text, or an array of texts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub groups: Option<String>,
}

impl Default for ClaimNames {
    fn default() -> Self {
        Self {
            email: "email".to_owned(),
            email_verified: "email_verified".to_owned(),
            name: "name".to_owned(),
            groups: None,
        }
    }
}

/// A group of the stage for those for whom the provider says something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct GroupRule {
    /// What the claim of groups holds, exactly.
    pub value: String,
    /// The group.
    pub group: String,
}

/// What is decided about a provider.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct IdpConfig {
    /// Name on the sign-in page.
    pub name: String,
    /// Its issuer, exactly as it calls itself.
    pub issuer: String,
    /// Our id there.
    pub client_id: String,
    /// How we prove there who we are.
    #[serde(default)]
    pub auth: Auth,
    /// What is asked for besides `openid`.
    #[serde(default = "default_scopes")]
    pub scopes: Vec<String>,
    /// Names of its claims.
    #[serde(default)]
    pub claims: ClaimNames,
    /// When its addresses count as proven.
    #[serde(default)]
    pub verified: Verified,
    /// When somebody is an account that is there already.
    #[serde(default)]
    pub existing: Existing,
    /// Whether whoever is new gets an account.
    #[serde(default)]
    pub create: bool,
    /// Organization roles of new members.
    #[serde(default)]
    pub roles: Vec<String>,
    /// Groups of a stage that follow the provider at each sign-in.
    #[serde(default)]
    pub groups: Vec<GroupRule>,
    /// Whether it is offered.
    #[serde(default = "default_enabled")]
    pub enabled: bool,
}

fn default_scopes() -> Vec<String> {
    vec!["email".to_owned(), "profile".to_owned()]
}

const fn default_enabled() -> bool {
    true
}

/// Somebody whom a provider sends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sent {
    /// The provider's id for them.
    pub subject: String,
    /// Address, in lower case.
    pub email: Option<String>,
    /// Whether it is proven.
    pub verified: bool,
    /// Name to show.
    pub name: Option<String>,
    /// What the claim of groups holds.
    pub groups: Vec<String>,
    /// The provider's session.
    pub sid: Option<String>,
}

impl IdpConfig {
    /// Says what is wrong with it.
    ///
    /// # Errors
    /// The field and what it should be.
    pub fn check(&self, is_stage: bool) -> Result<(), String> {
        let short =
            |text: &str, most: usize| (1..=most).contains(&text.len()) && !text.chars().any(char::is_control);
        let scope = |text: &String| {
            short(text, 100) && text.bytes().all(|b| b.is_ascii_graphic() && b != b'"' && b != b'\\')
        };
        let claims = [&self.claims.email, &self.claims.email_verified, &self.claims.name];
        match () {
            () if !short(&self.name, 50) => Err("name: 1 to 50 characters".to_owned()),
            () if !short(&self.client_id, 256) => Err("client_id: 1 to 256 characters".to_owned()),
            () if self.scopes.len() > SCOPES_MAX || !self.scopes.iter().all(scope) => {
                Err(format!("scopes: at most {SCOPES_MAX} plain words"))
            }
            () if !claims.into_iter().chain(&self.claims.groups).all(|name| short(name, 50)) => {
                Err("claims: names of 1 to 50 characters".to_owned())
            }
            () if !is_stage && (!self.groups.is_empty() || self.claims.groups.is_some()) => {
                Err("groups: for providers of a stage".to_owned())
            }
            () if is_stage && !self.roles.is_empty() => Err("roles: for providers of members".to_owned()),
            () if !is_stage && self.create && self.roles.is_empty() => {
                Err("roles: at least one for new members".to_owned())
            }
            () if self.groups.len() > GROUPS_MAX
                || !self.groups.iter().all(|rule| short(&rule.value, 256) && short(&rule.group, 63)) =>
            {
                Err(format!("groups: at most {GROUPS_MAX}, values of at most 256 characters"))
            }
            () => Ok(()),
        }
    }

    /// What a provider says about somebody.
    pub fn read(&self, claims: &Map<String, Value>) -> Sent {
        let text = |name: &str| claims.get(name).and_then(Value::as_str).map(str::to_owned);
        let email = text(&self.claims.email).map(|email| email.trim().to_lowercase());
        let email = email.filter(|email| {
            email.len() <= 254
                && email.contains('@')
                && !email.chars().any(|c| c.is_whitespace() || c.is_control())
        });
        let says = match claims.get(&self.claims.email_verified) {
            Some(Value::Bool(said)) => *said,
            // Some providers say it as a text.
            Some(Value::String(said)) => said == "true",
            _ => false,
        };
        let groups = self.claims.groups.as_ref().and_then(|name| claims.get(name));
        Sent {
            subject: text("sub").unwrap_or_default(),
            verified: email.is_some()
                && match self.verified {
                    Verified::Claim => says,
                    Verified::Always => true,
                    Verified::Never => false,
                },
            email,
            name: text(&self.claims.name),
            groups: match groups {
                Some(Value::String(one)) => vec![one.clone()],
                Some(Value::Array(all)) => all.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
                _ => Vec::new(),
            },
            sid: text("sid").filter(|sid| sid.len() <= 255),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn config(change: Value) -> IdpConfig {
        let mut all = json!({ "name": "Office", "issuer": "https://op", "client_id": "us" });
        all.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        serde_json::from_value(all).unwrap()
    }

    #[test]
    fn an_address_is_proven_as_was_decided() {
        let check = |verified: &str, claims: Value, expected: (Option<&str>, bool)| {
            let sent = config(json!({ "verified": verified })).read(claims.as_object().unwrap());
            assert_eq!((sent.email.as_deref(), sent.verified), expected, "{verified} {claims}");
        };
        let claimed = json!({ "sub": "1", "email": " Ann@Example.com ", "email_verified": true });
        check("claim", claimed.clone(), (Some("ann@example.com"), true));
        check("never", claimed, (Some("ann@example.com"), false));
        check("claim", json!({ "email": "a@b", "email_verified": "true" }), (Some("a@b"), true));
        for odd in [json!("yes"), json!(1), json!(null), json!(false)] {
            check("claim", json!({ "email": "a@b", "email_verified": odd }), (Some("a@b"), false));
        }
        check("always", json!({ "email": "a@b" }), (Some("a@b"), true));
        for odd in [json!("nobody"), json!("a b@c"), json!(7), json!("a@b\n"), json!("")] {
            // Blanks at its ends are not part of an address; within, nothing is an address.
            let expected = if odd == "a@b\n" { (Some("a@b"), true) } else { (None, false) };
            check("always", json!({ "email": odd }), expected);
        }
    }

    #[test]
    fn groups_are_a_text_or_an_array_of_texts() {
        let config = config(json!({ "claims": { "groups": "roles" } }));
        let groups = |claims: Value| config.read(claims.as_object().unwrap()).groups;
        assert_eq!(groups(json!({ "roles": "a" })), ["a"]);
        assert_eq!(groups(json!({ "roles": ["a", 1, "b"] })), ["a", "b"]);
        assert!(groups(json!({ "roles": { "a": 1 } })).is_empty() && groups(json!({})).is_empty());
    }

    #[test]
    fn a_provider_of_members_gives_roles_and_one_of_a_stage_gives_groups() {
        let check = |change: Value, is_stage: bool, good: bool| {
            assert_eq!(config(change.clone()).check(is_stage).is_ok(), good, "{change} {is_stage}");
        };
        check(json!({}), true, true);
        check(json!({ "create": true }), true, true);
        check(json!({ "create": true }), false, false);
        check(json!({ "create": true, "roles": ["developer"] }), false, true);
        check(json!({ "roles": ["developer"] }), true, false);
        let groups = json!({ "groups": [{ "value": "x", "group": "buyers" }] });
        check(groups.clone(), true, true);
        check(groups, false, false);
        check(json!({ "name": "" }), true, false);
        check(json!({ "scopes": ["a b"] }), true, false);
        check(json!({ "claims": { "email": "" } }), true, false);
    }
}
