//! Banned sources: by those who may, within their limits, told to the edges, given up when they have ended.

use crate::{api::world_of, road::Road};
use bastide_store::{BanRow, now_s};
use bastide_types::{
    BanId, CustomerId, CustomerName,
    ban::{CUSTOMER_BANS_MAX, OPERATOR_BANS_MAX},
    node::ZoneAddress,
};
use http::{Method, StatusCode};
use http_body_util::BodyExt;
use serde_json::{Value, json};

const BANS: &str = "/api/v1/bans";

struct Scene {
    road: Road,
    operator: CustomerId,
    acme: CustomerId,
}

impl Scene {
    async fn new() -> Self {
        let world = world_of(|config| {
            let zone = "a".parse().unwrap();
            config.egress_addresses =
                vec![ZoneAddress { zone, address: Some([198, 51, 100, 9].into()), chosen: true }];
        })
        .await;
        let road = Road::in_world(world).await;
        let named =
            async |name: CustomerName| road.world.app.store.customer_named(&name).await.unwrap().unwrap().id;
        let operator = named(CustomerName::operator()).await;
        let acme = named(CustomerName::new("acme").unwrap()).await;
        Self { road, operator, acme }
    }

    /// Asks as somebody with this role at the operator or at acme, from 192.0.2.77.
    async fn ask(&self, host: &str, role: &str, method: Method, end: &str, body: &Value) -> (u16, Value) {
        let customer = if host == "operator" { self.operator } else { self.acme };
        let who = self.road.world.assertion(customer, &[role]);
        let (path, from) = (format!("{BANS}{end}"), [("x-forwarded-for", "192.0.2.77")]);
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let answer = self.road.world.answer_with(host, method, &path, Some(&who), &from, body).await;
        let status = answer.status().as_u16();
        let bytes = answer.into_body().collect().await.unwrap().to_bytes();
        (status, serde_json::from_slice(&bytes).unwrap_or_default())
    }

    async fn add(&self, host: &str, role: &str, body: Value) -> (u16, Value) {
        self.ask(host, role, Method::POST, "", &body).await
    }

    async fn list(&self, host: &str, role: &str) -> Vec<String> {
        let (status, listed) = self.ask(host, role, Method::GET, "", &Value::Null).await;
        assert_eq!(status, 200, "{listed}");
        listed.as_array().unwrap().iter().map(|ban| ban["network"].as_str().unwrap().to_owned()).collect()
    }

    /// What edges are told: the operator's, and acme's.
    async fn told(&self) -> (Vec<String>, Vec<String>) {
        let snapshot = self.road.snapshot().await;
        let of = |name: &str| snapshot.customers[name].bans.iter().map(|ban| ban.net.to_string()).collect();
        (of("operator"), of("acme"))
    }

    async fn trail(&self, customer: CustomerId) -> Vec<(String, String)> {
        let rows = self.road.world.app.store.customer(customer).audit_trail(100).await.unwrap();
        rows.into_iter()
            .filter(|row| row.what.starts_with("ban."))
            .map(|row| (row.what, row.detail))
            .collect()
    }

    /// So many bans, as they would be after many requests.
    async fn fill(&self, customer: CustomerId, count: usize) {
        let own = self.road.world.app.store.customer(customer);
        let mut write = self.road.world.app.store.write().await.unwrap();
        for number in 0..count {
            let net = format!("10.{}.{}.{}", number >> 16, (number >> 8) & 255, number & 255);
            let (id, net) = (BanId::generate(), net.parse().unwrap());
            let row = BanRow { id, net, reason: "x".into(), by: "x".into(), since: 0, until: None };
            own.set_ban(&mut write, &row).await.unwrap();
        }
        write.commit().await.unwrap();
    }
}

fn new(network: &str) -> Value {
    json!({ "network": network, "reason": "floods" })
}

fn code(answer: &(u16, Value)) -> (u16, &str) {
    (answer.0, answer.1["code"].as_str().unwrap_or_default())
}

