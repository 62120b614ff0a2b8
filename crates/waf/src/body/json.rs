//! JSON as flat names: `{"a":{"b":[1]}}` is `json.a.b.array_0 = 1`.

use super::{ARGUMENTS_MAX, Parsed};
use serde_json::Value;

const DEPTH_MAX: usize = 64;

pub(crate) fn parse(bytes: &[u8], complete: bool) -> Parsed {
    let mut parsed = Parsed::default();
    match serde_json::from_slice::<Value>(bytes) {
        Ok(value) => {
            let mut name = b"json".to_vec();
            if !flatten(&value, &mut name, 0, &mut parsed) {
                parsed.fail("JSON is nested too deeply or holds too much");
            }
        }
        // A cut body is looked at as text instead: nothing of it may pass unseen.
        Err(_) if !complete => parsed.arguments.push((b"json".to_vec(), bytes.to_vec())),
        Err(error) => parsed.fail(format!("JSON: {error}")),
    }
    parsed
}

fn flatten(value: &Value, name: &mut Vec<u8>, depth: usize, parsed: &mut Parsed) -> bool {
    if depth > DEPTH_MAX || parsed.arguments.len() >= ARGUMENTS_MAX {
        return false;
    }
    let length = name.len();
    match value {
        Value::Object(members) => members.iter().all(|(key, value)| {
            name.push(b'.');
            name.extend_from_slice(key.as_bytes());
            let good = flatten(value, name, depth + 1, parsed);
            name.truncate(length);
            good
        }),
        Value::Array(items) => items.iter().enumerate().all(|(n, value)| {
            name.extend_from_slice(format!(".array_{n}").as_bytes());
            let good = flatten(value, name, depth + 1, parsed);
            name.truncate(length);
            good
        }),
        Value::String(text) => {
            parsed.arguments.push((name.clone(), text.as_bytes().to_vec()));
            true
        }
        Value::Null => {
            parsed.arguments.push((name.clone(), Vec::new()));
            true
        }
        other => {
            parsed.arguments.push((name.clone(), other.to_string().into_bytes()));
            true
        }
    }
}
