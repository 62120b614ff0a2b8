//! Rulesets as nftables' JSON (libnftables-json(5)), and its listing in a form that can be compared.
//!
//! What nft lists is not what it was given: it adds handles and counters, orders members, and writes some
//! conditions differently from version to version. [`normalise`] brings both to one form.

use crate::name::LINK_GROUP;
use crate::rules::{Chain, Hook, Match, Members, Rule, Ruleset, Set, Transport, Verdict};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// Where stopped packets are reported (nfnetlink_log's group), in namespaces that are ours alone.
pub const REPORT_GROUP: u16 = 1;
/// As much of a packet as is reported: its heads.
const REPORT_BYTES: u32 = 64;

/// One transaction that puts exactly this table in place of whatever has its name.
pub fn transaction(rules: &Ruleset) -> Value {
    let mut steps = empty(&rules.table);
    steps.push(json!({ "add": { "table": { "family": "inet", "name": rules.table } } }));
    steps.extend(objects(rules).into_iter().map(|object| json!({ "add": object })));
    json!({ "nftables": steps })
}

/// One transaction after which the table of this name is gone, whether it was there or not.
pub fn undo(table: &str) -> Value {
    json!({ "nftables": empty(table) })
}

/// One transaction that changes the members of sets from `old` to `new` and touches no rule, or nothing when
/// the two differ in more than that.
pub fn set_update(old: &Ruleset, new: &Ruleset) -> Option<Value> {
    if !new.differs_in_sets_only(old) {
        return None;
    }
    let mut steps = Vec::new();
    for (old, set) in old.sets.iter().zip(&new.sets).filter(|(old, new)| old != new) {
        let named = |elements: Vec<Value>| json!({ "element": { "family": "inet", "table": new.table, "name": set.name, "elem": elements } });
        let (before, after) = (members(old), members(set));
        let gone: Vec<_> = before.iter().filter(|member| !after.contains(member)).cloned().collect();
        let come: Vec<_> = after.iter().filter(|member| !before.contains(member)).cloned().collect();
        if !gone.is_empty() {
            steps.push(json!({ "delete": named(gone) }));
        }
        if !come.is_empty() {
            steps.push(json!({ "add": named(come) }));
        }
    }
    Some(json!({ "nftables": steps }))
}

/// Adding before deleting, since nft refuses to delete what is not there.
fn empty(table: &str) -> Vec<Value> {
    let table = json!({ "table": { "family": "inet", "name": table } });
    vec![json!({ "add": table }), json!({ "delete": table })]
}

fn objects(rules: &Ruleset) -> Vec<Value> {
    let mut all: Vec<_> = rules.sets.iter().map(|one| set(&rules.table, one)).collect();
    all.extend(rules.chains.iter().map(|one| chain(&rules.table, one)));
    for one in &rules.chains {
        all.extend(one.rules.iter().map(|each| rule(rules, one.hook, each)));
    }
    all
}

fn set(table: &str, set: &Set) -> Value {
    let (kind, interval) = match set.members {
        Members::Ranges(_) => (json!("ipv4_addr"), true),
        Members::Senders(_) => (json!(["ifname", "ipv4_addr"]), true),
        Members::Ways(_) => (json!(["ifname", "ifname"]), false),
        Members::Services(_) => (json!(["ipv4_addr", "inet_service"]), true),
    };
    let mut object = json!({ "family": "inet", "table": table, "name": set.name, "type": kind });
    if interval {
        object["flags"] = json!(["interval"]);
    }
    let members = members(set);
    if !members.is_empty() {
        object["elem"] = Value::Array(members);
    }
    json!({ "set": object })
}

