//! Policies of the WAF: said at levels by those who may, and what edges get.

use crate::{api::world_with, archives::Packed, road::Road};
use bastide_types::{AppName, CustomerName, StageName, WafPolicy, waf::WafMode};
use http::{Method, StatusCode};
use serde_json::{Value, json};

const SHOP: &str = "?stage=development&app=shop";

struct Levels {
    road: Road,
    office: String,
    administrator: String,
    developer: String,
}

impl Levels {
    async fn new() -> Self {
        let road = Road::in_world(world_with(60).await).await;
        let store = &road.world.app.store;
        let named = async |name: CustomerName| store.customer_named(&name).await.unwrap().unwrap().id;
        let (operator, acme) =
            (named(CustomerName::operator()).await, named(CustomerName::new("acme").unwrap()).await);
        let (office, administrator) =
            (road.world.assertion(operator, &["operator"]), road.world.assertion(acme, &["administrator"]));
        let developer = road.world.assertion(acme, &["developer"]);
        let archive = Packed::new().file("bastide.toml", b"[app]\nname = \"shop\"\nkind = \"static\"\n").gz();
        let (status, begun) = road.call(Method::POST, "/api/v1/apps/shop/publish", archive).await;
        assert_eq!(status, StatusCode::ACCEPTED, "{begun}");
        road.all_ready(&StageName::development()).await;
        Self { road, office, administrator, developer }
    }

    async fn ask(&self, who: &str, method: Method, level: &str, body: Value) -> (u16, Value) {
        let host = if who == self.office { "operator" } else { "acme" };
        let path = format!("/api/v1/waf/policy{level}");
        let (status, text) = self.road.world.call(host, method, &path, Some(who), body.to_string()).await;
        (status.as_u16(), serde_json::from_str(&text).unwrap_or_else(|_| panic!("{text}")))
    }

    async fn set(&self, who: &str, level: &str, body: Value) -> (u16, String) {
        let (status, answer) = self.ask(who, Method::PUT, level, body).await;
        (status, answer["code"].as_str().or(answer["version"].as_str()).unwrap_or_default().to_owned())
    }

    /// What edges are told: of the Platform, of acme's first stage, of its shop.
    async fn told(&self) -> (WafPolicy, WafPolicy, WafPolicy) {
        let snapshot = self.road.snapshot().await;
        let acme = CustomerName::new("acme").unwrap();
        let (_, stage) = snapshot.stage(&acme, &StageName::development()).unwrap();
        let shop = &stage.apps[&AppName::new("shop").unwrap()];
        let of = |id| snapshot.waf[id].clone();
        (of(&snapshot.platform_waf), of(&stage.waf), of(shop.waf.as_ref().unwrap_or(&stage.waf)))
    }
}

#[tokio::test]
async fn each_level_is_set_by_those_who_may_and_tightens_those_above() {
    let levels = Levels::new().await;
    let (office, administrator, developer) = (&levels.office, &levels.administrator, &levels.developer);
    let default = levels.told().await;
    assert_eq!((default.0, default.1, default.2), Default::default());
    // The top is the office's.
    let strict = json!({"paranoia": 2, "outbound_threshold": 3});
    assert_eq!(levels.set(administrator, "", strict.clone()).await, (403, "B-ID-0403".into()));
    assert_eq!(levels.set(office, "", strict).await.0, 200);
    assert_eq!(levels.set(office, "?platform=true", json!({"paranoia": 3})).await.0, 200);
    assert_eq!(
        levels.set(office, "?platform=true", json!({"paranoia": 1})).await,
        (409, "B-WAF-0409".into())
    );
    // A stage and an app are the customer's to tighten, by an administrator.
    assert_eq!(levels.set(developer, SHOP, json!({"paranoia": 4})).await.0, 403);
    assert_eq!(levels.set(administrator, "?stage=development", json!({"inbound_threshold": 4})).await.0, 200);
    assert_eq!(levels.set(administrator, SHOP, json!({"paranoia": 4})).await.0, 200);
    for loose in
        [json!({"mode": "detect"}), json!({"inbound_threshold": 5}), json!({"variables": {"x": "1"}})]
    {
        assert_eq!(
            levels.set(administrator, SHOP, loose.clone()).await,
            (409, "B-WAF-0409".into()),
            "{loose}"
        );
    }
    let (platform, stage, shop) = levels.told().await;
    assert_eq!((platform.paranoia, stage.paranoia, shop.paranoia), (3, 2, 4));
    assert_eq!((platform.inbound_threshold, stage.inbound_threshold, shop.inbound_threshold), (5, 4, 4));
    assert_eq!(shop.outbound_threshold, 3);
    // Whatever the office tightens later holds below, too.
    assert_eq!(levels.set(office, "", json!({"paranoia": 3, "inbound_threshold": 2})).await.0, 200);
    let (_, stage, shop) = levels.told().await;
    assert_eq!((stage.paranoia, stage.inbound_threshold, shop.paranoia), (3, 2, 4));
    assert_eq!(levels.set(office, "", json!({"mode": "detect"})).await.0, 200);
    assert_eq!(levels.told().await.1.mode, WafMode::Detect);
}

