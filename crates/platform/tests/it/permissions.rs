//! Who may do what: every operation with everybody, and roles that customers make.

use crate::api::{World, world};
use bastide_platform::{
    api::description,
    permissions::{
        BUILT_IN, Permission, of_role,
        operation::{TABLE, is_about_stages},
    },
};
use bastide_store::RoleRow;
use bastide_types::{API, AppName, CustomerId, CustomerName, DomainName, StageName};
use http::{Method, StatusCode};
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// Every method that OpenAPI knows at a path.
const METHODS: [&str; 8] = ["get", "put", "post", "delete", "options", "head", "patch", "trace"];

/// All operations of the description that is served.
async fn operations(world: &World) -> BTreeSet<(String, String)> {
    let (status, text) = world.call("acme", Method::GET, "/api/v1/openapi.json", None, "").await;
    assert_eq!(status, StatusCode::OK);
    let served: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(&served, description());
    let mut found = BTreeSet::new();
    for (path, item) in served["paths"].as_object().unwrap() {
        for method in METHODS.iter().filter(|method| !item[**method].is_null()) {
            found.insert((method.to_uppercase(), path.clone()));
        }
        let known = |key: &String| METHODS.contains(&key.as_str()) || key == "parameters" || key == "summary";
        assert!(item.as_object().unwrap().keys().all(known), "{path}: a method that this test does not walk");
    }
    found
}

/// The code of a refusal; nothing in other answers, though codes may stand in them.
fn code_of(body: &str) -> String {
    let value: Value = serde_json::from_str(body).unwrap_or_default();
    value["code"].as_str().unwrap_or_default().to_owned()
}

/// A path with something in each place.
fn filled(path: &str) -> String {
    let segments = path.split('/').map(|segment| match segment {
        "{customer}" => "acme",
        "{id}" => "01a20de4-d54c-7659-9f5b-f4ec6569bb31",
        "{stage}" => "development",
        "{domain}" => "shop.example",
        "{page}" => "404",
        hole if hole.starts_with('{') => "some",
        plain => plain,
    });
    let path = segments.collect::<Vec<_>>().join("/");
    // Without a level it would mean the office's, which only operators write.
    if path == "/waf/policy" { format!("{API}{path}?stage=development") } else { format!("{API}{path}") }
}

/// Makes two roles for each permission: one with nothing else, one with everything else.
async fn make_roles(world: &World, customer: CustomerId, name: &CustomerName) {
    let here = || Permission::ALL.iter().filter(|one| name.is_operator() || !one.is_office());
    let own = world.app.store.customer(customer);
    let mut write = world.app.store.write().await.unwrap();
    for one in here() {
        let others = here().filter(|other| *other != one).map(|other| other.as_str().to_owned());
        for (name, permissions) in
            [("only", vec![one.as_str().to_owned()]), ("but", others.collect::<Vec<_>>())]
        {
            let row = RoleRow { name: format!("{name}-{}", one.as_str()), permissions };
            own.add_role(&mut write, &row).await.unwrap();
        }
    }
    write.commit().await.unwrap();
}

