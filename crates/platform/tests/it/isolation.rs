//! What holds where nothing keeps apps apart.

use crate::api::{World, world_of};
use bastide_types::{CustomerName, node::Isolation};
use http::{Method, StatusCode};
use serde_json::Value;

async fn create(world: &World, name: &str) -> (StatusCode, Value) {
    let operator = world.app.store.customer_named(&CustomerName::operator()).await.unwrap().unwrap();
    let operator = world.assertion(operator.id, &["operator"]);
    let new = format!(r#"{{"name":"{name}","administrator_email":"ann@example.com"}}"#);
    let (status, body) =
        world.call("operator", Method::POST, "/api/v1/customers", Some(&operator), new).await;
    (status, serde_json::from_str(&body).unwrap())
}

#[tokio::test]
async fn without_isolation_there_is_one_customer_no_production_and_a_warning_everywhere() {
    let world = world_of(|config| config.isolation = Isolation::None).await;
    assert_eq!(create(&world, "acme").await.0, StatusCode::CREATED);
    let (status, refused) = create(&world, "beta").await;
    assert_eq!((status, &refused["code"]), (StatusCode::FORBIDDEN, &"B-RT-0403".into()));
    let beta = CustomerName::new("beta").unwrap();
    assert!(world.app.store.customer_named(&beta).await.unwrap().is_none(), "nothing is half-created");
    assert_eq!(create(&world, "acme").await.1["code"], "B-API-0409", "the same name is taken, as ever");
    let acme = world.app.store.customer_named(&CustomerName::new("acme").unwrap()).await.unwrap().unwrap();
    let developer = world.assertion(acme.id, &["developer"]);
    let call = async |method, path: &str, body: &'static str| {
        let (_, body) = world.call("acme", method, path, Some(&developer), body).await;
        serde_json::from_str::<Value>(&body).unwrap()
    };
    // The app must be there before its promotion can be refused.
    let archive = crate::road::packed("shop", "<h1>shop</h1>");
    let (status, begun) =
        world.call("acme", Method::POST, "/api/v1/apps/shop/publish", Some(&developer), archive).await;
    assert_eq!(status, StatusCode::ACCEPTED, "{begun}");
    let warned = |value: &Value| value["warning"].as_str().is_some_and(|text| text.contains("NONE"));
    assert!(warned(&serde_json::from_str(&begun).unwrap()), "{begun}");
    let deployments = "/api/v1/apps/shop/deployments";
    let refused = call(Method::POST, deployments, r#"{"stage":"production"}"#).await;
    assert_eq!(refused["code"], "B-RT-0403", "{refused}");
    let early = call(Method::POST, deployments, r#"{"stage":"test"}"#).await;
    assert_eq!(early["code"], "B-DEPLOY-0422", "only the last stage is closed: {early}");
    for path in ["/api/v1/whoami", "/api/v1/runtime"] {
        let answer = call(Method::GET, path, "").await;
        assert!(warned(&answer), "{path}: {answer}");
    }
}

#[tokio::test]
async fn with_isolation_there_is_no_warning() {
    let world = world_of(|config| config.isolation = Isolation::Kernel).await;
    let (acme, beta) = tokio::join!(create(&world, "acme"), create(&world, "beta"));
    assert_eq!((acme.0, beta.0), (StatusCode::CREATED, StatusCode::CREATED));
    let acme = world.app.store.customer_named(&CustomerName::new("acme").unwrap()).await.unwrap().unwrap();
    let developer = world.assertion(acme.id, &["developer"]);
    let (_, body) = world.call("acme", Method::GET, "/api/v1/runtime", Some(&developer), "").await;
    let runtime: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((&runtime["isolation"], &runtime["warning"]), (&"kernel".into(), &Value::Null));
}
