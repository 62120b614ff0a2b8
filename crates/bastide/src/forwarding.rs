//! Whether another firewall of this host stands in the way of what apps send: rules of ours come before others', but a
//! packet that we let pass still meets every other chain, and Docker and ufw drop there what they do not name.

use serde_json::Value;
use std::{collections::BTreeSet, fs, path::Path, process::Command};

/// The chains of this host that drop forwarded packets unless something in them accepts one.
pub fn chains_that_drop(nft: &Path) -> BTreeSet<String> {
    let said = |program: &Path, words: &[&str]| {
        let output = Command::new(program).args(words).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let mut all = said(nft, &["--json", "list", "chains"]).map_or_else(BTreeSet::new, |text| read(&text));
    // The older kind of iptables is in the kernel beside nftables, where `nft` does not see it.
    let older = fs::read_to_string("/proc/net/ip_tables_names").unwrap_or_default();
    if older.lines().any(|table| table == "filter") {
        let policy = said(Path::new("iptables-legacy"), &["-S", "FORWARD"]).unwrap_or_default();
        if policy.lines().any(|line| line == "-P FORWARD DROP") {
            all.insert("iptables-legacy FORWARD".into());
        }
    }
    all
}

/// Chains of the hook `forward` for IPv4 whose policy is to drop, from what `nft --json list chains` says.
fn read(listed: &str) -> BTreeSet<String> {
    let listed: Value = serde_json::from_str(listed).unwrap_or_default();
    let chains = listed["nftables"].as_array().into_iter().flatten().map(|object| &object["chain"]);
    chains
        .filter(|chain| chain["hook"] == "forward" && chain["policy"] == "drop")
        .filter(|chain| chain["family"] == "ip" || chain["family"] == "inet")
        .map(|chain| {
            let word = |key: &str| chain[key].as_str().unwrap_or_default();
            format!("{} {} {}", word("family"), word("table"), word("name"))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chains_that_drop_forwarded_packets_are_found() {
        let chain = |family: &str, table: &str, hook: &str, policy: &str| {
            serde_json::json!({ "chain": {
                "family": family, "table": table, "name": "FORWARD", "handle": 2, "type": "filter",
                "hook": hook, "prio": 0, "policy": policy,
            }})
        };
        let listed = serde_json::json!({ "nftables": [
            { "metainfo": { "version": "1.0.6" } },
            { "chain": { "family": "ip", "table": "filter", "name": "DOCKER-USER", "handle": 3 } },
            chain("ip", "filter", "forward", "drop"),
            chain("ip", "filter", "input", "drop"),
            chain("ip6", "filter", "forward", "drop"),
            chain("inet", "bastide_abcde", "forward", "accept"),
            chain("inet", "firewalld", "forward", "drop"),
        ]});
        let found = read(&listed.to_string());
        assert_eq!(found, ["inet firewalld FORWARD", "ip filter FORWARD"].map(str::to_owned).into());
        assert!(read("").is_empty() && read("{}").is_empty());
    }
}
