//! What is different between two revisions, by the keys of `bastide.toml`.

use bastide_store::RevisionRow;
use bastide_types::Manifest;
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeSet;

/// One difference.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub(crate) struct Difference {
    /// What is different: `image`, or a key of the manifest such as `scale.replicas` or `route[/admin].access`.
    pub(crate) key: String,
    /// In the one; missing where it is not there.
    #[schema(value_type = Option<Object>)]
    pub(crate) from: Option<Value>,
    /// In the other.
    #[schema(value_type = Option<Object>)]
    pub(crate) to: Option<Value>,
}

/// From one revision to another.
pub(crate) fn between(from: &RevisionRow, to: &RevisionRow) -> Vec<Difference> {
    let mut all = Vec::new();
    if from.image != to.image {
        let text = |row: &RevisionRow| Some(Value::from(row.image.to_string()));
        all.push(Difference { key: "image".into(), from: text(from), to: text(to) });
    }
    walk("", Some(&plain(&from.manifest)), Some(&plain(&to.manifest)), &mut all);
    all
}

/// The manifest with its routes by path, so that one more route is one difference.
fn plain(manifest: &Manifest) -> Value {
    let mut value = serde_json::to_value(manifest).unwrap_or_default();
    let routes = value.as_object_mut().and_then(|fields| fields.remove("route"));
    for mut route in routes.as_ref().and_then(Value::as_array).cloned().unwrap_or_default() {
        let path = route.as_object_mut().and_then(|fields| fields.remove("path")).unwrap_or_default();
        value[format!("route[{}]", path.as_str().unwrap_or_default())] = route;
    }
    value
}

fn walk(key: &str, from: Option<&Value>, to: Option<&Value>, all: &mut Vec<Difference>) {
    if from == to {
        return;
    }
    if let (Some(Value::Object(one)), Some(Value::Object(other))) = (from, to) {
        let keys: BTreeSet<&String> = one.keys().chain(other.keys()).collect();
        for name in keys {
            let below = if key.is_empty() { name.clone() } else { format!("{key}.{name}") };
            walk(&below, one.get(name), other.get(name), all);
        }
        return;
    }
    all.push(Difference { key: key.to_owned(), from: from.cloned(), to: to.cloned() });
}

#[cfg(test)]
mod tests {
    use super::*;
    use bastide_types::{AppId, Digest};
    use serde_json::json;

    fn revision(image: u8, manifest: Value) -> RevisionRow {
        let (image, manifest) = (Digest::from_sha256([image; 32]), serde_json::from_value(manifest).unwrap());
        RevisionRow::new(AppId::generate(), image, image, manifest, vec![])
    }

    #[test]
    fn differences_are_named_by_key() {
        let app = json!({ "name": "shop", "kind": "static" });
        let open = json!([{ "path": "/", "access": "public" }]);
        let one = revision(1, json!({ "app": app, "env": { "A": "1", "B": "2" }, "route": open }));
        let routes = json!([{ "path": "/" }, { "path": "/me" }]);
        let env = json!({ "A": "1", "B": "3", "C": "" });
        let other =
            revision(2, json!({ "app": app, "env": env, "route": routes, "scale": { "replicas": 3 } }));
        let keys: Vec<_> = between(&one, &other).into_iter().map(|one| one.key).collect();
        assert_eq!(keys, ["image", "env.B", "env.C", "route[/].access", "route[/me]", "scale.replicas"]);
        assert_eq!(between(&one, &one), []);
        let back = between(&other, &one);
        assert_eq!(back.len(), 6);
        let added = back.iter().find(|one| one.key == "env.C").unwrap();
        assert_eq!((&added.from, &added.to), (&Some(json!("")), &None));
    }
}
