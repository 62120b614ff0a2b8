//! Requests made from the description that is served, good and bad ones: none is answered by a fault of ours, and every
//! answer is as described.

use crate::api::{World, world};
use axum::body::Body;
use bastide_platform::{api::description, permissions::operation::TABLE};
use bastide_types::{API, CustomerId};
use http::{Method, StatusCode};
use http_body_util::BodyExt;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// Requests for each operation.
const CASES: u64 = 24;
/// What may fail here, for there is no edge and no broker.
const AWAY: [&str; 2] = ["B-CACHE-0503", "B-GW-0505"];

/// Numbers that are the same in every run (SplitMix64).
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end as u64).unwrap()
    }
    fn one_in(&mut self, many: usize) -> bool {
        self.below(many) == 0
    }
    fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }
}

/// Texts that mean something somewhere, and some that break what is careless.
const TEXTS: &[&str] = &[
    "",
    "acme",
    "shop",
    "development",
    "test",
    "production",
    "administrator",
    "developer",
    "robot",
    "404",
    "maintenance",
    "ann@example.com",
    "shop.example",
    "https://a.example/cb",
    "service",
    "confidential",
    "public",
    "mfa",
    "apps.deploy",
    "01a20de4-d54c-7659-9f5b-f4ec6569bb31",
    "me",
    "everybody",
    "api.example.com:443",
    "*.example.com",
    "/old/*",
    "/new",
    "10.0.0.0/8",
    "block",
    "none",
    "\u{0}",
    "\u{202e}x",
    "ü",
    "a/b",
    "..",
    "%2e",
    "' OR 1=1",
    "{{7*7}}",
    "\r\nx: y",
    "0",
    "-1",
    "1e400",
    "99999999999999999999",
    "true",
    "null",
    "[]",
    "<script>",
];

fn text(dice: &mut Dice) -> String {
    match dice.below(8) {
        0 => "x".repeat(dice.below(5000)),
        1 => (0..dice.below(12)).filter_map(|_| char::from_u32(dice.next() as u32 % 0x3000)).collect(),
        _ => (*dice.pick(TEXTS)).to_owned(),
    }
}

/// A value that fits no schema in particular.
fn junk(dice: &mut Dice, depth: usize) -> Value {
    match dice.below(if depth == 0 { 6 } else { 8 }) {
        0 => Value::Null,
        1 => dice.one_in(2).into(),
        2 => (dice.next() as i64).into(),
        3 => json!(0.5),
        4 | 5 => text(dice).into(),
        6 => (0..dice.below(4)).map(|_| junk(dice, depth - 1)).collect(),
        _ => Value::Object((0..dice.below(4)).map(|_| (text(dice), junk(dice, depth - 1))).collect()),
    }
}

/// A value of a schema; now and then another one in some place.
fn made(all: &Value, schema: &Value, dice: &mut Dice, depth: usize) -> Value {
    if depth == 0 || dice.one_in(24) {
        return junk(dice, 2);
    }
    if let Some(reference) = schema["$ref"].as_str() {
        return made(all, all.pointer(&reference[1..]).unwrap(), dice, depth);
    }
    for many in ["oneOf", "anyOf"] {
        if let Some(some) = schema[many].as_array() {
            return made(all, dice.pick(some), dice, depth);
        }
    }
    if let Some(some) = schema["enum"].as_array() {
        return dice.pick(some).clone();
    }
    let kinds: Vec<_> = match &schema["type"] {
        Value::String(one) => vec![one.as_str()],
        Value::Array(some) => some.iter().filter_map(Value::as_str).collect(),
        _ => return junk(dice, 2),
    };
    match *dice.pick(&kinds) {
        "null" => Value::Null,
        "boolean" => dice.one_in(2).into(),
        "integer" | "number" => match dice.below(4) {
            0 => 0.into(),
            1 => (dice.next() as i64).into(),
            _ => dice.below(200_000).into(),
        },
        "string" => text(dice).into(),
        "array" => (0..dice.below(4)).map(|_| made(all, &schema["items"], dice, depth - 1)).collect(),
        _ => {
            let mut object = Map::new();
            let required: Vec<_> = schema["required"].as_array().into_iter().flatten().collect();
            for (name, inner) in schema["properties"].as_object().into_iter().flatten() {
                let is_required = required.iter().any(|one| *one == name);
                if (is_required && !dice.one_in(12)) || dice.one_in(2) {
                    object.insert(name.clone(), made(all, inner, dice, depth - 1));
                }
            }
            if schema["additionalProperties"].is_object() {
                for _ in 0..dice.below(3) {
                    let inner = made(all, &schema["additionalProperties"], dice, depth - 1);
                    object.insert(text(dice), inner);
                }
            }
            if dice.one_in(12) {
                object.insert(text(dice), junk(dice, 1));
            }
            object.into()
        }
    }
}

