//! What a Snapshot takes of a running edge, beside what it is said to cost: the ceilings are over the latter.

use crate::whole::{APPS, snapshot, world_with, write_state};
use bastide_types::{
    AppId, AppName, CustomerId, CustomerName, Digest, ReplicaId, Role, Snapshot, StageName, WafPolicy,
    waf::{WafExclusion, WafRules},
};
use std::{path::PathBuf, process::Command};

/// Where the state lies that the edge serves from.
const STATE: &str = "BASTIDE_TEST_STATE";
const MANY: usize = 400;
const APPS_EACH: usize = 4;
/// Each customer has a policy of its own.
const EXCLUSIONS: u32 = 20;

fn policy(number: usize) -> WafPolicy {
    let exclusion = |rule: u32| WafExclusion {
        rules: WafRules::Ids(942_100 + rule, 942_100 + rule),
        target: Some(format!("ARGS:field-{number}")),
        path: Some(format!("/shop/{rule}/*")),
    };
    WafPolicy { exclusions: (0..EXCLUSIONS).map(exclusion).collect(), ..WafPolicy::default() }
}

/// The usual Snapshot, and so many customers beside the one in it.
fn with(customers: usize) -> Snapshot {
    let mut all = snapshot();
    let demo = all.customers.values().next().unwrap().clone();
    for number in 0..customers {
        let mut digest = [9; 32];
        digest[..8].copy_from_slice(&(number as u64).to_be_bytes());
        let waf = Digest::from_sha256(digest);
        all.waf.insert(waf, policy(number));
        let mut customer = demo.clone();
        customer.id = CustomerId::generate();
        let stage = customer.stages[&StageName::production()].clone();
        for (place, name) in StageName::defaults().into_iter().enumerate() {
            let mut stage = stage.clone();
            stage.account = format!("A{number}-{place}");
            stage.waf = waf;
            let shop = stage.apps.values().next().unwrap().clone();
            for app in 0..APPS_EACH {
                let mut shop = shop.clone();
                shop.id = AppId::generate();
                let zones = shop.replicas.into_values().collect::<Vec<_>>();
                shop.replicas = zones.into_iter().map(|zone| (ReplicaId::generate(), zone)).collect();
                stage.apps.insert(AppName::new(format!("shop-{app}")).unwrap(), shop);
            }
            customer.stages.insert(name, stage);
        }
        all.customers.insert(CustomerName::new(format!("many-{number}")).unwrap(), customer);
    }
    all
}

fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.split_whitespace().next().unwrap().parse::<u64>().unwrap() * 1024
}

#[test]
#[ignore = "alone in a process of its own, for the test below"]
fn an_edge_with_customers() {
    let Some(state) = std::env::var_os(STATE).map(PathBuf::from) else { return };
    let world = world_with([Role::Gateway; 2], |config| {
        for file in ["snapshot.json", "snapshot.pub", "facts.json"] {
            std::fs::copy(state.join(file), config.state_dir.join(file)).unwrap();
        }
    });
    assert_eq!(world.get(APPS, "/shop/").status, 200);
    println!("\nresident {}", resident_bytes());
}

fn resident_with(customers: usize) -> u64 {
    let state = tempfile::tempdir().unwrap();
    write_state(state.path(), &with(customers));
    let mut alone = Command::new(std::env::current_exe().unwrap());
    alone.args(["memory::an_edge_with_customers", "--exact", "--ignored", "--nocapture"]);
    let output = alone.env(STATE, state.path()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    said.lines().find_map(|line| line.strip_prefix("resident ")).unwrap().parse().unwrap()
}

#[test]
fn a_running_edge_takes_no_more_than_its_snapshot_is_said_to_cost() {
    let said = with(MANY).cost().memory - with(0).cost().memory;
    let taken = resident_with(MANY).saturating_sub(resident_with(0));
    println!("{MANY} customers: {taken} bytes, said to cost {said}");
    assert!(taken <= said, "{MANY} customers take {taken} bytes, and are said to cost {said}");
    assert!(taken * 20 >= said, "what is said has nothing to do with what is taken: {taken}, {said}");
}
