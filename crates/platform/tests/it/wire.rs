//! What holds for every operation on the wire: keys, tags, pages, parts, limits.

use crate::api::{World, world, world_of};
use axum::body::Body;
use bastide_platform::{
    api::description,
    permissions::operation::TABLE,
    wire::{condition::resource_of, pace, paging},
};
use bastide_types::API;
use http::{HeaderMap, Method, StatusCode};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use std::{io::Read, num::NonZeroU32};

/// Somebody at a customer.
struct Somebody<'w> {
    world: &'w World,
    assertion: String,
}

/// An answer.
struct Answer {
    status: u16,
    headers: HeaderMap,
    body: Vec<u8>,
}

impl Answer {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }
    fn code(&self) -> String {
        self.json()["code"].as_str().unwrap_or_default().to_owned()
    }
}

impl Somebody<'_> {
    async fn ask(&self, method: Method, path: &str, fields: &[(&str, &str)], body: &str) -> Answer {
        let path = format!("{API}{path}");
        let body = Body::from(body.to_owned());
        let response =
            self.world.answer_with("acme", method, &path, Some(&self.assertion), fields, body).await;
        let (head, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes().to_vec();
        Answer { status: head.status.as_u16(), headers: head.headers, body }
    }

    async fn get(&self, path: &str) -> Answer {
        self.ask(Method::GET, path, &[], "").await
    }
}

async fn administrator(world: &World) -> Somebody<'_> {
    let acme = world.customer_with_stages("acme").await;
    Somebody { world, assertion: world.assertion(acme, &["administrator"]) }
}

fn role(name: &str) -> String {
    json!({ "name": name, "permissions": [] }).to_string()
}

#[tokio::test]
async fn a_write_with_a_key_is_done_once_and_its_answer_is_told_again() {
    let world = world().await;
    let ann = administrator(&world).await;
    let client = |id: &str| json!({ "id": id, "kind": "service", "roles": ["developer"] }).to_string();
    let post = async |key: &str, body: &str| {
        ann.ask(Method::POST, "/clients", &[("idempotency-key", key)], body).await
    };
    let first = post("\"one\"", &client("robot")).await;
    assert_eq!((first.status, first.header("idempotency-replayed")), (201, ""));
    for key in ["\"one\"", "one"] {
        let again = post(key, &client("robot")).await;
        assert_eq!((again.status, again.header("idempotency-replayed")), (201, "true"));
        assert_eq!(again.json(), first.json(), "the secret that is shown once, too");
        assert_eq!(again.header("content-type"), "application/json");
    }
    let clients = async || ann.get("/clients").await.json().as_array().unwrap().len();
    assert_eq!(clients().await, 1);
    // Another request under the same key.
    assert_eq!(post("one", &client("other")).await.code(), "B-API-0423");
    let elsewhere = ann.ask(Method::POST, "/roles", &[("idempotency-key", "one")], &client("robot")).await;
    assert_eq!((elsewhere.status, elsewhere.code().as_str()), (422, "B-API-0423"));
    // Somebody else's key is another one, and so is another key.
    let beta = world.customer("beta").await;
    let bob = world.assertion(beta, &["administrator"]);
    let path = format!("{API}/clients");
    let of_beta = world
        .answer_with("beta", Method::POST, &path, Some(&bob), &[("idempotency-key", "one")], client("robot"))
        .await;
    assert_eq!(of_beta.status(), 201);
    assert_eq!(post("two", &client("robot")).await.status, 409, "the name is taken");
    // What was refused changed nothing, so it may be asked for again in other words.
    assert_eq!(post("two", &client("second")).await.status, 201);
    for bad in ["", "\"\"", "a b", &"x".repeat(256), "\u{fc}"] {
        let answer = post(bad, &client("third")).await;
        assert_eq!((answer.status, answer.code().as_str()), (422, "B-API-0422"), "{bad:?}");
    }
    assert_eq!(clients().await, 2);
}