#[tokio::test]
async fn every_operation_is_refused_to_everybody_but_holders_of_its_permission() {
    let world = world().await;
    let acme = world.customer("acme").await;
    let (operator, acme_name) = (CustomerName::operator(), CustomerName::new("acme").unwrap());
    let office = world.app.store.customer_named(&operator).await.unwrap().unwrap().id;
    make_roles(&world, acme, &acme_name).await;
    make_roles(&world, office, &operator).await;
    let everything = ["administrator", "developer", "operator"];
    let foreign = world.assertion(world.customer("beta").await, &everything);
    let served = operations(&world).await;
    let listed: BTreeSet<_> =
        TABLE.iter().map(|(method, path, _)| (method.to_string(), (*path).to_owned())).collect();
    assert_eq!(served, listed, "operations that are served, and those of the table");
    println!("{:<77} {:<17} {}", "operation", "permission", BUILT_IN.join(" "));
    for (method, path, permission) in TABLE {
        let (host, customer) = if permission.is_office() { ("operator", office) } else { ("acme", acme) };
        let sign = |roles: &[&str]| world.assertion(customer, roles);
        let but = format!("but-{}", permission.as_str());
        // Everybody who has a role has an account.
        let lacking = if *permission == Permission::Account { sign(&["gone"]) } else { sign(&[&but]) };
        let only = sign(&[&format!("only-{}", permission.as_str())]);
        let address = filled(path);
        let check = async |who: &str, assertion: Option<&str>, expected: Option<(u16, &str)>| {
            let (status, body) = world.call(host, method.clone(), &address, assertion, "{}").await;
            match expected {
                Some((code, text)) => {
                    assert_eq!(status.as_u16(), code, "{method} {path} as {who}: {body}");
                    assert!(body.contains(text), "{method} {path} as {who}: {body}");
                }
                None => {
                    let refused = ["B-ID-0401", "B-ID-0403", "B-API-0405"].contains(&code_of(&body).as_str());
                    assert!(!refused, "{method} {path} as {who}: {body}");
                    assert_ne!(status, StatusCode::INTERNAL_SERVER_ERROR, "{method} {path} as {who}: {body}");
                }
            }
        };
        check("nobody", None, Some((401, "B-ID-0401"))).await;
        check("junk", Some("junk"), Some((401, "B-ID-0401"))).await;
        check("a foreign customer", Some(&foreign), Some((401, "B-ID-0401"))).await;
        check("a member without roles", Some(&sign(&[])), Some((403, "B-ID-0403"))).await;
        check("a member without the permission", Some(&lacking), Some((403, "B-ID-0403"))).await;
        check("a member with exactly the permission", Some(&only), None).await;
        if permission.is_office() {
            // What is the office's does not exist elsewhere, whatever a role's name is there.
            let boss = world.assertion(acme, &everything);
            let (status, body) = world.call("acme", method.clone(), &address, Some(&boss), "{}").await;
            assert_eq!(
                (status.as_u16(), body.contains("B-API-0404")),
                (404, true),
                "{method} {path}: {body}"
            );
        }
        let mut held = Vec::new();
        for role in BUILT_IN {
            let at = if role == "operator" { &operator } else { &acme_name };
            let holds = of_role(role, at, &[]).unwrap().contains(permission);
            held.push(if holds { "yes" } else { "-" });
            let (host, customer) = if role == "operator" { ("operator", office) } else { (host, customer) };
            let signed = world.assertion(customer, &[role]);
            let (_, body) = world.call(host, method.clone(), &address, Some(&signed), "{}").await;
            assert_eq!(code_of(&body) != "B-ID-0403", holds, "{method} {path} as {role}: {body}");
        }
        println!(
            "{:<6} {path:<70} {:<17} {:<13} {:<9} {}",
            method.as_str(),
            permission.as_str(),
            held[0],
            held[1],
            held[2]
        );
    }
    println!("{} operations, 0 exceptions", TABLE.len());
}

/// What lists what is in stages, and leaves out what the caller does not see.
const LISTS: [&str; 9] = [
    "GET /runtime",
    "GET /apps",
    "GET /apps/{app}",
    "GET /apps/{app}/services",
    "GET /operations",
    "GET /operations/{id}",
    "GET /apps/{app}/revisions",
    "GET /domains",
    "GET /apps/{app}/roles",
];

