//! Brokers that operators run: three servers of a cluster.

use crate::hostile::serving;
use crate::house::*;
use bastide_bus::{Bus, Config, account::StageAccount, facts as bus_facts, snapshot};
use bastide_types::Role;
use std::net::TcpListener;
use std::process::Child;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// Servers, killed when dropped.
struct Servers(Vec<Child>);

impl Servers {
    fn kill(&mut self, number: usize) {
        let _ = self.0[number].kill();
        let _ = self.0[number].wait();
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        (0..self.0.len()).for_each(|number| self.kill(number));
    }
}

/// Ports that nobody uses now, all different.
fn ports<const N: usize>() -> [u16; N] {
    let held = [(); N].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    held.map(|listener| listener.local_addr().unwrap().port())
}

fn tls(house: &House) -> String {
    let path = |name: &str| house.path(name).display().to_string();
    format!("cert_file: \"{}\", key_file: \"{}\", timeout: 5", path("bus.pem"), path("bus.key"))
}

/// What an operator writes for each server, as docs/bus.md shows it, and what Bastide adds.
fn cluster(house: &House, clients: [u16; 3], leaf_ports: [u16; 3]) -> Servers {
    let (routes, tls) = (ports::<3>(), tls(house));
    let ca = house.path("ca.pem").display().to_string();
    let all = routes.map(|port| format!("\"nats-route://127.0.0.1:{port}\"")).join(", ");
    let start = |number: usize| {
        let dir = house.path(&format!("accounts-{number}"));
        std::fs::create_dir(&dir).unwrap();
        let conf = format!(
            "listen: \"127.0.0.1:{client}\"\nserver_name: \"s{number}\"\nmax_payload: 1048576\n\
             ping_interval: \"5s\"\nping_max: 2\nwrite_deadline: \"5s\"\ntls {{ {tls} }}\n\
             cluster {{ name: \"bastide\", listen: \"127.0.0.1:{route}\", no_advertise: true, routes: [{all}], \
             tls {{ {tls}, ca_file: \"{ca}\", verify: true }} }}\n\
             leafnodes {{ listen: \"127.0.0.1:{leaf}\", no_advertise: true, tls {{ {tls} }} }}\n\
             {authority}",
            client = clients[number],
            leaf = leaf_ports[number],
            route = routes[number],
            authority = house.material.issuers.authority_conf(&dir).unwrap(),
        );
        let file = house.path(&format!("s{number}.conf"));
        std::fs::write(&file, conf).unwrap();
        run_broker(&file, &house.path("nats.log"))
    };
    Servers((0..3).map(start).collect())
}

async fn say_until(agent: &Bus, sequence: u64, fake: &Fake) {
    // What is on its way when a server dies is lost, and asked again.
    let each = std::time::Duration::from_secs(2);
    let said = async { while bus_facts::report(agent, &facts(1, sequence, 1), each).await.is_err() {} };
    tokio::time::timeout(LONG, said).await.unwrap();
    assert!(fake.facts.lock().unwrap().iter().any(|(_, facts)| facts.sequence == sequence));
}