#[tokio::test]
async fn of_many_requests_with_one_key_at_once_one_is_done() {
    let world = world().await;
    let ann = administrator(&world).await;
    let (fields, body) = ([("idempotency-key", "many")], role("keeper"));
    let asked = (0..20).map(|_| ann.ask(Method::POST, "/roles", &fields, &body));
    let answers = futures_util::future::join_all(asked).await;
    for answer in &answers {
        let told = (answer.status, answer.code());
        assert!(told.0 == 204 || told == (409, "B-API-0425".into()), "{told:?}");
    }
    assert!(answers.iter().any(|answer| answer.status == 204 && answer.header("idempotency-replayed") == ""));
    let entries = world.app.store.customer(acme(&world).await).audit_trail(100).await.unwrap();
    assert_eq!(entries.iter().filter(|entry| entry.what.starts_with("role.")).count(), 1);
    assert_eq!(ann.ask(Method::POST, "/roles", &fields, &body).await.status, 204);
}

async fn acme(world: &World) -> bastide_types::CustomerId {
    let name = bastide_types::CustomerName::new("acme").unwrap();
    world.app.store.customer_named(&name).await.unwrap().unwrap().id
}

#[tokio::test]
async fn who_has_an_answer_is_not_sent_it_again() {
    let world = world().await;
    let ann = administrator(&world).await;
    let first = ann.get("/roles").await;
    let tag = first.header("etag").to_owned();
    assert!(tag.starts_with('"') && first.header("cache-control") == "private, no-cache");
    let again = ann.ask(Method::GET, "/roles", &[("if-none-match", &tag)], "").await;
    assert_eq!((again.status, again.body.len(), again.header("etag")), (304, 0, tag.as_str()));
    assert_eq!(ann.ask(Method::POST, "/roles", &[], &role("keeper")).await.status, 204);
    let changed = ann.ask(Method::GET, "/roles", &[("if-none-match", &tag)], "").await;
    assert_eq!((changed.status, changed.header("etag") == tag), (200, false));
}

#[tokio::test]
async fn a_change_of_what_somebody_else_changed_is_refused() {
    let world = world().await;
    let ann = administrator(&world).await;
    let path = "/stages/development/sessions";
    let limits = |hours: u32| json!({ "max_s": hours * 3600, "idle_s": 3600 }).to_string();
    let put =
        async |tag: &str, hours: u32| ann.ask(Method::PUT, path, &[("if-match", tag)], &limits(hours)).await;
    let seen = ann.get(path).await.header("etag").to_owned();
    assert_eq!(put(&seen, 5).await.status, 204);
    let late = put(&seen, 6).await;
    assert_eq!((late.status, late.code().as_str()), (412, "B-API-0412"));
    assert_eq!(ann.get(path).await.json()["max_s"], 5 * 3600);
    let packed = ann.get(path).await.header("etag").replace("\"", "");
    assert_eq!(
        put(&format!("\"{packed}-gzip\""), 7).await.status,
        204,
        "the packed form is of the same state"
    );
    assert_eq!(put(&format!("W/{}", ann.get(path).await.header("etag")), 8).await.status, 412, "weak");
    assert_eq!(put("*", 9).await.status, 204);
    // Where nothing has a tag, the field is no wish that is passed over.
    let odd = ann.ask(Method::POST, "/roles", &[("if-match", "*")], &role("keeper")).await;
    assert_eq!((odd.status, odd.code().as_str()), (422, "B-API-0422"));
    // Of many who saw the same, one changes it.
    let seen = ann.get(path).await.header("etag").to_owned();
    let many = futures_util::future::join_all((10..20).map(|hours| put(&seen, hours))).await;
    assert_eq!(many.iter().filter(|answer| answer.status == 204).count(), 1);
    assert!(many.iter().all(|answer| matches!(answer.status, 204 | 412)));
    // Made only when it is not there.
    let page = "/stages/development/site/pages/404";
    let make = async || ann.ask(Method::PUT, page, &[("if-none-match", "*")], "<h1>gone</h1>").await.status;
    assert_eq!((make().await, make().await), (200, 412));
}

#[tokio::test]
async fn a_tag_on_a_write_needs_the_right_to_see() {
    let world = world().await;
    let acme = world.customer_with_stages("acme").await;
    let role = bastide_store::RoleRow { name: "blind".into(), permissions: vec!["sessions.limit".into()] };
    let mut write = world.app.store.write().await.unwrap();
    world.app.store.customer(acme).add_role(&mut write, &role).await.unwrap();
    write.commit().await.unwrap();
    let blind = Somebody { world: &world, assertion: world.assertion(acme, &["blind"]) };
    let body = json!({ "max_s": 7200, "idle_s": 3600 }).to_string();
    let path = "/stages/development/sessions";
    assert_eq!(blind.ask(Method::PUT, path, &[], &body).await.status, 204);
    assert_eq!(blind.ask(Method::PUT, path, &[("if-match", "*")], &body).await.status, 403);
}