fn members(set: &Set) -> Vec<Value> {
    let range = |net: &ipnet::Ipv4Net| match net.prefix_len() {
        32 => json!(net.addr()),
        length => json!({ "prefix": { "addr": net.network(), "len": length } }),
    };
    match &set.members {
        Members::Ranges(ranges) => ranges.iter().map(range).collect(),
        Members::Senders(senders) => {
            senders.iter().map(|(link, from)| json!({ "concat": [link, range(from)] })).collect()
        }
        Members::Ways(ways) => ways.iter().map(|(from, to)| json!({ "concat": [from, to] })).collect(),
        Members::Services(services) => {
            let port =
                |port: &Option<u16>| port.map_or(json!({ "range": [0, u16::MAX] }), |port| json!(port));
            services.iter().map(|(to, at)| json!({ "concat": [range(to), port(at)] })).collect()
        }
    }
}

fn chain(table: &str, chain: &Chain) -> Value {
    let kind = if chain.hook == Hook::Postrouting { "nat" } else { "filter" };
    json!({ "chain": {
        "family": "inet", "table": table, "name": chain.hook.word(), "type": kind, "hook": chain.hook.word(),
        "prio": chain.priority, "policy": if chain.drops { "drop" } else { "accept" },
    } })
}

fn rule(rules: &Ruleset, hook: Hook, rule: &Rule) -> Value {
    let mut expressions: Vec<_> = rule.when.iter().map(condition).collect();
    if matches!(rule.then, Verdict::Drop | Verdict::Reset) {
        if rules.reports {
            expressions.push(
                json!({ "log": { "prefix": rule.id, "group": REPORT_GROUP, "snaplen": REPORT_BYTES } }),
            );
        }
        expressions.push(json!({ "counter": { "packets": 0, "bytes": 0 } }));
    }
    expressions.push(match rule.then {
        Verdict::Accept => json!({ "accept": null }),
        Verdict::Drop => json!({ "drop": null }),
        Verdict::Reset => json!({ "reject": { "type": "tcp reset" } }),
        Verdict::Snat(first, last) if first == last => json!({ "snat": { "family": "ip", "addr": first } }),
        Verdict::Snat(first, last) => {
            json!({ "snat": { "family": "ip", "addr": { "range": [first, last] } } })
        }
        Verdict::Masquerade => json!({ "masquerade": null }),
    });
    json!({ "rule": {
        "family": "inet", "table": rules.table, "chain": hook.word(), "comment": rule.id, "expr": expressions,
    } })
}

fn condition(condition: &Match) -> Value {
    let compare =
        |op: &str, left: Value, right: Value| json!({ "match": { "op": op, "left": left, "right": right } });
    let meta = |key: &str| json!({ "meta": { "key": key } });
    let field = |protocol: &str, name: &str| json!({ "payload": { "protocol": protocol, "field": name } });
    match condition {
        Match::Ipv6 => compare("==", meta("nfproto"), json!("ipv6")),
        Match::In(link) => compare("==", meta("iifname"), json!(link)),
        Match::NotIn(link) => compare("!=", meta("iifname"), json!(link)),
        Match::Out(link) => compare("==", meta("oifname"), json!(link)),
        Match::NotOut(link) => compare("!=", meta("oifname"), json!(link)),
        Match::FromOthers => compare("!=", meta("iifgroup"), json!(LINK_GROUP)),
        Match::ToOthers => compare("!=", meta("oifgroup"), json!(LINK_GROUP)),
        Match::SenderNotIn(set) => {
            let both = json!({ "concat": [meta("iifname"), field("ip", "saddr")] });
            compare("!=", both, json!(format!("@{set}")))
        }
        Match::WayNotIn(set) => {
            let both = json!({ "concat": [meta("iifname"), meta("oifname")] });
            compare("!=", both, json!(format!("@{set}")))
        }
        Match::ServiceIn(transport, set) => {
            compare("==", service(*transport, &field), json!(format!("@{set}")))
        }
        Match::ServiceNotIn(transport, set) => {
            compare("!=", service(*transport, &field), json!(format!("@{set}")))
        }
        Match::To(set) => compare("==", field("ip", "daddr"), json!(format!("@{set}"))),
        Match::ToAddress(address) => compare("==", field("ip", "daddr"), json!(address)),
        Match::FromAddress(address) => compare("==", field("ip", "saddr"), json!(address)),
        Match::TcpPort(port) => compare("==", field("tcp", "dport"), json!(port)),
        Match::Tcp => compare("==", meta("l4proto"), json!("tcp")),
        Match::Udp => compare("==", meta("l4proto"), json!("udp")),
        Match::TcpOrUdp => compare("==", meta("l4proto"), json!({ "set": ["tcp", "udp"] })),
        Match::Known => compare("in", json!({ "ct": { "key": "state" } }), json!(["established", "related"])),
        Match::NotSyn => compare("==", json!({ "&": [field("tcp", "flags"), "syn"] }), json!(0)),
        Match::Over(count) => json!({ "ct count": { "val": count, "inv": true } }),
    }
}

