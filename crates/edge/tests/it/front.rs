//! What the hosts of a stage do by themselves: pages, maintenance, redirects, security fields.

use crate::{
    client::{Answer, get_tls, trusting},
    whole::{APPS, PLATFORM, World, snapshot, world_with, write, write_state},
};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use bastide_tls::{LocalCa, SealingKey};
use bastide_types::{
    AppName, CustomerName, DomainName, Role, Secret, SiteDocument, StageName,
    snapshot::{Certificate, CustomDomain},
};
use std::sync::Arc;
use time::OffsetDateTime;

/// A domain that serves the shop at `/`.
const OWN: &str = "shop.example.com";
const HTML: &str = "Accept: text/html\r\n";
const JSON: &str = "Accept: application/json, text/html;q=0.5\r\n";

struct Town {
    world: World,
    own: Arc<rustls::ClientConfig>,
}

/// An edge where demo's Production has these settings, and a domain of its own.
fn town(site: &serde_json::Value) -> Town {
    let now = OffsetDateTime::now_utc();
    let ca = LocalCa::create_public(&["example.com".into()], now).unwrap();
    let (key, issued) = (SealingKey::generate().unwrap(), ca.issue_site(&[OWN.into()], now).unwrap());
    let sealed = key.public().seal(OWN, &Secret::new(issued.key_pem.expose())).unwrap();
    let keys = [(key.public().id(), BASE64_URL_SAFE_NO_PAD.encode(sealed))].into();
    let domain = CustomDomain {
        customer: CustomerName::new("demo").unwrap(),
        stage: StageName::production(),
        root: Some(AppName::new("shop").unwrap()),
        certificate: Some(Certificate { chain: issued.certificate_pem, keys }),
        challenges: [("token".to_owned(), "token.thumb".to_owned())].into(),
    };
    let mut snapshot = snapshot();
    snapshot.hosts.insert(DomainName::new(OWN).unwrap(), domain);
    let demo = snapshot.customers.values_mut().next().unwrap();
    let stage = demo.stages.get_mut(&StageName::production()).unwrap();
    stage.site = SiteDocument::from_json(&site.to_string());
    let world = world_with([Role::Gateway; 2], |config| {
        config.sealing_key_file = Some(write(config.state_dir.join("seal.key"), key.to_bytes()));
        write_state(&config.state_dir, &snapshot);
    });
    Town { world, own: trusting(ca.certificate_pem()) }
}

impl Town {
    fn own(&self, target: &str, lines: &str) -> Answer {
        get_tls(self.world.https, &self.own, OWN, OWN, target, lines).unwrap()
    }

    fn location(&self, target: &str) -> (u16, String) {
        let answer = self.world.get(APPS, target);
        (answer.status, answer.header("location"))
    }
}

fn pages() -> serde_json::Value {
    serde_json::json!({"pages": {
        "404": "<p>lost {{code}} {{request_id}}</p>", "403": "<p>no {{title}}</p>", "503": "<p>busy</p>", "502": "<p>away</p>",
    }})
}

#[test]
fn people_see_the_customers_page_and_programs_the_problem() {
    let town = town(&pages());
    for target in ["/", "/nothing/", "/Nothing", "/nothing/deep?x=y"] {
        let page = town.world.get_with(APPS, target, HTML);
        assert_eq!((page.status, page.header("content-type").as_str()), (404, "text/html; charset=utf-8"));
        assert_eq!(page.body, format!("<p>lost B-EDGE-0404 {}</p>", page.header("x-request-id")));
        assert_eq!(page.header("cache-control"), "no-store");
        assert_eq!(page.header("x-content-type-options"), "nosniff");
        assert!(page.header("content-security-policy").is_empty(), "that of the built-in page is gone");
        for lines in [JSON, ""] {
            assert_eq!(town.world.get_with(APPS, target, lines).code(), "B-EDGE-0404", "{target}");
        }
    }
    let blocked = town.world.get_with(APPS, "/shop/?q=attack", HTML);
    assert_eq!((blocked.status, &*blocked.body), (403, "<p>no The request was refused by the firewall.</p>"));
    // Hosts that are nobody's, and the Platform's, have the built-in pages.
    for (host, target) in
        [("nobody.apps.localhost", "/"), ("nobody.platform.localhost", "/"), (PLATFORM, "/?q=attack")]
    {
        let page = town.world.get_with(host, target, HTML);
        assert!(page.body.starts_with("<!doctype html>") && page.body.contains("<main>"), "{host}: {page:?}");
    }
    assert_eq!(town.world.passed(), 0);
}