#[tokio::test]
async fn lists_come_in_pages_and_members_in_parts() {
    let world = world().await;
    let ann = administrator(&world).await;
    for number in 0..7 {
        assert_eq!(ann.ask(Method::POST, "/roles", &[], &role(&format!("r{number}"))).await.status, 204);
    }
    let (mut names, mut path) = (Vec::new(), "/roles?limit=4&fields=name".to_owned());
    loop {
        let page = ann.get(&path).await;
        let list = page.json();
        for member in list.as_array().unwrap() {
            assert_eq!(member.as_object().unwrap().len(), 1, "{member}");
            names.push(member["name"].as_str().unwrap().to_owned());
        }
        assert!(list.as_array().unwrap().len() <= 4);
        let Some(link) = page.headers.get("link") else { break };
        let link = link.to_str().unwrap().strip_prefix('<').unwrap();
        let (target, rest) = link.split_once('>').unwrap();
        assert_eq!(rest, "; rel=\"next\"");
        path = target.strip_prefix(API).unwrap().to_owned();
    }
    let expected = ["administrator", "developer", "r0", "r1", "r2", "r3", "r4", "r5", "r6"];
    assert_eq!(names, expected);
    assert!(!ann.get("/roles").await.headers.contains_key("link"));
    for bad in ["limit=0", "limit=101", "limit=x", "cursor=x", "cursor=", "fields=a..b", "fields=", "other=1"]
    {
        let answer = ann.get(&format!("/roles?{bad}")).await;
        assert_eq!((answer.status, answer.code().as_str()), (422, "B-API-0422"), "{bad}");
    }
    for odd in ["/whoami?limit=1", "/stages/development/network?cursor=x"] {
        assert_eq!(ann.get(odd).await.status, 422, "{odd}: no list");
    }
    let part = ann.get("/stages/development/site?fields=stage,maintenance.apps").await.json();
    assert_eq!(part, json!({ "stage": "development", "maintenance": {} }));
}

