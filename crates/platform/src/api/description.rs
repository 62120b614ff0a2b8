//! The OpenAPI description of the API: what the handlers say of themselves, and what holds for all of them.
//!
//! Handlers say what they take and give. Who may call them, what refusals look like, which writes are done once, which lists
//! come in pages: that is said once, in the tables that the API obeys, and written into the description from there.

use crate::{
    permissions::{Permission, operation::TABLE},
    wire::{condition, pace, paging},
};
use bastide_types::{API, Code};
use serde_json::{Map, Value, json};
use std::{collections::BTreeSet, sync::LazyLock};
use utoipa::{
    OpenApi,
    openapi::{
        Ref, Schema,
        schema::{ObjectBuilder, OneOfBuilder, Type},
    },
};

/// The whole description.
pub fn description() -> &'static Value {
    static WHOLE: LazyLock<Value> = LazyLock::new(|| dressed(merged()));
    &WHOLE
}

/// Names that an operation takes in its query.
pub(crate) fn queries(method: &str, path: &str) -> BTreeSet<String> {
    let parameters = &description()["paths"][path][method.to_ascii_lowercase()]["parameters"];
    let named = parameters.as_array().into_iter().flatten().filter(|one| one["in"] == "query");
    named.filter_map(|one| Some(one["name"].as_str()?.to_owned())).collect()
}

/// What all modules say.
fn merged() -> Value {
    let mut all = super::Description::openapi();
    all.merge(crate::identity::description());
    serde_json::to_value(all).expect("a description is plain data")
}

/// The description with what holds for all operations.
fn dressed(mut all: Value) -> Value {
    all["servers"] = json!([{ "url": API }]);
    all["security"] = json!([{ "bearer": [] }]);
    all["tags"] =
        Service::ALL.iter().map(|one| json!({ "name": one.name(), "description": one.what() })).collect();
    all["components"]["securitySchemes"] = json!({ "bearer": {
        "type": "http", "scheme": "bearer", "bearerFormat": "JWT",
        "description": "An access token of the organization's issuer; `bastide token` prints one.",
    } });
    all["components"]["schemas"]["Problem"] = problem_schema();
    all["components"]["responses"] = json!({ "Problem": {
        "description": "Why it was refused (RFC 9457). The codes are stable; `bastide explain` knows them.",
        "content": { bastide_types::problem::MEDIA_TYPE: { "schema": { "$ref": "#/components/schemas/Problem" } } },
    } });
    for (method, path, permission) in TABLE {
        let operation = &mut all["paths"][*path][method.as_str().to_ascii_lowercase()];
        if let Some(operation) = operation.as_object_mut() {
            dress(operation, method.as_str(), path, *permission);
        }
    }
    all
}

/// What a refusal looks like.
fn problem_schema() -> Value {
    let codes: Vec<_> = Code::ALL.iter().map(|code| code.as_str()).collect();
    json!({
        "type": "object",
        "description": "Problem details.",
        "required": ["type", "title", "status", "code"],
        "properties": {
            "type": { "type": "string", "description": "URI of the kind of problem." },
            "title": { "type": "string", "description": "One line for everybody." },
            "status": { "type": "integer", "minimum": 400, "maximum": 599 },
            "code": { "type": "string", "enum": codes, "description": "Stable code." },
            "detail": { "type": "string", "description": "What exactly is wrong this time." },
            "request_id": { "type": "string", "format": "uuid", "description": "Which request; the operator finds its receipt under it." },
            "trace_id": { "type": "string", "pattern": "^[0-9a-f]{32}$", "description": "Its trace (W3C Trace Context)." },
        },
    })
}

fn dress(operation: &mut Map<String, Value>, method: &str, path: &str, permission: Permission) {
    let service = Service::of(path);
    operation.insert("tags".into(), json!([service.name()]));
    operation.insert("operationId".into(), id(method, path).into());
    operation.insert("x-permission".into(), permission.as_str().into());
    let limits: Vec<_> = pace::classes(method, path)
        .into_iter()
        .map(|class| json!({ "class": class.name(), "requests": class.limit(&pace::Limits::default()), "seconds": 60 }))
        .collect();
    operation.insert("x-rate-limits".into(), limits.into());
    let mut added = Vec::new();
    if method == "GET" {
        added.push(parameter("query", "fields", "Which members of the answer are wanted: names with commas between, dots for those inside, such as `name,stages.stage`.", json!({ "type": "string", "maxLength": 1024 })));
        added.push(parameter(
            "header",
            "If-None-Match",
            "Tag of an answer that the client has; if it is still the same, the answer is 304.",
            json!({ "type": "string" }),
        ));
        if paging::is_list(path) {
            added.push(parameter("query", "limit", "Most members of the list in one answer.", json!({ "type": "integer", "minimum": 1, "maximum": paging::LIMIT_MAX, "default": paging::LIMIT_MAX })));
            added.push(parameter(
                "query",
                "cursor",
                "Where to go on, as the `Link` field of the answer before has it.",
                json!({ "type": "string", "maxLength": 2048 }),
            ));
        }
    } else {
        added.push(parameter(
            "header",
            "Idempotency-Key",
            "Done once for each key: within 24 hours the same request is answered from memory.",
            json!({ "type": "string", "maxLength": 255 }),
        ));
        if condition::resource_of(path).is_some() {
            added.push(parameter(
                "header",
                "If-Match",
                "Only if what is changed still has this tag; else 412.",
                json!({ "type": "string" }),
            ));
        }
    }
    let parameters = operation.entry("parameters").or_insert_with(|| json!([]));
    if let Some(parameters) = parameters.as_array_mut() {
        added.retain(|new| !parameters.iter().any(|one| one["name"] == new["name"]));
        parameters.extend(added);
    }
    let Some(responses) = operation.get_mut("responses").and_then(Value::as_object_mut) else { return };
    for (status, response) in responses.iter_mut() {
        match status.as_str() {
            "200" if method == "GET" => response["headers"] = answer_fields(path),
            status if !status.starts_with('2') => {
                response["content"] = json!({ bastide_types::problem::MEDIA_TYPE: { "schema": { "$ref": "#/components/schemas/Problem" } } });
            }
            _ => {}
        }
    }
    if method == "GET" {
        responses.insert("304".into(), json!({ "description": "The client has it." }));
    }
    responses.insert("default".into(), json!({ "$ref": "#/components/responses/Problem" }));
}