/// What about a value is not as its schema says.
fn fault(all: &Value, schema: &Value, value: &Value) -> Option<String> {
    if let Some(reference) = schema["$ref"].as_str() {
        return fault(all, all.pointer(&reference[1..]).unwrap(), value);
    }
    for many in ["oneOf", "anyOf"] {
        if let Some(some) = schema[many].as_array() {
            let fits = some.iter().any(|one| fault(all, one, value).is_none());
            return (!fits).then(|| format!("{value} fits none of {}", schema[many]));
        }
    }
    if let Some(some) = schema["allOf"].as_array() {
        return some.iter().find_map(|one| fault(all, one, value));
    }
    if let Some(some) = schema["enum"].as_array()
        && !some.contains(value)
    {
        return Some(format!("{value} is none of {}", schema["enum"]));
    }
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_i64() || number.is_u64() => "integer",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    let is = |wanted: &str| wanted == kind || (wanted == "number" && kind == "integer");
    let fits = match &schema["type"] {
        Value::String(one) => is(one),
        Value::Array(some) => some.iter().filter_map(Value::as_str).any(is),
        _ => return None,
    };
    if !fits {
        return Some(format!("{value} is no {}", schema["type"]));
    }
    match value {
        Value::Array(list) => list.iter().find_map(|one| fault(all, &schema["items"], one)),
        Value::Object(members) => {
            let required = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
            if let Some(name) = required.filter(|name| !members.contains_key(*name)).next() {
                return Some(format!("`{name}` is missing in {value}"));
            }
            members.iter().find_map(|(name, one)| {
                let inner = &schema["properties"][name];
                let inner = if inner.is_null() { &schema["additionalProperties"] } else { inner };
                if inner.is_null() && schema["properties"].is_object() {
                    return Some(format!("`{name}` is not described"));
                }
                fault(all, inner, one).map(|why| format!("{name}: {why}"))
            })
        }
        Value::Number(number) => {
            let least = schema["minimum"].as_f64().is_some_and(|least| number.as_f64() < Some(least));
            least.then(|| format!("{number} is below {}", schema["minimum"]))
        }
        _ => None,
    }
}