#[tokio::test]
async fn the_office_bans_everywhere_a_customer_at_its_hosts_and_neither_sees_the_other() {
    let scene = Scene::new().await;
    let (status, made) = scene.add("operator", "operator", new("203.0.113.9/24")).await;
    assert_eq!((status, &made["network"], &made["by"]), (200, &json!("203.0.113.0/24"), &json!("somebody")));
    let (status, own) = scene
        .add("acme", "administrator", json!({"network": "2001:db8::1", "reason": "probes", "for_s": 7200}))
        .await;
    let lasts = own["until"].as_i64().unwrap() - own["since"].as_i64().unwrap();
    assert_eq!((status, lasts), (200, 7200), "{own}");
    assert_eq!(scene.told().await, (vec!["203.0.113.0/24".into()], vec!["2001:db8::1/128".into()]));
    assert_eq!(scene.list("operator", "operator").await, ["203.0.113.0/24"]);
    assert_eq!(scene.list("acme", "administrator").await, ["2001:db8::1/128"]);
    assert_eq!(scene.list("acme", "developer").await, ["2001:db8::1/128"]);

    // A customer lifts its own, and not the operator's, whose id means nothing there.
    let (operators, id) =
        (format!("/{}", made["id"].as_str().unwrap()), format!("/{}", own["id"].as_str().unwrap()));
    let lift = async |host: &str, role: &str, end: &str| {
        scene.ask(host, role, Method::DELETE, end, &Value::Null).await
    };
    assert_eq!(code(&lift("acme", "administrator", &operators).await), (404, "B-API-0404"));
    assert_eq!(code(&lift("operator", "operator", &id).await), (404, "B-API-0404"));
    assert_eq!(code(&lift("acme", "developer", &id).await), (403, "B-ID-0403"));
    // Nor does whoever administers the operator organization without being its security office.
    assert_eq!(code(&lift("operator", "administrator", &operators).await), (403, "B-ID-0403"));
    assert_eq!(code(&scene.add("operator", "administrator", new("203.0.113.9")).await), (403, "B-ID-0403"));
    assert_eq!(code(&scene.add("acme", "developer", new("203.0.113.9")).await), (403, "B-ID-0403"));
    assert_eq!(scene.told().await.0, ["203.0.113.0/24"]);
    assert_eq!(lift("acme", "administrator", &id).await.0, 204);
    assert_eq!(lift("acme", "administrator", &id).await.0, 404, "it is lifted once");
    assert_eq!(lift("operator", "operator", &operators).await.0, 204);
    assert_eq!(scene.told().await, (vec![], vec![]));
    let entry = |what: &str, net: &str| (what.to_owned(), net.to_owned());
    assert_eq!(
        scene.trail(scene.acme).await,
        [entry("ban.lifted", "2001:db8::1/128"), entry("ban.set", "2001:db8::1/128")]
    );
    assert_eq!(
        scene.trail(scene.operator).await,
        [entry("ban.lifted", "203.0.113.0/24"), entry("ban.set", "203.0.113.0/24")]
    );
}

#[tokio::test]
async fn a_ban_of_the_same_network_is_replaced_and_the_trail_has_both() {
    let scene = Scene::new().await;
    let (_, first) = scene.add("acme", "administrator", new("203.0.113.7")).await;
    let again = json!({"network": "::ffff:203.0.113.7", "reason": "still floods", "for_s": 60});
    let (status, second) = scene.add("acme", "administrator", again).await;
    assert_eq!((status, &second["id"], &second["reason"]), (200, &first["id"], &json!("still floods")));
    assert_eq!(scene.list("acme", "administrator").await, ["203.0.113.7/32"]);
    let found = scene.ask("acme", "administrator", Method::GET, "?network=203.0.113.7", &Value::Null).await;
    assert_eq!((found.0, &found.1[0]["id"], found.1.as_array().unwrap().len()), (200, &first["id"], 1));
    let none = scene.ask("acme", "administrator", Method::GET, "?network=203.0.113.0/24", &Value::Null).await;
    assert_eq!(none, (200, json!([])));
    let rows = scene.road.world.app.store.customer(scene.acme).audit_trail(1).await.unwrap();
    let text = |text: &Option<String>| text.as_deref().unwrap().to_owned();
    assert!(
        text(&rows[0].old).contains("\"floods\"") && text(&rows[0].new).contains("still floods"),
        "{rows:?}"
    );
}

