//! A list costs the same few questions to the database, however long it is: none for each of its members.

use crate::{
    api::world,
    road::{Road, packed},
};
use bastide_bus::PlatformHandler;
use bastide_store::counting;
use bastide_types::{CustomerId, CustomerName, StageName, message::SnapshotQuery};
use http::Method;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Whatever lists something. Those below a member or a user are about the first one.
const LISTS: &[&str] = &[
    "/apps",
    "/apps/shop-0",
    "/apps/shop-0/revisions",
    "/apps/shop-0/roles",
    "/apps/shop-0/services",
    "/audit",
    "/clients",
    "/domains",
    "/keys",
    "/members",
    "/operations",
    "/permissions",
    "/roles",
    "/sessions",
    "/stages/development/groups",
    "/stages/development/groups/group-0/users",
    "/stages/development/network",
    "/stages/development/users",
];

struct Town {
    road: Road,
    acme: CustomerId,
}

impl Town {
    async fn new() -> Self {
        let road = Road::in_world(world().await).await;
        let acme = road.stage("acme", &StageName::development()).await.customer;
        Self { road, acme }
    }

    async fn ask(&self, method: Method, path: &str, body: impl Into<axum::body::Body>) -> Value {
        let url = format!("/api/v1{path}");
        let boss = self.road.world.assertion(self.acme, &["administrator", "developer"]);
        let (status, text) = self.road.world.call("acme", method, &url, Some(&boss), body).await;
        assert!(status.is_success(), "{path}: {status} {text}");
        serde_json::from_str(&text).unwrap_or_default()
    }

    async fn post(&self, path: &str, body: Value) -> Value {
        self.ask(Method::POST, path, body.to_string()).await
    }

    /// One more of everything.
    async fn one_more(&self, number: usize) {
        self.ask(
            Method::POST,
            &format!("/apps/shop-{number}/publish"),
            packed(&format!("shop-{number}"), "x"),
        )
        .await;
        self.road.all_ready(&StageName::development()).await;
        if number > 0 {
            self.ask(Method::POST, "/apps/shop-0/publish", packed("shop-0", &format!("page {number}"))).await;
            self.road.all_ready(&StageName::development()).await;
        }
        let (stage, email) = ("/stages/development", format!("user-{number}@example.com"));
        self.post("/roles", json!({ "name": format!("role-{number}"), "permissions": ["apps.read"] })).await;
        self.post("/clients", json!({ "id": format!("client-{number}"), "kind": "service", "roles": [] }))
            .await;
        self.post(
            "/members",
            json!({ "email": format!("member-{number}@example.com"), "roles": ["developer"] }),
        )
        .await;
        self.post(
            "/domains",
            json!({ "domain": format!("shop-{number}.example.com"), "stage": "development" }),
        )
        .await;
        self.post(&format!("{stage}/groups"), json!({ "name": format!("group-{number}") })).await;
        let user = json!({ "email": email, "groups": ["group-0"], "name": "Somebody" });
        self.post(&format!("{stage}/users"), user).await;
        let role = json!({ "stage": "development", "role": "admin", "user": email });
        self.ask(Method::PUT, "/apps/shop-0/roles", role.to_string()).await;
    }

    /// How many questions each list costs, the desired state of a stage, and a Snapshot of all.
    async fn costs(&self) -> BTreeMap<String, usize> {
        let mut costs = BTreeMap::new();
        for path in LISTS {
            let (_, asked) = counting(self.ask(Method::GET, path, "")).await;
            assert!(asked > 0, "{path} is counted");
            costs.insert((*path).to_owned(), asked);
        }
        let stage = StageName::development();
        costs.insert("desired state".into(), counting(self.road.desired(&stage)).await.1);
        let head = self.road.services.snapshot_head(SnapshotQuery::default());
        let (head, asked) = counting(head).await;
        assert!(head.unwrap().revision > 0);
        costs.insert("Snapshot".into(), asked);
        costs
    }
}

#[tokio::test]
async fn a_list_costs_as_many_questions_with_many_members_as_with_one() {
    let town = Town::new().await;
    town.one_more(0).await;
    let before = town.costs().await;
    for number in 1..6 {
        town.one_more(number).await;
    }
    let acme = CustomerName::new("acme").unwrap();
    let store = &town.road.world.app.store;
    let own = store.customer(store.customer_named(&acme).await.unwrap().unwrap().id);
    assert_eq!(own.apps().await.unwrap().len(), 6, "there is more of everything");
    let grown: Vec<_> = town
        .costs()
        .await
        .into_iter()
        .filter(|(what, asked)| *asked > before[what])
        .map(|(what, asked)| format!("{what}: {} became {asked}", before[&what]))
        .collect();
    assert!(grown.is_empty(), "{grown:#?}");
}