#[test]
fn a_refusal_of_the_gateway_gets_the_page_and_an_error_of_the_app_stays_its_own() {
    let town = town(&pages());
    let refused = town.world.get_with(APPS, "/shop/refused", HTML);
    assert_eq!((refused.status, &*refused.body), (503, "<p>busy</p>"));
    assert_eq!(
        (refused.header("retry-after").as_str(), refused.header("cache-control").as_str()),
        ("1", "no-store")
    );
    assert_eq!(refused.header("x-bastide-refusal"), "");
    let program = town.world.get_with(APPS, "/shop/refused", JSON);
    assert!(program.status == 503 && program.body.contains(" /shop/refused\n"), "{program:?}");
    assert_eq!(program.header("x-bastide-refusal"), "");
    let failing = town.world.get_with(APPS, "/shop/failing", HTML);
    assert!(failing.status == 503 && failing.body.contains(" /shop/failing\n"), "{failing:?}");
    let own = town.own("/refused", HTML);
    assert_eq!((own.status, &*own.body), (503, "<p>busy</p>"));
}

#[test]
fn an_edge_that_reaches_nobody_shows_the_customers_page() {
    let snapshot = {
        let mut snapshot = snapshot();
        let demo = snapshot.customers.values_mut().next().unwrap();
        let stage = demo.stages.get_mut(&StageName::production()).unwrap();
        stage.site = SiteDocument::from_json(&pages().to_string());
        snapshot
    };
    // Nobody there is a gateway.
    let world = world_with([Role::Runtime; 2], |config| write_state(&config.state_dir, &snapshot));
    let page = world.get_with(APPS, "/shop/", HTML);
    assert_eq!((page.status, &*page.body), (502, "<p>away</p>"));
    assert_eq!(world.get(APPS, "/shop/").code(), "B-EDGE-0502");
}

#[test]
fn a_closed_stage_lets_only_listed_clients_in() {
    let closed = |open_for: &str| {
        serde_json::json!({"pages": {"maintenance": "<p>back soon</p>"}, "redirects": [{"from": "/old", "to": "/shop/"}],
            "maintenance": {"stage": {"retry_after_s": 77, "open_for": [open_for]}}})
    };
    let shut = town(&closed("192.0.2.0/24"));
    for target in ["/shop/", "/nothing/", "/", "/old"] {
        let page = shut.world.get_with(APPS, target, HTML);
        assert_eq!((page.status, &*page.body, &*page.header("retry-after")), (503, "<p>back soon</p>", "77"));
        assert_eq!(shut.world.get_with(APPS, target, JSON).code(), "B-SITE-0503", "{target}");
    }
    assert_eq!(shut.own("/", "").code(), "B-SITE-0503");
    assert_eq!(shut.world.passed(), 0);
    assert_eq!(shut.world.get(APPS, "/shop/?q=attack").status, 403, "the firewall comes first");
    assert_eq!(shut.world.get(APPS, "/.bastide/callback").status, 200, "who is let in can sign in");
    assert_eq!(shut.world.get(PLATFORM, "/api/v1/apps").status, 200);
    let open = town(&closed("127.0.0.0/8"));
    assert_eq!((open.world.get(APPS, "/shop/").status, open.own("/", "").status), (200, 200));
}

#[test]
fn a_closed_app_closes_itself_only_also_what_is_stored_of_it() {
    let shut = town(&serde_json::json!({"maintenance": {"apps": {"shop": {}, "other": {}}}}));
    let answer = shut.world.get(APPS, "/shop/marked");
    assert_eq!((answer.code().as_str(), &*answer.header("retry-after")), ("B-SITE-0503", "300"));
    assert_eq!(shut.world.get(APPS, "/nothing/").code(), "B-EDGE-0404");
    assert_eq!(shut.own("/x", "").code(), "B-SITE-0503");
    let other = town(&serde_json::json!({"maintenance": {"apps": {"other": {}}}}));
    assert_eq!(other.world.get(APPS, "/shop/").status, 200);
}

