//! Requests as former command lines send them: within one version of the API they keep their meaning.
//!
//! Lines are only added, when a version is given out; a line that fails is a break for those who have not upgraded.

use crate::road::{Road, packed};
use bastide_types::StageName;
use http::Method;
use serde_json::Value;

/// Method, path, body, status, and what that command line reads of the answer.
type Line = (&'static str, &'static str, &'static str, u16, &'static [&'static str]);

/// As version 0.1 sends them, in this order.
const OF_0_1: &[Line] = &[
    ("GET", "/whoami", "", 200, &["subject", "name", "customer", "roles", "permissions", "session"]),
    ("GET", "/runtime", "", 200, &["isolation", "egress"]),
    (
        "GET",
        "/apps",
        "",
        200,
        &["0/name", "0/stages/0/stage", "0/stages/0/status", "0/stages/0/url", "0/stages/0/replicas"],
    ),
    (
        "GET",
        "/apps/shop",
        "",
        200,
        &["name", "stages/0/revision", "stages/0/image", "stages/0/scale/min", "stages/0/scale/max"],
    ),
    ("GET", "/apps/shop/services", "", 200, &[]),
    ("GET", "/apps/shop/roles", "", 200, &[]),
    ("PUT", "/apps/shop/scale", r#"{"stage":"development","scale":{"replicas":3}}"#, 200, &["min", "max"]),
    ("PUT", "/apps/shop/scale", r#"{"stage":"development","scale":null}"#, 200, &["set_here"]),
    ("POST", "/apps/shop/deployments", r#"{"stage":"test"}"#, 202, &["operation", "revision", "image"]),
    ("GET", "/apps/shop/egress?to=api.example.com:443&stage=development", "", 200, &["allowed", "why"]),
    ("GET", "/stages/development/network", "", 200, &["egress/mode", "grants"]),
    (
        "PUT",
        "/stages/development/network",
        r#"{"egress":{"mode":"report","allow":["a.example"],"deny":[]},"grants":[]}"#,
        200,
        &["egress/allow/0"],
    ),
    (
        "GET",
        "/stages/development/site",
        "",
        200,
        &["pages", "maintenance", "redirects", "fields", "fields_in_force"],
    ),
    (
        "PUT",
        "/stages/development/site/maintenance",
        r#"{"stage":{"retry_after_s":60}}"#,
        200,
        &["maintenance/stage"],
    ),
    (
        "PUT",
        "/stages/development/site/redirects",
        r#"[{"from":"/old","to":"/new"}]"#,
        200,
        &["redirects/0/from"],
    ),
    (
        "PUT",
        "/stages/development/site/fields",
        r#"{"content-security-policy":{"value":"default-src 'self'"}}"#,
        200,
        &["fields"],
    ),
    ("DELETE", "/stages/development/site", "", 200, &["stage"]),
    ("GET", "/stages/development/sessions", "", 200, &["max_s", "idle_s"]),
    ("PUT", "/stages/development/sessions", r#"{"max_s":7200,"idle_s":3600}"#, 204, &[]),
    ("GET", "/waf/policy?stage=development", "", 200, &["level", "layer", "policy/mode", "version"]),
    ("PUT", "/waf/policy?stage=development", r#"{"paranoia":2}"#, 200, &["policy/paranoia"]),
    (
        "POST",
        "/domains",
        r#"{"domain":"shop.example","stage":"test"}"#,
        201,
        &["record/name", "record/value", "target"],
    ),
    ("GET", "/domains", "", 200, &["0/domain", "0/state"]),
    ("DELETE", "/domains/shop.example/claim", "", 204, &[]),
    ("POST", "/members", r#"{"email":"bob@example.com","roles":["developer"]}"#, 201, &["link"]),
    ("GET", "/members", "", 200, &["0/id", "0/email", "0/state", "0/roles"]),
    ("GET", "/sign-in/policy", "", 200, &["second_factor"]),
    ("PUT", "/sign-in/policy", r#"{"second_factor":false}"#, 204, &[]),
    ("POST", "/roles", r#"{"name":"keeper","permissions":["apps.read"]}"#, 204, &[]),
    ("PUT", "/roles/keeper", r#"{"permissions":[]}"#, 204, &[]),
    ("GET", "/roles", "", 200, &["0/name", "0/permissions"]),
    ("DELETE", "/roles/keeper", "", 204, &[]),
    ("GET", "/permissions", "", 200, &["0/name", "0/what"]),
    ("POST", "/clients", r#"{"id":"robot","kind":"service","roles":["developer"]}"#, 201, &["id", "secret"]),
    ("POST", "/clients/robot/secrets", r#"{"days":30}"#, 201, &["id", "secret"]),
    ("PUT", "/clients/robot/suspension", r#"{"suspended":true}"#, 204, &[]),
    ("GET", "/clients", "", 200, &["0/id", "0/kind", "0/secrets"]),
    ("DELETE", "/clients/robot", "", 204, &[]),
    ("GET", "/keys", "", 200, &["0/id", "0/state", "0/signs"]),
    ("GET", "/sessions", "", 200, &[]),
    ("POST", "/cache/purges", r#"{"stage":"development","app":"shop"}"#, 202, &["number", "stage"]),
    ("GET", "/stages/development/users?limit=100&after=", "", 200, &[]),
    ("GET", "/stages/development/groups", "", 200, &[]),
];

#[tokio::test]
async fn a_command_line_of_before_is_understood() {
    let road = Road::in_world(crate::api::world().await).await;
    let body = packed("shop", "one");
    let (status, begun) = road.call(Method::POST, "/api/v1/apps/shop/publish", body).await;
    assert_eq!(status, 202, "{begun}");
    road.all_ready(&StageName::development()).await;
    let operation = format!("/operations/{}", begun["operation"].as_str().unwrap());
    let acme = bastide_types::CustomerName::new("acme").unwrap();
    let acme = road.world.app.store.customer_named(&acme).await.unwrap().unwrap().id;
    let ann = road.world.assertion(acme, &["administrator"]);
    let check = async |(method, path, body, expected, members): (&str, &str, &str, u16, &[&str])| {
        let method: Method = method.parse().unwrap();
        let (path, who) = (format!("/api/v1{path}"), Some(ann.as_str()));
        let (status, text) = road.world.call("acme", method.clone(), &path, who, body.to_owned()).await;
        assert_eq!(status.as_u16(), expected, "{method} {path}: {text}");
        let answer: Value = serde_json::from_str(&text).unwrap_or_default();
        for member in members {
            assert!(answer.pointer(&format!("/{member}")).is_some(), "{method} {path}: {member} in {text}");
        }
    };
    check(("GET", &operation, "", 200, &["id", "status", "stage", "steps/0/name", "steps/0/status", "url"]))
        .await;
    for line in OF_0_1 {
        check(*line).await;
    }
}