/// A request for an operation.
struct Try {
    target: String,
    fields: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Try {
    fn of(all: &Value, operation: &Value, path: &str, dice: &mut Dice) -> Self {
        let encode = |text: &str| url::form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
        let usual: BTreeMap<&str, &str> =
            [("{stage}", "development"), ("{app}", "shop"), ("{page}", "404"), ("{customer}", "acme")].into();
        let segments = path.split('/').map(|segment| match usual.get(segment) {
            Some(usual) if !dice.one_in(4) => (*usual).to_owned(),
            _ if segment.starts_with('{') => match encode(&text(dice)).replace('+', "%20") {
                empty if empty.is_empty() => "-".into(),
                long if long.len() > 4000 => "long".into(),
                other => other,
            },
            _ => segment.to_owned(),
        });
        let mut target = format!("{API}{}", segments.collect::<Vec<_>>().join("/"));
        let (mut fields, mut query) = (Vec::new(), url::form_urlencoded::Serializer::new(String::new()));
        for parameter in operation["parameters"].as_array().into_iter().flatten() {
            let name = parameter["name"].as_str().unwrap();
            let is_required = parameter["required"] == true;
            let value = made(all, &parameter["schema"], dice, 2);
            let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            match parameter["in"].as_str().unwrap() {
                "query" if is_required || dice.one_in(4) => drop(query.append_pair(name, &value)),
                "header" if dice.one_in(4) => {
                    let plain: String = value.chars().filter(|c| !c.is_control()).collect();
                    fields.push((name.to_lowercase(), plain));
                }
                _ => {}
            }
        }
        let query: String = query.finish().chars().take(3000).collect();
        if !query.is_empty() {
            target = format!("{target}?{query}");
        }
        let mut body = Vec::new();
        for (kind, content) in operation["requestBody"]["content"].as_object().into_iter().flatten() {
            body = match kind.as_str() {
                "application/json" => made(all, &content["schema"], dice, 6).to_string().into_bytes(),
                _ => text(dice).into_bytes(),
            };
            if dice.one_in(16) {
                body.truncate(body.len() / 2);
            }
            fields.push(("content-type".into(), kind.clone()));
        }
        Self { target, fields, body }
    }
}

async fn check(
    world: &World,
    who: (&str, &str),
    method: &Method,
    operation: &Value,
    one: &Try,
) -> Result<u16, String> {
    let fields: Vec<_> = one.fields.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let body = Body::from(one.body.clone());
    let answer = world.answer_with(who.0, method.clone(), &one.target, Some(who.1), &fields, body).await;
    let status = answer.status();
    let kind = answer.headers().get("content-type").map(|kind| kind.to_str().unwrap().to_owned());
    let bytes = answer.into_body().collect().await.unwrap().to_bytes();
    let text = String::from_utf8_lossy(&bytes).into_owned();
    if status.is_server_error() && !AWAY.iter().any(|code| text.contains(code)) {
        return Err(format!("{status}: {text}"));
    }
    let all = description();
    let described = &operation["responses"];
    let response = &described[status.as_str()];
    let response = if response.is_null() { &described["default"] } else { response };
    let response = response["$ref"].as_str().map_or(response, |at| all.pointer(&at[1..]).unwrap());
    if status.is_success() && described[status.as_str()].is_null() {
        return Err(format!("{status} is not described"));
    }
    let content = response["content"].as_object();
    let Some(content) = content.filter(|_| status != StatusCode::NOT_MODIFIED) else {
        return if bytes.is_empty() {
            Ok(status.as_u16())
        } else {
            Err(format!("{status} with a body: {text}"))
        };
    };
    let kind = kind.unwrap_or_default();
    let Some(content) = content.get(&kind) else { return Err(format!("{status} as {kind:?}: {text}")) };
    // Parts of an answer are wanted by whoever asks for them.
    let is_json = kind.ends_with("json") && !kind.ends_with("ndjson");
    if (one.target.contains("fields=") && status.is_success()) || !is_json {
        return Ok(status.as_u16());
    }
    let value = serde_json::from_str(&text).map_err(|error| format!("{status}, {error}: {text}"))?;
    match fault(all, &content["schema"], &value) {
        Some(why) => Err(format!("{status}: {why}")),
        None => Ok(status.as_u16()),
    }
}

/// A world in which there is something to show and to change.
async fn inhabited() -> (World, CustomerId) {
    let world = world().await;
    let acme = world.customer_with_stages("acme").await;
    let admin = world.assertion(acme, &["administrator"]);
    for (path, body) in [
        ("/roles", json!({ "name": "keeper", "permissions": ["cache.purge"] })),
        ("/members", json!({ "email": "ann@example.com", "roles": ["developer"] })),
        ("/clients", json!({ "id": "robot", "kind": "service", "roles": ["developer"] })),
        ("/domains", json!({ "domain": "shop.example", "stage": "development" })),
    ] {
        let path = format!("{API}{path}");
        let (status, text) = world.call("acme", Method::POST, &path, Some(&admin), body.to_string()).await;
        assert!(status.is_success(), "{path}: {text}");
    }
    (world, acme)
}

#[tokio::test]
async fn no_request_is_answered_by_a_fault_and_every_answer_is_as_described() {
    let (world, acme) = inhabited().await;
    let operator = bastide_types::CustomerName::operator();
    let office = world.app.store.customer_named(&operator).await.unwrap().unwrap().id;
    let mut dice = Dice(9);
    let (mut faults, mut good, mut asked) = (Vec::new(), BTreeMap::new(), 0_u64);
    for (method, path, permission) in TABLE {
        let operation = &description()["paths"][*path][method.as_str().to_lowercase()];
        for _ in 0..CASES {
            let (host, org, role) = if permission.is_office() {
                ("operator", office, "operator")
            } else {
                ("acme", acme, "administrator")
            };
            let assertion = world.assertion(org, &[role]);
            let one = Try::of(description(), operation, path, &mut dice);
            asked += 1;
            match check(&world, (host, &assertion), method, operation, &one).await {
                Ok(status) if status < 400 => *good.entry((method.as_str(), *path)).or_insert(0) += 1,
                Ok(_) => {}
                Err(why) => faults.push(format!(
                    "{method} {} {:?} {}\n  {why}",
                    one.target,
                    one.fields,
                    String::from_utf8_lossy(&one.body).chars().take(600).collect::<String>()
                )),
            }
        }
    }
    println!("{asked} requests for {} operations, {} of them with good answers", TABLE.len(), good.len());
    assert!(faults.is_empty(), "{} of {asked} requests:\n{}", faults.len(), faults.join("\n"));
    // Otherwise it would only try refusals.
    assert!(good.len() * 3 > TABLE.len(), "{good:?}");
}

#[test]
fn the_checker_sees_what_is_wrong() {
    let all = json!({ "a": { "type": "object", "required": ["n"], "properties": { "n": { "type": "integer", "minimum": 0 }, "t": { "type": ["string", "null"] } } } });
    let check = |value: Value, good: bool| {
        let list = json!({ "type": "array", "items": { "$ref": "#/a" } });
        assert_eq!(fault(&all, &list, &json!([value])).is_none(), good, "{value}");
    };
    check(json!({ "n": 1 }), true);
    check(json!({ "n": 1, "t": null }), true);
    check(json!({ "n": 1, "t": 2 }), false);
    check(json!({ "n": -1 }), false);
    check(json!({ "n": "1" }), false);
    check(json!({}), false);
    check(json!({ "n": 1, "other": 1 }), false);
}
