//! A small town for the tests of Snapshots: three customers, one with a domain of its own.

use super::{App, CustomDomain, Customer, Issuer, Snapshot, Stage, VerifyingKey};
use crate::{
    AccessRule, AppId, AppName, Ban, CustomerId, CustomerName, Digest, DomainName, Domains, Purges,
    ReplicaId, Route, StageName, WafPolicy, ZoneName,
};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};

pub(super) fn name(text: &str) -> CustomerName {
    CustomerName::new(text).unwrap()
}

pub(super) fn app_name(text: &str) -> AppName {
    AppName::new(text).unwrap()
}

pub(super) fn domain(text: &str) -> DomainName {
    DomainName::new(text).unwrap()
}

pub(super) fn route(path: &str, access: AccessRule) -> Route {
    Route { path: path.into(), access, acr: None, max_age_s: None }
}

pub(super) fn key(kid: &str) -> VerifyingKey {
    VerifyingKey { kid: kid.into(), x: BASE64_URL_SAFE_NO_PAD.encode([7; 32]) }
}

fn issuer(url: String) -> Issuer {
    Issuer { url, keys: vec![key("k1"), key("k2")], token_epoch: 3 }
}

fn app(number: u8) -> App {
    App {
        id: AppId::generate(),
        revision: Digest::from_sha256([number; 32]),
        revision_number: u32::from(number),
        routes: vec![
            route("/", AccessRule::Public),
            route("/admin", AccessRule::Roles(vec!["admin".into()])),
        ],
        waf: Some(Digest::from_sha256([1; 32])),
        replicas: [(ReplicaId::generate(), ZoneName::new("a").unwrap())].into(),
        purges: Purges::default(),
    }
}

fn customer(domains: &Domains, label: &str) -> Customer {
    let stages = [StageName::test(), StageName::production()].map(|stage| {
        let apps = [(app_name("shop"), app(1)), (app_name("blog"), app(2))].into();
        let issuer = issuer(domains.stage_issuer(&name(label), &stage));
        let account = format!("A-{label}-{stage}");
        (stage, Stage { account, issuer, waf: Digest::from_sha256([0; 32]), site: None, apps })
    });
    let issuer = issuer(domains.member_issuer(&name(label)));
    let bans = vec![Ban { net: "203.0.113.0/24".parse().unwrap(), until: Some(7) }];
    Customer { id: CustomerId::generate(), issuer, bans, stages: stages.into() }
}

/// `acme`, `beta` and `gamma`; `www.acme.example` leads to Production of acme, `www.beta.example` to the shop of beta.
pub(super) fn town() -> Snapshot {
    let domains = Domains::default();
    let customers = ["acme", "beta", "gamma"].map(|label| (name(label), customer(&domains, label)));
    let host = |label: &str, root: Option<&str>| CustomDomain {
        customer: name(label),
        stage: StageName::production(),
        root: root.map(app_name),
        certificate: None,
        challenges: [("token".to_owned(), "answer".to_owned())].into(),
    };
    Snapshot {
        epoch: 1,
        revision: 7,
        made_at: 0,
        customers: customers.into(),
        kept: Vec::new(),
        schema: crate::snapshot::SCHEMA,
        hosts: [
            (domain("www.acme.example"), host("acme", None)),
            (domain("www.beta.example"), host("beta", Some("shop"))),
        ]
        .into(),
        waf: [0, 1].map(|number| (Digest::from_sha256([number; 32]), WafPolicy::default())).into(),
        platform_waf: Digest::from_sha256([0; 32]),
        domains,
    }
}