#[test]
fn requests_are_sent_elsewhere_after_the_firewall_and_never_from_paths_of_ours() {
    let town = town(&serde_json::json!({"redirects": [
        {"from": "/", "to": "/shop/", "status": 302},
        {"from": "/old/*", "to": "/shop/*"},
        {"from": "/shop/gone", "to": "https://example.com/archive?from=shop", "status": 308, "query": "drop"},
        {"host": OWN, "from": "/shop/*", "to": "/*", "status": 307},
        {"host": OWN, "from": "/*", "to": "https://demo.apps.localhost:8443/away/*"},
        {"host": OWN, "from": "/here/*", "to": "/here/*"},
    ]}));
    for (target, status, location) in [
        ("/", 302, "/shop/"),
        ("/old", 301, "/shop/"),
        ("/old/a/b?c=d", 301, "/shop/a/b?c=d"),
        ("/%6fld/./a", 301, "/shop/a"),
        ("/old//evil.example/x", 301, "/shop/evil.example/x"),
        ("/old/%2F%2Fevil.example", 301, "/shop/%2F%2Fevil.example"),
        ("/old/https://evil.example", 301, "/shop/https:/evil.example"),
        ("/shop/gone?x=y", 308, "https://example.com/archive?from=shop"),
    ] {
        assert_eq!(town.location(target), (status, location.to_owned()), "{target}");
    }
    assert_eq!(town.world.get(APPS, "/old/").header("strict-transport-security"), "max-age=31536000");
    assert_eq!(town.world.get(APPS, "/old/a?q=attack").status, 403, "the firewall comes first");
    assert_eq!(town.world.get(APPS, "/olden/").code(), "B-EDGE-0404");
    assert_eq!(town.world.passed(), 0);
    assert_eq!(town.location("/shop/").0, 200);
    let own = |target: &str| {
        let answer = town.own(target, "");
        (answer.status, answer.header("location"))
    };
    assert_eq!(own("/shop/x?y=z"), (307, "/x?y=z".into()));
    assert_eq!(own("/x"), (301, "https://demo.apps.localhost:8443/away/x".into()));
    assert_eq!(own("/here/x").0, 200, "what leads to itself is an exception");
    assert_eq!(own("/.bastide/callback").0, 200);
    assert_eq!(town.own("/.well-known/acme-challenge/token", "").code(), "B-EDGE-0404");
}

#[test]
fn answers_carry_security_fields_unless_the_app_says_otherwise() {
    let plain = town(&serde_json::json!({}));
    let said = |answer: &Answer| {
        ["x-frame-options", "referrer-policy", "x-content-type-options", "content-security-policy"]
            .map(|name| answer.header(name))
    };
    let default = ["SAMEORIGIN", "strict-origin-when-cross-origin", "nosniff", ""].map(str::to_owned);
    // From behind, and from the store.
    for _ in 0..2 {
        assert_eq!(said(&plain.world.get(APPS, "/shop/marked")), default);
    }
    let mut framed = default.clone();
    framed[0] = "DENY".into();
    assert_eq!(said(&plain.world.get(APPS, "/shop/framed")), framed);
    assert_eq!(said(&plain.world.get(PLATFORM, "/api/v1/apps"))[0], "", "the Platform looks after itself");
    let forced = town(&serde_json::json!({"fields": {
        "x-frame-options": {"value": "SAMEORIGIN", "force": true}, "referrer-policy": {},
        "content-security-policy": {"value": "default-src 'self'"},
        "strict-transport-security": {"value": "max-age=60"},
    }}));
    let expected = ["SAMEORIGIN", "", "nosniff", "default-src 'self'"].map(str::to_owned);
    for target in ["/shop/framed", "/shop/marked", "/shop/marked"] {
        assert_eq!(said(&forced.world.get(APPS, target)), expected, "{target}");
    }
    assert_eq!(forced.world.get(APPS, "/shop/").header("strict-transport-security"), "max-age=31536000");
    assert_eq!(forced.own("/", "").header("strict-transport-security"), "max-age=60");
}

#[test]
fn settings_that_cannot_be_read_take_nothing_else_down() {
    let town = town(&serde_json::json!({"redirects": [{"from": "/a", "to": "//evil.example"}], "pages": 7}));
    assert_eq!(town.world.get(APPS, "/shop/").status, 200);
    assert_eq!(town.world.get(APPS, "/a").code(), "B-EDGE-0404");
    assert_eq!(town.own("/", "").status, 200);
}

#[test]
fn settings_of_sites_are_no_attack_at_exactly_their_addresses() {
    let town = town(&serde_json::json!({}));
    for part in ["redirects", "fields", "maintenance"] {
        let path = format!("/api/v1/stages/test/site/{part}");
        assert_eq!(town.world.get(PLATFORM, &format!("{path}?x=attack")).status, 200, "{part}");
    }
    for elsewhere in [
        "/api/v1/stages/test/site",
        "/api/v1/stages/test/site/pages/404",
        "/api/v1/stages/test/site/fields/",
        "/api/v1/stages/test/site/../site/fields",
        "/api/v1/stages/a/b/site/fields",
        "/x/api/v1/stages/test/site/fields",
    ] {
        assert_eq!(town.world.get(PLATFORM, &format!("{elsewhere}?x=attack")).status, 403, "{elsewhere}");
    }
    assert_eq!(town.world.get(APPS, "/api/v1/stages/test/site/fields?x=attack").status, 404);
}