#[tokio::test]
async fn exclusions_count_as_far_as_the_office_allows_and_never_switch_the_scoring_off() {
    let levels = Levels::new().await;
    let (office, administrator) = (&levels.office, &levels.administrator);
    let excluded =
        |rules: &str| json!({"exclusions": [{"rules": rules, "target": "ARGS:q", "path": "/shop/*"}]});
    assert_eq!(levels.set(administrator, SHOP, excluded("942100")).await.0, 409);
    for scoring in ["949110", "901000-999999"] {
        assert_eq!(levels.set(office, "", excluded(scoring)).await, (422, "B-API-0422".into()));
    }
    // The office itself, for one app of one customer.
    let of_shop = format!("{SHOP}&customer=acme");
    assert_eq!(levels.set(office, &of_shop, excluded("942100")).await.0, 200);
    let (_, stage, shop) = levels.told().await;
    assert_eq!((stage.exclusions.len(), shop.exclusions.len()), (0, 1));
    let listed = json!({"allow_exclusions": {"listed": ["942000-942999"]}});
    assert_eq!(levels.set(office, "", listed).await.0, 200);
    assert_eq!(levels.set(administrator, SHOP, excluded("930100")).await.0, 409);
    assert_eq!(levels.set(administrator, SHOP, excluded("942110")).await.0, 200);
    assert_eq!(levels.told().await.2.exclusions.len(), 2);
    // What is not allowed any more does not count any more.
    assert_eq!(levels.set(office, "", json!({})).await.0, 200);
    assert_eq!(levels.told().await.2.exclusions.len(), 1);
}

#[tokio::test]
async fn others_see_nothing_and_everything_is_in_the_trail() {
    let levels = Levels::new().await;
    let (office, administrator) = (&levels.office, &levels.administrator);
    for (who, level, status) in [
        (administrator, "?platform=true", 404),
        (administrator, "?customer=beta&stage=development", 404),
        (administrator, "?stage=none", 404),
        (administrator, "?stage=development&app=none", 404),
        (administrator, "?app=shop", 422),
        (office, "?stage=development", 422),
        (office, "?customer=none&stage=development", 404),
    ] {
        assert_eq!(levels.ask(who, Method::GET, level, Value::Null).await.0, status, "{level}");
        assert_eq!(levels.ask(who, Method::PUT, level, json!({})).await.0, status, "{level}");
    }
    assert_eq!(levels.set(office, &format!("{SHOP}&customer=acme"), json!({"paranoia": 2})).await.0, 200);
    let (status, shown) = levels.ask(administrator, Method::GET, SHOP, Value::Null).await;
    assert_eq!((status, &shown["policy"]["paranoia"], &shown["layer"]), (200, &json!(2), &json!({})));
    let store = &levels.road.world.app.store;
    for name in [CustomerName::operator(), CustomerName::new("acme").unwrap()] {
        let id = store.customer_named(&name).await.unwrap().unwrap().id;
        let trail = store.customer(id).audit_trail(10).await.unwrap();
        let row = trail.iter().find(|row| row.what == "waf.policy").unwrap();
        assert_eq!(row.detail, "acme, development, shop", "{name}");
        assert_eq!(
            (row.old.as_deref(), row.new.as_deref()),
            (Some("{}"), Some(r#"{"paranoia":2}"#)),
            "{name}"
        );
    }
}
