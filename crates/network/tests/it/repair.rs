//! What somebody broke, what a dead run left, and what cannot be had as planned.

use crate::scene::{API, BRIEFLY, PATIENCE, PORT, Town, by_hand, left, name, zone};
use bastide_isolation::{
    Plan, plan,
    rules::{Match, Rule, Verdict},
};
use bastide_network::Error;

trait Rules {
    fn broken(&mut self);
}

impl Rules for bastide_isolation::Namespace {
    /// A rule that looks into a set that is not there: nft refuses the whole transaction.
    fn broken(&mut self) {
        let rules = self.rules.as_mut().unwrap();
        rules.chains[0].rules.push(Rule::new("broken", vec![Match::To("nowhere")], Verdict::Drop));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn broken_rules_leave_no_link_and_the_others_stay() {
    let Some(mut town) = Town::new("broken_rules", &[&[1, 1], &[1, 1]]).await else { return };
    let (broken, good) = (town.router(0), town.plan.clone());
    town.plan.namespaces.get_mut(&broken).unwrap().broken();
    let report = town.reconcile().await;
    assert!(matches!(report.failed.get(&broken), Some(Error::Firewall { .. })), "{report:?}");
    assert_eq!(report.failed.len(), 1, "{report:?}");
    assert!(!bastide_network::path(&broken).exists());
    assert!(!by_hand(&town.namespace(0, 0), "ip -o link show").contains("eth0"));
    town.populate().await;
    town.control(1, 0).await;
    // The same with rules that were good before: what is wrong takes the whole namespace away.
    town.plan = good.clone();
    assert!(town.reconcile().await.failed.is_empty());
    town.controls().await;
    town.plan.namespaces.get_mut(&broken).unwrap().broken();
    assert!(town.reconcile().await.failed.contains_key(&broken));
    assert!(!bastide_network::path(&broken).exists());
    assert!(!by_hand(&town.namespace(0, 0), "ip -o link show").contains("eth0"));
    town.control(1, 1).await;
    town.plan = good;
    assert!(town.reconcile().await.failed.is_empty());
    town.controls().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_look_finds_nothing_to_do() {
    let Some(town) = Town::built("a_second_look", &[&[2, 1], &[1, 1]]).await else { return };
    let report = town.reconcile().await;
    assert!(report.is_quiet(), "{report:?}");
    // Another process, which remembers nothing.
    let by = bastide_network::OutsideNamespace::Named(town.outside.namespace.clone());
    let other = bastide_network::Network::open(town.topology.installation.clone(), by).await.unwrap();
    let report = other.reconcile(&town.plan).await.unwrap();
    assert!(report.is_quiet(), "{report:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_somebody_broke_is_repaired() {
    let Some(town) = Town::built("what_somebody_broke", &[&[1, 1], &[1, 0]]).await else { return };
    let (router, gateway) = (town.router(0), town.topology.installation.gateway(&zone(0)));
    let replica = town.namespace(0, 0);
    let link = bastide_isolation::name::replica_link(town.replica(0, 0).id);
    let uplink = town.topology.installation.uplink(&zone(0));
    let handle = "nft -a list chain inet bastide forward | sed -n '/comment \"blocked\"/s/.*handle //p'";
    for (place, command) in [
        (&router, "nft flush ruleset"),
        (&router, "nft delete table inet bastide"),
        (&gateway, "nft flush table inet bastide"),
        (&router, &format!("nft delete rule inet bastide forward handle $({handle})")),
        (&router, "nft insert rule inet bastide forward accept"),
        (&router, "nft add element inet bastide ways '{ \"x\" . \"y\" }'"),
        (&router, "nft chain inet bastide forward '{ policy accept; }'"),
        (&router, "nft add table ip other"),
        (&router, &format!("ip link delete {link}")),
        (&router, &format!("ip link set {link} down")),
        (&replica, "ip link delete eth0"),
        (&replica, "ip link set lo down"),
        (&gateway, "ip link delete wan0"),
        (&town.outside.namespace, &format!("ip link set {uplink} down")),
        (&town.outside.namespace, &format!("ip address flush dev {uplink}")),
        (&router, "ip link add other type veth peer name other2"),
        (&replica, "ip address add 100.64.77.7/24 dev eth0"),
        (&replica, "ip address delete 127.0.0.1/8 dev lo"),
        (&router, "ip address flush dev lo"),
        (
            &router,
            "ip route add 100.64.0.0/10 via 169.254.1.2 onlink dev $(ip -o link show | sed -n 's/^[0-9]*: \\(z[^@]*\\).*/\\1/p' | head -n1)",
        ),
        (&router, "ip route flush table 101"),
        (&router, "ip route add local 8.8.8.8 dev lo"),
        (&replica, "ip route delete default"),
        (&router, &format!("ip rule delete iif {link}")),
        (&router, "ip rule add from all table 102 priority 5"),
        (&router, "ip rule delete table main"),
        (&router, "echo 0 > /proc/sys/net/ipv4/ip_forward"),
        (&router, &format!("echo 0 > /proc/sys/net/ipv4/conf/{link}/forwarding")),
        (&gateway, "echo 1 > /proc/sys/net/ipv4/conf/wan0/rp_filter"),
        (&gateway, "echo 0 > /proc/sys/net/netfilter/nf_conntrack_acct"),
        (&replica, "echo 1 > /proc/sys/net/ipv4/ip_forward"),
    ] {
        by_hand(place, command);
        let report = town.reconcile().await;
        assert!(report.repair && !report.changed.is_empty(), "{command}: {report:?}");
        assert!(report.failed.is_empty(), "{command}: {report:?}");
        let report = town.reconcile().await;
        assert!(report.is_quiet(), "{command}: {report:?}");
        town.control(0, 0).await;
    }
    town.controls().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_namespace_that_was_taken_away_comes_back_and_is_named() {
    let Some(mut town) = Town::built("a_namespace_taken", &[&[1, 1]]).await else { return };
    for namespace in [town.topology.installation.gateway(&zone(0)), town.router(0)] {
        by_hand("../../proc/self/ns/net", &format!("ip netns delete {namespace}"));
        let report = town.reconcile().await;
        assert_eq!(report.made.iter().collect::<Vec<_>>(), [&namespace], "{report:?}");
        town.controls().await;
    }
    // With the replica's own namespace its app is cut off: it must be started anew, and there it works again.
    let namespace = town.namespace(0, 0);
    by_hand("../../proc/self/ns/net", &format!("umount /run/netns/{namespace}"));
    assert!(town.reconcile().await.made.contains(&namespace));
    town.people.answers(&namespace, std::net::Ipv4Addr::UNSPECIFIED, PORT, "anew").await;
    assert!(town.people.request(&namespace, PORT, PATIENCE).await.starts_with("anew"));
    town.controls().await;
    assert!(town.reconcile().await.is_quiet());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_come_and_go_without_anybody_else_noticing() {
    let Some(mut town) = Town::built("replicas_come_and_go", &[&[2, 1], &[1, 1]]).await else { return };
    // A connection that stays open over all of it.
    let fd = town
        .people
        .sockets
        .connect(&town.namespace(0, 0), town.replica(0, 0).address, (API, 7777).into(), BRIEFLY)
        .await;
    assert!(fd.is_err(), "nobody listens there yet");
    let counted = town.network.counters(&town.router(0)).await.unwrap();
    let whole = town.topology.clone();
    town.topology.stages[0].replicas.remove(1);
    town.topology.stages.remove(1);
    let (gone, gone_router) =
        (whole.installation.replica(whole.stages[0].replicas[1].id), whole.installation.router("ACCOUNT1"));
    town.plan = plan(&town.topology).unwrap();
    let report = town.reconcile().await;
    assert!(report.removed.contains(&gone) && report.removed.contains(&gone_router), "{report:?}");
    assert!(report.made.is_empty() && report.failed.is_empty(), "{report:?}");
    town.control(0, 0).await;
    town.topology = whole;
    town.plan = plan(&town.topology).unwrap();
    let report = town.reconcile().await;
    assert!(report.made.contains(&gone) && !report.made.contains(&town.router(0)), "{report:?}");
    assert!(!report.repair, "it was planned: {report:?}");
    town.controls().await;
    // Its rules were never replaced, so nothing that was counted is lost.
    for (rule, count) in town.network.counters(&town.router(0)).await.unwrap() {
        assert!(count >= counted[&rule], "{rule}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_installations_side_by_side_do_not_meet() {
    let Some(one) = Town::built("two_installations_1", &[&[1, 1]]).await else { return };
    let Some(two) = Town::built("two_installations_2", &[&[1, 1]]).await else { return };
    one.controls().await;
    assert!(one.reconcile().await.is_quiet());
    let empty = Plan { namespaces: [(Plan::OUTSIDE.to_owned(), Default::default())].into(), links: vec![] };
    let report = one.network.reconcile(&empty).await.unwrap();
    assert_eq!(report.removed.len(), one.plan.namespaces.len() - 1, "{report:?}");
    two.controls().await;
    assert!(two.reconcile().await.is_quiet());
    one.network.clear().await.unwrap();
    one.network.clear().await.unwrap();
    assert_eq!(left(&one.topology.installation), Vec::<String>::new());
    let heard = two.people.request(&two.namespace(0, 1), PORT, PATIENCE).await;
    assert!(heard.starts_with(&name(0, 1)), "{heard}");
    assert!(two.reconcile().await.is_quiet());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_dead_run_left_is_found_by_its_name() {
    let Some(town) = Town::built("what_a_dead_run_left", &[&[1, 0]]).await else { return };
    // A half-made namespace, and a link outside whose gateway is gone.
    let installation = &town.topology.installation;
    let (half, link) = (installation.router("GONE"), installation.uplink(&zone(7)));
    std::fs::write(bastide_network::path(&half), "").unwrap();
    by_hand(&town.outside.namespace, &format!("ip link add {link} type veth peer name x"));
    let report = town.reconcile().await;
    assert_eq!(report.removed, [half], "{report:?}");
    assert!(!by_hand(&town.outside.namespace, "ip -o link show").contains(&link));
    town.control(0, 0).await;
    assert!(town.reconcile().await.is_quiet());
}