/// A request that names Development, for an operation whose path does not.
fn in_development(method: &Method, path: &str) -> (String, Value) {
    let plain = filled(path);
    let stage = json!({ "stage": "development" });
    let address = "https://acme--development.apps.localhost/some/x";
    let asked = |query: &str| (format!("{}?{query}", plain.split('?').next().unwrap()), json!({}));
    match (method.as_str(), path) {
        ("GET", "/apps/{app}/diff") => asked("from=1&to=development"),
        ("GET", "/cache/figures") => asked("stage=development"),
        ("GET", "/apps/{app}/egress") => asked("to=a.example:443&stage=development"),
        ("POST", "/cache/why") => (plain, json!({ "url": address })),
        ("POST", "/cache/purges") => (plain, json!({ "prefix": address })),
        ("POST", "/domains") => (plain, json!({ "domain": "new.example.com", "stage": "development" })),
        ("PUT", "/domains/{domain}/certificate") => (plain, json!({ "chain": "x", "key": "y" })),
        ("PUT", "/apps/{app}/roles") => {
            (plain, json!({ "stage": "development", "role": "buyer", "email": "a@b" }))
        }
        ("POST" | "GET" | "PUT" | "DELETE", "/idps" | "/idps/{idp}") => {
            let config = json!({ "issuer": "https://op.example", "client_id": "us", "auth": "none" });
            let body = match method.as_str() {
                "POST" => json!({ "id": "some", "config": config }),
                _ => json!({ "config": config }),
            };
            (format!("{plain}?stage=development"), body)
        }
        ("POST", "/apps/{app}/publish") | ("GET" | "DELETE", _) | ("POST", "/domains/{domain}/verify") => {
            (plain, json!({}))
        }
        _ => (plain, stage),
    }
}

#[tokio::test]
async fn a_role_for_one_stage_opens_nothing_elsewhere() {
    let world = world().await;
    let acme = world.customer_with_stages("acme").await;
    make_roles(&world, acme, &CustomerName::new("acme").unwrap()).await;
    let own = world.app.store.customer(acme);
    let mut write = world.app.store.write().await.unwrap();
    own.ensure_app(&mut write, &AppName::new("some").unwrap()).await.unwrap();
    write.commit().await.unwrap();
    let domain = DomainName::new("shop.example").unwrap();
    let mut seen = BTreeSet::new();
    for (method, path, permission) in TABLE.iter().filter(|(.., permission)| !permission.is_office()) {
        // Whoever has any role has an account, in whichever stage.
        if *permission == Permission::Account {
            continue;
        }
        let signed = |stage: &str| {
            world.assertion(acme, &[&format!("only-{}@{stage}", permission.as_str()), "purger@nowhere"])
        };
        // Whoever may give it up has done so.
        if path.contains("/domains") && own.domain(&domain).await.unwrap().is_none() {
            let mut write = world.app.store.write().await.unwrap();
            own.claim_domain(&mut write, &domain, &StageName::development(), None).await.unwrap();
            write.commit().await.unwrap();
        }
        let line = format!("{method} {path}");
        let (address, body) = in_development(method, path);
        let call = async |stage: &str| {
            let (status, text) =
                world.call("acme", method.clone(), &address, Some(&signed(stage)), body.to_string()).await;
            (status, code_of(&text), text)
        };
        let (there, here) = (call("test").await, call("development").await);
        let lists = LISTS.contains(&line.as_str());
        if !is_about_stages(method, path) {
            assert_eq!((&*there.1, &*here.1), ("B-ID-0403", "B-ID-0403"), "{line}: no stage is enough");
        } else if lists {
            assert_ne!(there.1, "B-ID-0403", "{line}");
            assert!(!there.2.contains("development"), "{line}: {}", there.2);
            seen.insert(line);
        } else {
            assert_eq!(there.1, "B-ID-0403", "{line} from another stage: {}", there.2);
            assert_ne!(here.1, "B-ID-0403", "{line}: {}", here.2);
            assert_ne!(here.0, StatusCode::INTERNAL_SERVER_ERROR, "{line}: {}", here.2);
        }
    }
    assert_eq!(seen.len(), LISTS.len(), "{seen:?}");
    // What is of no stage is not of Development: the office's policies, providers of members.
    for (path, role) in [("/api/v1/waf/policy", "only-waf.read"), ("/api/v1/idps", "only-idps.read")] {
        let who = world.assertion(acme, &[&format!("{role}@development")]);
        let (status, body) = world.call("acme", Method::GET, path, Some(&who), "").await;
        assert_eq!((status.as_u16(), &*code_of(&body)), (403, "B-ID-0403"), "{path}");
    }
    for spelled in ["t%65st", "Test", "", "development%00"] {
        let who = world.assertion(acme, &["administrator@test"]);
        let path = format!("/api/v1/stages/{spelled}/network");
        let (status, _) = world.call("acme", Method::GET, &path, Some(&who), "").await;
        assert!([403, 404].contains(&status.as_u16()), "{spelled}: {status}");
    }
}