#[tokio::test]
async fn what_nobody_may_ban_is_refused_with_its_reason_and_changes_nothing() {
    let scene = Scene::new().await;
    let check = async |host: &str, body: Value, said: &str| {
        let role = if host == "operator" { "operator" } else { "administrator" };
        let answer = scene.add(host, role, body.clone()).await;
        assert_eq!(code(&answer), (422, "B-API-0422"), "{body}: {}", answer.1);
        let detail = answer.1["detail"].as_str().unwrap_or_default();
        assert!(detail.contains(said), "{body}: {detail}");
    };
    for host in ["operator", "acme"] {
        check(host, new("0.0.0.0/0"), "at most an IPv4 network of /8").await;
        check(host, new("2000::/3"), "IPv6 network of /16").await;
        check(host, new("127.0.0.1"), "each machine itself").await;
        check(host, new("::1"), "each machine itself").await;
        check(host, new("example.com"), "write an address or a network").await;
        check(host, new("192.0.2.0/24"), "shut yourself out").await;
        check(host, json!({"network": "203.0.113.1", "reason": ""}), "reason: 1 to 200").await;
        check(host, json!({"network": "203.0.113.1", "reason": "a\nb"}), "control character").await;
        check(host, json!({"network": "203.0.113.1", "reason": "x".repeat(201)}), "reason: 1 to 200").await;
        check(host, json!({"network": "203.0.113.1", "reason": "x", "for_s": 59}), "for_s: 60 to").await;
        check(host, json!({"network": "203.0.113.1", "reason": "x", "for_s": 315_360_001}), "for_s: 60 to")
            .await;
        check(host, json!({"network": "203.0.113.1"}), "reason").await;
        check(host, json!({"network": "203.0.113.1", "reason": "x", "until": 5}), "until").await;
    }
    check("operator", new("198.51.100.0/24"), "apps call each other from it").await;
    assert_eq!(scene.told().await, (vec![], vec![]));
    assert!(scene.trail(scene.acme).await.is_empty() && scene.trail(scene.operator).await.is_empty());
    assert_eq!(
        scene.add("acme", "administrator", new("198.51.100.0/24")).await.0,
        200,
        "at its own hosts it may"
    );
}

#[tokio::test]
async fn there_are_only_so_many_bans_and_they_come_in_pages() {
    let scene = Scene::new().await;
    scene.fill(scene.acme, CUSTOMER_BANS_MAX).await;
    let answer = scene.add("acme", "administrator", new("203.0.113.1")).await;
    assert_eq!(code(&answer), (429, "B-BAN-0429"));
    assert!(answer.1["detail"].as_str().unwrap().contains("1000"), "{}", answer.1);
    assert_eq!(
        scene.add("acme", "administrator", new("10.0.0.0")).await.0,
        200,
        "one that is there is replaced"
    );
    assert_eq!(scene.told().await.1.len(), CUSTOMER_BANS_MAX);
    let who = scene.road.world.assertion(scene.acme, &["administrator"]);
    let (mut seen, mut next) = (Vec::new(), Some(BANS.to_owned()));
    while let Some(path) = next {
        let answer = scene.road.world.answer("acme", Method::GET, &path, Some(&who), "").await;
        assert_eq!(answer.status(), StatusCode::OK, "{path}");
        let link = answer.headers().get("link").map(|link| link.to_str().unwrap().to_owned());
        next = link.map(|link| link[1..link.find('>').unwrap()].to_owned());
        let page = answer.into_body().collect().await.unwrap().to_bytes();
        let page: Vec<Value> = serde_json::from_slice(&page).unwrap();
        assert!(page.len() <= 100);
        seen.extend(page.iter().map(|ban| ban["network"].as_str().unwrap().to_owned()));
    }
    assert_eq!(seen.len(), CUSTOMER_BANS_MAX);
    assert!(seen.is_sorted());
    scene.fill(scene.operator, OPERATOR_BANS_MAX).await;
    assert_eq!(code(&scene.add("operator", "operator", new("203.0.113.1")).await), (429, "B-BAN-0429"));
}

#[tokio::test]
async fn bans_that_have_ended_make_room_and_leave_the_snapshot() {
    let scene = Scene::new().await;
    let short = json!({"network": "203.0.113.1", "reason": "x", "for_s": 60});
    assert_eq!(scene.add("acme", "administrator", short.clone()).await.0, 200);
    assert_eq!(scene.add("operator", "operator", short).await.0, 200);
    assert_eq!(scene.add("operator", "operator", new("203.0.113.2")).await.0, 200);
    let before = scene.road.snapshot().await.revision;
    bastide_platform::retention::pass(&scene.road.world.app, now_s()).await.unwrap();
    assert_eq!(scene.road.snapshot().await.revision, before, "nothing has ended");
    bastide_platform::retention::pass(&scene.road.world.app, now_s() + 61).await.unwrap();
    assert!(scene.road.snapshot().await.revision > before);
    assert_eq!(scene.told().await, (vec!["203.0.113.2/32".into()], vec![]));
    assert_eq!(scene.trail(scene.acme).await[0], ("ban.ended".to_owned(), "1 by their time".to_owned()));
}