fn service(transport: Transport, field: &impl Fn(&str, &str) -> Value) -> Value {
    let protocol = match transport {
        Transport::Tcp => "tcp",
        Transport::Udp => "udp",
    };
    json!({ "concat": [field("ip", "daddr"), field(protocol, "dport")] })
}

/// A listing, or a transaction of ours, in the form in which two can be compared: one line per object of this
/// table, rules in their order, everything else sorted. `None` when the table is not there.
pub fn normalise(listing: &Value, table: &str) -> Option<Vec<String>> {
    let (mut there, mut sorted, mut rules) = (false, Vec::new(), BTreeMap::<String, Vec<String>>::new());
    for entry in listing.get("nftables")?.as_array()? {
        let entry = entry.get("add").unwrap_or(entry);
        let Some((kind, object)) = entry.as_object().and_then(|entry| entry.iter().next()) else { continue };
        let Some(object) = object.as_object().filter(|object| object.get("family") == Some(&json!("inet")))
        else {
            continue;
        };
        let name = if kind == "table" { "name" } else { "table" };
        if object.get(name) != Some(&json!(table)) {
            continue;
        }
        let line = format!("{kind} {}", Value::Object(object_form(object)));
        match kind.as_str() {
            "table" => there = true,
            "rule" => {
                let chain = object.get("chain").and_then(Value::as_str).unwrap_or_default();
                rules.entry(chain.to_owned()).or_default().push(line);
            }
            _ => sorted.push(line),
        }
    }
    sorted.sort();
    sorted.extend(rules.into_values().flatten());
    there.then_some(sorted)
}

fn object_form(object: &Map<String, Value>) -> Map<String, Value> {
    let mut form = Map::new();
    for (key, value) in object {
        let value = match key.as_str() {
            "handle" => continue,
            "elem" => {
                let mut members: Vec<_> = value.as_array().cloned().unwrap_or_default();
                members.sort_by_key(Value::to_string);
                if members.is_empty() {
                    continue;
                }
                Value::Array(members)
            }
            "expr" => {
                let all = value.as_array().map(Vec::as_slice).unwrap_or_default();
                Value::Array(all.iter().map(expression_form).collect())
            }
            _ => value.clone(),
        };
        form.insert(key.clone(), value);
    }
    form
}

fn expression_form(expression: &Value) -> Value {
    if expression.get("counter").is_some() {
        return json!("counter");
    }
    // nft 1.0.6 lists `tcp flags & syn == 0` as `tcp flags ! syn`.
    if let Some(found) = expression.get("match").filter(|found| found["op"] == "!") {
        let masked = json!({ "&": [found["left"], found["right"]] });
        return json!({ "match": { "op": "==", "left": masked, "right": 0 } });
    }
    if expression.get("masquerade").is_some_and(|value| value.as_object().is_none_or(Map::is_empty)) {
        return json!({ "masquerade": null });
    }
    expression.clone()
}