#[tokio::test]
async fn members_and_clients_are_read_in_pages() {
    let world = world().await;
    let ann = administrator(&world).await;
    for number in 0..5 {
        let member = format!(r#"{{"email":"m{number}@example.com","roles":["developer"]}}"#);
        assert_eq!(ann.ask(Method::POST, "/members", &[], &member).await.status, 201);
        let client = format!(r#"{{"id":"c{number}","kind":"service","roles":[]}}"#);
        assert_eq!(ann.ask(Method::POST, "/clients", &[], &client).await.status, 201);
    }
    for (list, name, expected) in [
        (
            "/members",
            "email",
            ["m0@example.com", "m1@example.com", "m2@example.com", "m3@example.com", "m4@example.com"],
        ),
        ("/clients", "id", ["c0", "c1", "c2", "c3", "c4"]),
    ] {
        let (mut found, mut path) = (Vec::new(), format!("{list}?limit=2"));
        loop {
            let page = ann.get(&path).await;
            let members = page.json();
            assert!(members.as_array().unwrap().len() <= 2, "{members}");
            found
                .extend(members.as_array().unwrap().iter().map(|one| one[name].as_str().unwrap().to_owned()));
            let Some(link) = page.headers.get("link") else { break };
            let link = link.to_str().unwrap().strip_prefix('<').unwrap();
            link.split_once('>').unwrap().0.strip_prefix(API).unwrap().clone_into(&mut path);
        }
        assert_eq!(found, expected);
        let secrets = ann.get(list).await.json();
        if list == "/clients" {
            assert!(
                secrets.as_array().unwrap().iter().all(|one| one["secrets"].as_array().unwrap().len() == 1)
            );
        }
    }
}

#[tokio::test]
async fn answers_are_packed_for_those_who_take_it_and_no_other_site() {
    let world = world().await;
    let ann = administrator(&world).await;
    let plain = ann.get("/permissions").await;
    assert_eq!(plain.header("content-encoding"), "");
    let packed = ann.ask(Method::GET, "/permissions", &[("accept-encoding", "br, gzip")], "").await;
    assert_eq!((packed.header("content-encoding"), packed.header("vary")), ("gzip", "accept-encoding"));
    let mut unpacked = Vec::new();
    flate2::read::GzDecoder::new(&packed.body[..]).read_to_end(&mut unpacked).unwrap();
    assert_eq!(unpacked, plain.body);
    assert!(packed.body.len() * 2 < plain.body.len());
    assert_ne!(packed.header("etag"), plain.header("etag"));
    let fields = [("accept-encoding", "gzip"), ("sec-fetch-site", "cross-site")];
    assert_eq!(ann.ask(Method::GET, "/permissions", &fields, "").await.header("content-encoding"), "");
}

#[tokio::test]
async fn a_customer_that_asks_too_much_waits_and_others_do_not() {
    let world = world_of(|config| {
        config.api_limits = pace::Limits {
            requests_per_service: NonZeroU32::new(5).unwrap(),
            deployments: NonZeroU32::new(2).unwrap(),
        };
    })
    .await;
    let ann = administrator(&world).await;
    // A minute may end in between: then it is tried once more.
    let limited = async |method: Method, path: &str, limit: usize| {
        for _ in 0..2 {
            for number in 0..=limit {
                let answer = ann.ask(method.clone(), path, &[], "{}").await;
                if answer.status == 429 {
                    let wait: u64 = answer.header("retry-after").parse().unwrap();
                    assert!((1..=60).contains(&wait) && answer.code() == "B-API-0429");
                    assert_eq!(number, limit, "{path}");
                    return;
                }
            }
        }
        panic!("{path} has no limit");
    };
    limited(Method::GET, "/roles", 5).await;
    limited(Method::POST, "/apps/shop/deployments", 2).await;
    let beta = world.customer("beta").await;
    let bob = world.assertion(beta, &["administrator"]);
    let (status, _) = world.call("beta", Method::GET, &format!("{API}/roles"), Some(&bob), "").await;
    assert_eq!(status, StatusCode::OK);
}

#[tokio::test]
async fn a_refusal_names_its_trace() {
    let world = world().await;
    let ann = administrator(&world).await;
    let ask = async |traceparent: &str| {
        ann.ask(Method::GET, "/apps/none", &[("traceparent", traceparent)], "").await.json()
    };
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    assert_eq!(ask(&format!("00-{trace}-00f067aa0ba902b7-01")).await["trace_id"], trace);
    let junk = ask("junk").await;
    assert_eq!(
        junk["trace_id"],
        junk["request_id"].as_str().unwrap().replace('-', ""),
        "it begins with the request"
    );
}

#[test]
fn every_list_comes_in_pages_and_every_operation_is_described_whole() {
    let all = description();
    let mut ids = std::collections::BTreeSet::new();
    for (method, path, _) in TABLE {
        let operation = &all["paths"][*path][method.as_str().to_lowercase()];
        let what = format!("{method} {path}");
        assert!(ids.insert(operation["operationId"].as_str().unwrap().to_owned()), "{what}");
        assert!(operation["description"].is_string() || operation["summary"].is_string(), "{what}");
        let good: Vec<_> = operation["responses"]
            .as_object()
            .unwrap()
            .iter()
            .filter(|(status, _)| status.starts_with('2'))
            .collect();
        assert!(!good.is_empty(), "{what}");
        // A write that only says what it would do has another answer.
        assert!(good.len() == 1 || good.iter().any(|(status, _)| *status == "202"), "{what}");
        for (status, response) in good {
            let schema = &response["content"]["application/json"]["schema"];
            let kinds = response["content"].as_object().map_or(0, serde_json::Map::len);
            assert_eq!(kinds, usize::from(status != "204"), "{what}: {response}");
            assert_eq!(schema["type"] == "array", paging::is_list(path) && method == Method::GET, "{what}");
        }
        let is_tagged = method != Method::GET && resource_of(path).is_some();
        let fields = operation["parameters"].as_array().unwrap();
        assert_eq!(fields.iter().any(|one| one["name"] == "If-Match"), is_tagged, "{what}");
        for hole in path.split('/').filter_map(|word| word.strip_prefix('{')?.strip_suffix('}')) {
            assert!(fields.iter().any(|one| one["in"] == "path" && one["name"] == hole), "{what}: {hole}");
        }
    }
    let text = all.to_string();
    for reference in text.split("\"$ref\":\"#/").skip(1) {
        let pointer = format!("/{}", reference.split('"').next().unwrap());
        assert!(all.pointer(&pointer).is_some(), "{pointer}");
    }
}