fn answer_fields(path: &str) -> Value {
    let text = || json!({ "type": "string" });
    let mut fields = json!({ "ETag": { "description": "Tag of this answer.", "schema": text() } });
    if paging::is_list(path) {
        fields["Link"] = json!({ "description": "Where the list goes on (`rel=\"next\"`); missing at its end.", "schema": text() });
    }
    fields
}

fn parameter(place: &str, name: &str, what: &str, schema: Value) -> Value {
    json!({ "name": name, "in": place, "description": what, "required": false, "schema": schema })
}

/// Names an operation after its method and path, such as `put-stages-stage-network`.
fn id(method: &str, path: &str) -> String {
    let words = path.split('/').filter(|word| !word.is_empty()).map(|word| word.trim_matches(['{', '}']));
    std::iter::once(method.to_ascii_lowercase().as_str()).chain(words).collect::<Vec<_>>().join("-")
}

/// A service of the Platform.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Service {
    /// Customers.
    Orgs,
    /// Images of what is published.
    Build,
    /// What runs where.
    Deploy,
    /// Members, roles, clients, sessions, keys, and how sign-in pages look.
    Identity,
    /// Custom domains.
    Domains,
    /// The firewall's policies, bans, and where apps may call to.
    Security,
    /// Settings of apps and sites, and the cache.
    Config,
}

impl Service {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Orgs, Self::Build, Self::Deploy, Self::Identity, Self::Domains, Self::Security, Self::Config];

    /// The service that has this path of the router.
    pub fn of(path: &str) -> Self {
        let words: Vec<_> = path.split('/').skip(1).collect();
        match words.as_slice() {
            ["customers", ..] => Self::Orgs,
            ["apps", _, "publish" | "content", ..] => Self::Build,
            ["apps", _, "stages", ..] => Self::Config,
            ["apps", _, "roles", ..]
            | ["stages", _, "sessions" | "users" | "groups" | "registration", ..] => Self::Identity,
            [
                "whoami" | "sessions" | "members" | "roles" | "permissions" | "clients" | "keys" | "idps"
                | "sign-in" | "organization",
                ..,
            ] => Self::Identity,
            ["domains" | "locks", ..] | ["stages", _, "default-domain"] => Self::Domains,
            ["waf" | "bans", ..] | ["apps", _, "egress"] | ["stages", _, "network"] | ["audit", ..] => {
                Self::Security
            }
            ["cache", ..] | ["stages", ..] => Self::Config,
            _ => Self::Deploy,
        }
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Orgs => "orgs",
            Self::Build => "build",
            Self::Deploy => "deploy",
            Self::Identity => "identity",
            Self::Domains => "domains",
            Self::Security => "security",
            Self::Config => "config",
        }
    }

    fn what(self) -> &'static str {
        match self {
            Self::Orgs => "Customers.",
            Self::Build => "Images of what is published.",
            Self::Deploy => "What runs where.",
            Self::Identity => "Members, roles, clients, sessions, keys, and how sign-in pages look.",
            Self::Domains => "Custom domains.",
            Self::Security => "The firewall's policies, bans, and where apps may call to.",
            Self::Config => "Settings and secrets of apps, settings of sites, and what edges store.",
        }
    }
}

/// A problem, or nothing.
pub(super) fn problem_or_null() -> Schema {
    or_null("Problem")
}

/// What a directory holds.
pub(super) fn tree() -> Schema {
    ObjectBuilder::new().additional_properties(Some(or_null("TreeFile"))).build().into()
}

fn or_null(name: &str) -> Schema {
    let null = ObjectBuilder::new().schema_type(Type::Null).build();
    OneOfBuilder::new().item(null).item(Ref::from_schema_name(name)).build().into()
}