/// Packets that each rule of a table has counted so far, by its id.
pub fn read_counters(listing: &Value, table: &str) -> BTreeMap<String, u64> {
    let mut counted = BTreeMap::new();
    for entry in listing.get("nftables").and_then(Value::as_array).into_iter().flatten() {
        let Some(rule) = entry.get("rule").filter(|rule| rule["table"] == table) else { continue };
        let (Some(id), Some(expressions)) = (rule["comment"].as_str(), rule["expr"].as_array()) else {
            continue;
        };
        if let Some(packets) = expressions.iter().find_map(|one| one.get("counter")?.get("packets")?.as_u64())
        {
            *counted.entry(id.to_owned()).or_default() += packets;
        }
    }
    counted
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn ruleset() -> Ruleset {
        Ruleset {
            table: "t".into(),
            reports: false,
            sets: vec![Set {
                name: "ways",
                members: Members::Ways(BTreeSet::from([("b".into(), "c".into()), ("a".into(), "c".into())])),
            }],
            chains: vec![Chain::filter(
                Hook::Forward,
                0,
                true,
                vec![Rule::known(), Rule::new("mid", vec![Match::NotSyn], Verdict::Reset)],
            )],
        }
    }

    /// As nft 1.0.6 lists the ruleset above.
    fn listed() -> Value {
        json!({ "nftables": [
            { "metainfo": { "version": "1.0.6" } },
            { "table": { "family": "inet", "name": "t", "handle": 2 } },
            { "table": { "family": "ip", "name": "t", "handle": 2 } },
            { "set": { "family": "inet", "name": "ways", "table": "t", "type": ["ifname", "ifname"], "handle": 4,
                "elem": [{ "concat": ["b", "c"] }, { "concat": ["a", "c"] }] } },
            { "chain": { "family": "inet", "table": "t", "name": "forward", "handle": 7, "type": "filter",
                "hook": "forward", "prio": 0, "policy": "drop" } },
            { "rule": { "family": "inet", "table": "t", "chain": "forward", "handle": 11, "comment": "known", "expr": [
                { "match": { "op": "in", "left": { "ct": { "key": "state" } }, "right": ["established", "related"] } },
                { "accept": null } ] } },
            { "rule": { "family": "inet", "table": "t", "chain": "forward", "handle": 12, "comment": "mid", "expr": [
                { "match": { "op": "!", "left": { "payload": { "protocol": "tcp", "field": "flags" } }, "right": "syn" } },
                { "counter": { "packets": 3, "bytes": 99 } }, { "reject": { "type": "tcp reset" } } ] } },
        ] })
    }

    #[test]
    fn what_nft_lists_equals_what_it_was_given() {
        let (given, listed) = (normalise(&transaction(&ruleset()), "t"), normalise(&listed(), "t"));
        assert_eq!(given, listed);
        assert_eq!(given.unwrap().len(), 4);
        assert_eq!(read_counters(&self::listed(), "t"), BTreeMap::from([("mid".to_owned(), 3)]));
    }

    #[test]
    fn any_change_by_hand_is_a_difference() {
        let given = normalise(&transaction(&ruleset()), "t");
        let change = |change: fn(&mut Vec<Value>)| {
            let mut listing = listed();
            change(listing["nftables"].as_array_mut().unwrap());
            assert_ne!(normalise(&listing, "t"), given);
        };
        change(|all| drop(all.remove(1)));
        change(|all| drop(all.remove(6)));
        change(|all| all.swap(5, 6));
        change(|all| all[4]["chain"]["policy"] = json!("accept"));
        change(|all| drop(all[3]["set"]["elem"].as_array_mut().unwrap().pop()));
        change(|all| all[5]["rule"]["expr"] = json!([{ "accept": null }]));
    }

    #[test]
    fn new_members_change_a_set_and_no_rule() {
        let (old, mut new) = (ruleset(), ruleset());
        new.sets[0].members =
            Members::Ways(BTreeSet::from([("a".into(), "c".into()), ("d".into(), "c".into())]));
        let update = set_update(&old, &new).unwrap();
        let element = |from: &str| json!({ "element": { "family": "inet", "table": "t", "name": "ways", "elem": [{ "concat": [from, "c"] }] } });
        assert_eq!(update, json!({ "nftables": [{ "delete": element("b") }, { "add": element("d") }] }));
        new.chains.pop();
        assert_eq!(set_update(&old, &new), None);
    }
}