#[tokio::test]
async fn three_servers_are_one_bus_and_one_of_them_may_die() {
    let mut house = House::silent();
    let clients = ports::<3>();
    let mut servers = cluster(&house, clients, ports());
    let url = |port: u16| format!("tls://127.0.0.1:{port}");
    house.url = Some(clients.map(url).join(","));

    let (fake, key) = (Arc::new(Fake::default()), signing_key());
    let platform = house.platform(&fake).await;
    let (stage, agent) = house.stage(&platform).await;
    // One that knows only the third server, and an edge that knows only the second.
    let third = connected(&Config { url: url(clients[2]), ..house.agent(&stage, 3600) }).await;
    let edge = connected(&Config { url: url(clients[1]), ..house.role(Role::Edge, "edge-1") }).await;
    let stop = CancellationToken::new();
    let offer = |revision| {
        let snapshot = serving(revision);
        let (head, bytes) = snapshot::serialize(&snapshot, &key.sign(&snapshot).unwrap()).unwrap();
        fake.put(bytes, None);
        *fake.head.lock().unwrap() = Some(head);
    };
    offer(1);
    let dir = house.dir.path().to_owned();
    let mut seen = snapshot::follow(&edge, &dir, key.verify_key(), snapshot::as_it_is, stop.clone());
    let told = bus_facts::follow(&edge, &dir, stop.clone());
    until(&mut seen, |found| found.as_ref().is_some_and(|found| found.revision == 1)).await;
    say_until(&agent, 1, &fake).await;
    say_until(&third, 2, &fake).await;
    let heard = async {
        while !told.borrow().contains_key(&stage.account) {
            bus_facts::publish(&third, &facts(1, 3, 1)).await.unwrap();
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(LONG, heard).await.unwrap();

    servers.kill(0);
    offer(2);
    let hinted = async {
        while !seen.borrow_and_update().as_ref().is_some_and(|found| found.revision == 2) {
            let _ = platform.bus.hint_snapshot(1, 2).await;
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(LONG, hinted).await.unwrap();
    say_until(&agent, 4, &fake).await;
    assert_eq!(edge.counters().violations + agent.counters().violations, 0);
    stop.cancel();
}

/// What the operator of another site writes: a broker that goes out to the cluster for one stage, with the credential of the
/// stage's agent there.
fn leaf(house: &House, stage: &StageAccount, client: u16, cluster: [u16; 3]) -> Child {
    let issuers = &house.material.issuers;
    let (sys, account) = (&issuers.accounts.sys, &stage.account);
    let known = std::fs::read_to_string(house.path(&format!("accounts-0/{account}.jwt"))).unwrap();
    let agent = house.agent(stage, 3600);
    let (jwt, seed) = (agent.jwt.unwrap(), std::fs::read_to_string(agent.seed_file.unwrap()).unwrap());
    let creds = house.path("leaf.creds");
    let text = format!(
        "-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n\n\
         -----BEGIN USER NKEY SEED-----\n{}\n------END USER NKEY SEED------\n",
        seed.trim()
    );
    std::fs::write(&creds, text).unwrap();
    let urls = cluster.map(|port| format!("\"tls://127.0.0.1:{port}\"")).join(", ");
    let conf = format!(
        "listen: \"127.0.0.1:{client}\"\nserver_name: \"leaf\"\nmax_payload: 1048576\ntls {{ {tls} }}\n\
         operator: \"{operator}\"\nsystem_account: \"{sys}\"\nresolver: MEMORY\n\
         resolver_preload {{ {sys}: \"{sys_jwt}\", {account}: \"{known}\" }}\n\
         leafnodes {{ reconnect: \"1s\", remotes: [ {{ urls: [{urls}], account: \"{account}\", \
         credentials: \"{creds}\", tls {{ ca_file: \"{ca}\" }} }} ] }}\n",
        tls = tls(house),
        operator = issuers.operator_jwt,
        sys_jwt = issuers.account_jwts[sys],
        known = known.trim(),
        creds = creds.display(),
        ca = house.path("ca.pem").display(),
    );
    let file = house.path("leaf.conf");
    std::fs::write(&file, conf).unwrap();
    run_broker(&file, &house.path("nats.log"))
}

#[tokio::test]
async fn an_agent_behind_a_leaf_node_is_of_its_stage_whichever_server_the_leaf_goes_to() {
    let mut house = House::silent();
    let (clients, leaf_ports) = (ports::<3>(), ports::<3>());
    let mut servers = cluster(&house, clients, leaf_ports);
    let url = |port: u16| format!("tls://127.0.0.1:{port}");
    house.url = Some(clients.map(url).join(","));
    let fake = Arc::new(Fake::default());
    let platform = house.platform(&fake).await;
    let (stage, direct) = house.stage(&platform).await;
    drop(direct);
    let edge = connected(&house.role(Role::Edge, "edge-1")).await;
    let stop = CancellationToken::new();
    let told = bus_facts::follow(&edge, house.dir.path(), stop.clone());

    let [client] = ports::<1>();
    servers.0.push(leaf(&house, &stage, client, leaf_ports));
    let agent = connected(&Config { url: url(client), ..house.agent(&stage, 3600) }).await;
    let heard = async |sequence: u64| {
        say_until(&agent, sequence, &fake).await;
        let heard = async {
            while told.borrow().get(&stage.account).is_none_or(|known| known.sequence < sequence) {
                let _ = bus_facts::publish(&agent, &facts(1, sequence, sequence)).await;
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(LONG, heard).await.unwrap();
    };
    heard(1).await;
    // Whichever the leaf went to: with two of three gone it went elsewhere at least once.
    servers.kill(0);
    heard(2).await;
    servers.kill(1);
    heard(3).await;
    servers.kill(3);
    servers.0.push(leaf(&house, &stage, client, leaf_ports));
    heard(4).await;
    assert_eq!(agent.counters().violations, 0);
    stop.cancel();
}