#[tokio::test]
async fn promoting_needs_a_look_at_the_stage_before_and_lists_show_what_is_seen() {
    let world = world().await;
    let acme = world.customer_with_stages("acme").await;
    let call = async |roles: &[&str], method: Method, path: &str, body: Value| {
        let who = world.assertion(acme, roles);
        let (status, text) = world.call("acme", method, path, Some(&who), body.to_string()).await;
        (status.as_u16(), serde_json::from_str::<Value>(&text).unwrap_or_default())
    };
    let own = world.app.store.customer(acme);
    let stages = own.stage_names().await.unwrap();
    let (first, second) = (stages[0].as_str(), stages[1].as_str());
    let mut write = world.app.store.write().await.unwrap();
    own.ensure_app(&mut write, &AppName::new("shop").unwrap()).await.unwrap();
    write.commit().await.unwrap();
    let promote = async |roles: &[&str]| {
        let body = json!({ "stage": second, "dry_run": true });
        let (_, said) = call(roles, Method::POST, "/api/v1/apps/shop/deployments", body).await;
        said["code"].as_str().unwrap_or_default().to_owned()
    };
    let (here, there) = (format!("developer@{first}"), format!("developer@{second}"));
    assert_eq!(promote(&[&here]).await, "B-ID-0403");
    assert_eq!(promote(&[&there]).await, "B-ID-0403");
    assert_ne!(promote(&[&here, &there]).await, "B-ID-0403");
    assert_ne!(promote(&["developer"]).await, "B-ID-0403");
    let shown = async |roles: &[&str]| {
        let (_, apps) = call(roles, Method::GET, "/api/v1/apps/shop", Value::Null).await;
        let stages = apps["stages"].as_array().unwrap().iter();
        stages.map(|stage| stage["stage"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(shown(&[&there]).await, [second]);
    assert_eq!(shown(&["developer"]).await.len(), stages.len());
    let (_, me) = call(&[&here], Method::GET, "/api/v1/whoami", Value::Null).await;
    assert_eq!(me["permissions"], json!(["account"]));
    assert!(me["stages"][first].as_array().unwrap().contains(&json!("apps.deploy")), "{me}");
    // Conditions are looked at by the same rules.
    let who = world.assertion(acme, &[&format!("administrator@{second}")]);
    let field = [("if-match", "*")];
    for (stage, status) in [(first, 403), (second, 200)] {
        let path = format!("/api/v1/stages/{stage}/network");
        let body = r#"{"egress":{"mode":"open"}}"#;
        let answer = world.answer_with("acme", Method::PUT, &path, Some(&who), &field, body).await;
        assert!(answer.status() == status || status == 200 && answer.status() == 422, "{}", answer.status());
    }
}

#[tokio::test]
async fn roles_of_ones_own_are_made_given_changed_and_removed() {
    let world = world().await;
    let acme = world.customer("acme").await;
    let call = async |roles: &[&str], method: Method, path: &str, body: Value| {
        let who = world.assertion(acme, roles);
        let (status, text) = world.call("acme", method, path, Some(&who), body.to_string()).await;
        (status.as_u16(), serde_json::from_str::<Value>(&text).unwrap_or_default())
    };
    let admin =
        async |method: Method, path: &str, body: Value| call(&["administrator"], method, path, body).await;
    let new = |name: &str, permissions: &[&str]| json!({ "name": name, "permissions": permissions });
    assert_eq!(admin(Method::POST, "/api/v1/roles", new("purger", &["cache.purge"])).await.0, 204);
    for (body, status) in [
        (new("purger", &[]), 409),
        (new("administrator", &[]), 409),
        (new("operator", &[]), 409),
        (new("Upper", &[]), 422),
        (new("", &[]), 422),
        (new("other", &["cache.purge", "everything"]), 422),
        (new("other", &["customers.write"]), 422),
        (json!({ "name": "other" }), 422),
    ] {
        assert_eq!(admin(Method::POST, "/api/v1/roles", body.clone()).await.0, status, "{body}");
    }
    let (_, listed) = admin(Method::GET, "/api/v1/roles", Value::Null).await;
    let names: Vec<_> =
        listed.as_array().unwrap().iter().map(|role| role["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["administrator", "developer", "purger"], "operators are elsewhere");
    assert_eq!(listed[2]["permissions"], json!(["account", "cache.purge"]));
    let (_, permissions) = admin(Method::GET, "/api/v1/permissions", Value::Null).await;
    assert!(permissions.to_string().contains("cache.purge") && !permissions.to_string().contains("locks"));

    // In force at once, both ways.
    let figures = async || call(&["purger"], Method::GET, "/api/v1/cache/figures", Value::Null).await.0;
    assert_eq!(figures().await, 403);
    let more = json!({ "permissions": ["cache.read", "cache.purge"] });
    assert_eq!(admin(Method::PUT, "/api/v1/roles/purger", more).await.0, 204);
    assert_ne!(figures().await, 403);
    assert_eq!(admin(Method::PUT, "/api/v1/roles/purger", json!({ "permissions": [] })).await.0, 204);
    assert_eq!(figures().await, 403);
    for (method, body) in [(Method::PUT, json!({ "permissions": [] })), (Method::DELETE, Value::Null)] {
        assert_eq!(admin(method.clone(), "/api/v1/roles/developer", body.clone()).await.0, 404);
        assert_eq!(admin(method, "/api/v1/roles/none", body).await.0, 404);
    }

    // Given to a member and a client; then it stays until nobody has it.
    let ann = json!({ "email": "ann@example.com", "roles": ["purger"] });
    assert_eq!(admin(Method::POST, "/api/v1/members", ann).await.0, 201);
    let robot = json!({ "id": "robot", "kind": "service", "roles": ["purger"] });
    assert_eq!(admin(Method::POST, "/api/v1/clients", robot).await.0, 201);
    let lost = json!({ "id": "lost", "kind": "service", "roles": ["none"] });
    assert_eq!(admin(Method::POST, "/api/v1/clients", lost).await.0, 422);
    assert_eq!(admin(Method::DELETE, "/api/v1/roles/purger", Value::Null).await.0, 422);
    assert_eq!(admin(Method::DELETE, "/api/v1/clients/robot", Value::Null).await.0, 204);
    assert_eq!(admin(Method::DELETE, "/api/v1/roles/purger", Value::Null).await.0, 422);
    let (_, members) = admin(Method::GET, "/api/v1/members", Value::Null).await;
    let path = format!("/api/v1/members/{}/roles", members[0]["id"].as_str().unwrap());
    assert_eq!(admin(Method::PUT, &path, json!({ "roles": ["developer"] })).await.0, 204);
    assert_eq!(admin(Method::DELETE, "/api/v1/roles/purger", Value::Null).await.0, 204);
    assert_eq!(admin(Method::PUT, &path, json!({ "roles": ["purger"] })).await.0, 422);
    let entries = world.app.store.customer(acme).audit_trail(100).await.unwrap();
    let whats: Vec<_> =
        entries.iter().map(|entry| entry.what.as_str()).filter(|what| what.starts_with("role.")).collect();
    assert_eq!(whats.len(), 4, "{whats:?}");
}

#[tokio::test]
async fn nobody_makes_anybody_mightier_than_oneself() {
    let world = world().await;
    let acme = world.customer_with_stages("acme").await;
    let call = async |roles: &[&str], method: Method, path: &str, body: Value| {
        let who = world.assertion(acme, roles);
        let (status, text) = world.call("acme", method, path, Some(&who), body.to_string()).await;
        (status.as_u16(), serde_json::from_str::<Value>(&text).unwrap_or_default())
    };
    let keeper = json!({ "name": "keeper", "permissions": ["members.read", "members.write", "roles.write", "clients.write"] });
    let purger = json!({ "name": "purger", "permissions": ["cache.purge"] });
    for role in [keeper, purger] {
        assert_eq!(call(&["administrator"], Method::POST, "/api/v1/roles", role).await.0, 204);
    }
    let member = |roles: &[&str]| json!({ "email": "ann@example.com", "roles": roles });
    assert_eq!(
        call(&["administrator"], Method::POST, "/api/v1/members", member(&["administrator"])).await.0,
        201
    );
    let boss = json!({ "id": "boss", "kind": "service", "roles": ["administrator"] });
    assert_eq!(call(&["administrator"], Method::POST, "/api/v1/clients", boss).await.0, 201);
    let (_, members) = call(&["keeper"], Method::GET, "/api/v1/members", Value::Null).await;
    let ann = members[0]["id"].as_str().unwrap().to_owned();
    let other = |roles: &[&str]| json!({ "email": "bob@example.com", "roles": roles });
    let client = json!({ "id": "mine", "kind": "service", "roles": ["developer"] });
    for (method, path, body) in [
        (Method::POST, "/api/v1/members".to_owned(), other(&["administrator"])),
        (Method::POST, "/api/v1/members".to_owned(), other(&["keeper", "purger"])),
        (Method::PUT, format!("/api/v1/members/{ann}/roles"), json!({ "roles": ["keeper"] })),
        (Method::PUT, format!("/api/v1/members/{ann}/suspension"), json!({ "suspended": true })),
        (Method::POST, "/api/v1/roles".to_owned(), json!({ "name": "more", "permissions": ["cache.purge"] })),
        (Method::PUT, "/api/v1/roles/keeper".to_owned(), json!({ "permissions": ["cache.purge"] })),
        (Method::PUT, "/api/v1/roles/purger".to_owned(), json!({ "permissions": [] })),
        (Method::DELETE, "/api/v1/roles/purger".to_owned(), Value::Null),
        (Method::POST, "/api/v1/clients".to_owned(), client),
        (Method::POST, "/api/v1/clients/boss/secrets".to_owned(), json!({})),
    ] {
        assert_eq!(
            call(&["keeper"], method.clone(), &path, body.clone()).await.0,
            403,
            "{method} {path} {body}"
        );
    }
    assert_eq!(call(&["keeper"], Method::POST, "/api/v1/members", other(&["keeper"])).await.0, 201);

    // In single stages as everywhere: who purges in Development gives that, there.
    let halved = &["keeper", "purger@development"][..];
    let give = async |id: &str, roles: &[&str]| {
        let robot = json!({ "id": id, "kind": "service", "roles": roles });
        let cal = json!({ "email": format!("{id}@example.com"), "roles": roles });
        let client = call(halved, Method::POST, "/api/v1/clients", robot).await.0;
        assert_eq!(call(halved, Method::POST, "/api/v1/members", cal).await.0, client, "{roles:?}");
        client
    };
    assert_eq!(give("a", &["purger@development"]).await, 201);
    assert_eq!(give("b", &["purger"]).await, 403);
    assert_eq!(give("c", &["purger@test"]).await, 403);
    assert_eq!(give("d", &["administrator@development"]).await, 403);
    assert_eq!(give("e", &["purger@development", "keeper@test"]).await, 201);
    for nowhere in ["purger@nowhere", "purger@", "purger@Development", "none@development", "@development"] {
        assert_eq!(give("f", &[nowhere]).await, 422, "{nowhere}");
    }
    // A role for a stage is a role that somebody has.
    assert_eq!(call(&["administrator"], Method::DELETE, "/api/v1/roles/purger", Value::Null).await.0, 422);
    // Who may do it in one stage does not look after people, who are in all.
    for role in ["administrator@development", "keeper@development"] {
        let new = json!({ "email": "dan@example.com", "roles": ["keeper@development"] });
        assert_eq!(call(&[role], Method::POST, "/api/v1/members", new).await.0, 403, "{role}");
    }
    // Nor does anybody take more than one has.
    let one = json!({ "roles": ["administrator@development"] });
    assert_eq!(call(&["keeper"], Method::PUT, &format!("/api/v1/members/{ann}/roles"), one).await.0, 403);
}
