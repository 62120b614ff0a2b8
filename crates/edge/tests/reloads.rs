//! Rules and policies are changed a thousand times while requests are inspected: none is lost, and memory does not
//! grow. A binary of its own, for it measures the memory of its process.
#![allow(clippy::unwrap_used)] // the whole binary is a test

use bastide_edge::{
    rules::{Places, built_in},
    waf::force::{Force, office},
};
use bastide_types::{
    Digest,
    waf::{WafExclusion, WafPolicy},
};
use bastide_waf::{Connection, RuleSet, Verdict};
use std::{
    fs,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

const RELOADS: u64 = 1000;
/// What may come on top after the first reloads: fragments of the allocator, not what a reload takes.
const GROWTH_BYTES_MAX: u64 = 24 * 1024 * 1024;
/// Memory of one policy beyond the rules that all share.
const POLICY_BYTES_MAX: u64 = 100 * 1024;

fn resident() -> u64 {
    let text = fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

fn inspect(set: &Arc<RuleSet>, target: &str) -> Verdict {
    let here = ([127, 0, 0, 1], 1).into();
    let mut transaction = set.begin(Connection { client: here, server: here, unique_id: "x".into(), now: 0 });
    let fields = [(&b"Host"[..], &b"a.example"[..])];
    match transaction.request_head(b"GET", target.as_bytes(), b"HTTP/1.1", fields.into_iter()) {
        Verdict::Pass => transaction.request_body(b"", true),
        blocked @ Verdict::Block { .. } => blocked,
    }
}

fn numbered(number: u64) -> (Digest, WafPolicy) {
    let mut id = [1; 32];
    id[..8].copy_from_slice(&number.to_be_bytes());
    let exclusion = |rule: u64| WafExclusion {
        rules: (10_210 + rule % 40).to_string().parse().unwrap(),
        target: Some(format!("ARGS:field-{number}-{rule}")),
        path: Some(format!("/shop-{number}/*")),
    };
    let policy = WafPolicy { exclusions: (0..20).map(exclusion).collect(), ..WafPolicy::default() };
    (Digest::from_sha256(id), policy)
}

fn write_rules(file: &Path, round: u64) {
    let mut text = built_in().bytes;
    // Another length each time: a file is told apart by that even where its clock is coarse.
    text.extend_from_slice("#".repeat(round as usize + 1).as_bytes());
    if round % 10 == 9 {
        text.extend_from_slice(b"\nSecRule ARGS \"@noSuchOperator\" \"id:1\"\n");
    }
    fs::write(file, text).unwrap();
}

#[test]
fn a_thousand_reloads_lose_no_request_and_keep_memory_flat() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("rules.conf");
    write_rules(&file, 0);
    let places = Places { named: vec![file.clone()], versions: None };
    let force = Force::load(places, Some(office())).unwrap();
    let (id, policy) = numbered(0);
    let policy = force.policy(id, &policy).unwrap();
    let (stop, served) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                let set = policy.compiled().expect("a policy in force has rules").set.clone();
                assert_eq!(inspect(&set, "/?q=harmless"), Verdict::Pass);
                assert!(matches!(inspect(&set, "/?q=../../etc/passwd"), Verdict::Block { status: 403, .. }));
                served.fetch_add(2, Ordering::Relaxed);
            }
        });
        let mut begun = 0;
        for round in 1..=RELOADS {
            write_rules(&file, round);
            assert!(force.look(), "reload {round} was not seen");
            assert_eq!(force.status().refused.is_some(), round % 10 == 9, "{:?}", force.status());
            if round == RELOADS / 10 {
                begun = resident();
            }
        }
        let grown = resident().saturating_sub(begun);
        stop.store(true, Ordering::Relaxed);
        println!("{grown} bytes more after {RELOADS} reloads");
        assert!(grown < GROWTH_BYTES_MAX, "{grown} bytes more after {RELOADS} reloads");
    });
    assert!(served.load(Ordering::Relaxed) > RELOADS);

    let (count, begun) = (1000, resident());
    let policies: Vec<_> = (1..=count).map(numbered).collect();
    let policies: Vec<_> = policies.iter().map(|(id, policy)| force.policy(*id, policy).unwrap()).collect();
    let each = resident().saturating_sub(begun) / count;
    assert!(each < POLICY_BYTES_MAX, "{each} bytes for a policy");
    println!(
        "{} requests served; a policy with 20 exclusions takes {each} bytes",
        served.load(Ordering::Relaxed)
    );
    drop(policies);
    let (id, policy) = numbered(count + 1);
    let _last = force.policy(id, &policy).unwrap();
    assert_eq!(force.status().policies, 2, "what nobody uses is forgotten");
}
