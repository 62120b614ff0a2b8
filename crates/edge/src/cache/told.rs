//! What an edge says of its store when the Platform asks: figures, and why a request is answered as it is.
//!
//! A question names a customer by id; what is looked up is keyed with that id, so an answer holds nothing of
//! another customer, whatever else the question says.

use super::{Plot, Store, clock};
use crate::{canonical::canonical, journey::has_credential, view::View};
use bastide_balancer::AppKey;
use bastide_cache::{
    Action, Ask, Because, Counts, Decision, Key, Moment, NotStored, Stored, ask::Kind, decide::decide,
};
use bastide_types::{
    AccessRule, AppName, CustomerId, StageName,
    access::rule_for,
    cache::{
        CacheAbout, CacheDecision, CacheFigures, CacheQuestion, CacheRequest, CacheSays, CacheVariant,
        Ground, NotStoredGround,
    },
    snapshot::App,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use std::sync::Arc;

/// Answers a question.
pub(crate) fn answer(store: &Store, view: &View, question: &CacheQuestion) -> CacheSays {
    match &question.about {
        CacheAbout::Figures => {
            let figures = apps(view).filter(|(customer, ..)| *customer == question.customer);
            let figures = figures.filter_map(|(customer, stage, name, app)| {
                let key = AppKey { customer, stage: stage.clone(), app: app.id };
                let counts = view.plots.get(&key)?.space.tally().counts();
                Some(said(stage, name, counts))
            });
            CacheSays::Figures(figures.collect())
        }
        CacheAbout::Why(request) => CacheSays::Why(why(store, view, question.customer, request)),
    }
}

fn apps(view: &View) -> impl Iterator<Item = (CustomerId, &StageName, &AppName, &App)> {
    let customers = view.snapshot.customers.values();
    let stages = customers.flat_map(|customer| customer.stages.iter().map(|stage| (customer.id, stage)));
    stages.flat_map(|(id, (stage_name, stage))| {
        stage.apps.iter().map(move |(name, app)| (id, stage_name, name, app))
    })
}

fn said(stage: &StageName, app: &AppName, counts: Counts) -> CacheFigures {
    let Counts { hits, misses, validated, collapsed, stale, passed, stored, evicted, bytes } = counts;
    let (stage, app) = (stage.to_string(), app.to_string());
    CacheFigures { stage, app, hits, misses, validated, collapsed, stale, passed, stored, evicted, bytes }
}

fn why(store: &Store, view: &View, customer: CustomerId, asked: &CacheRequest) -> Option<CacheDecision> {
    let (.., name, app) = apps(view)
        .find(|(id, stage, _, app)| *id == customer && **stage == asked.stage && app.id == asked.app)?;
    let key = AppKey { customer, stage: asked.stage.clone(), app: app.id };
    let plot = view.plots.get(&key)?;
    let (path, query) =
        asked.target.split_once('?').map_or((&*asked.target, None), |(path, query)| (path, Some(query)));
    let path = canonical(path).ok()?;
    let below =
        path.strip_prefix(&format!("/{name}")).filter(|rest| rest.is_empty() || rest.starts_with('/'))?;
    let below = if below.is_empty() { "/" } else { below };
    let target = query.map_or_else(|| path.clone(), |query| format!("{path}?{query}"));
    let is_public = *rule_for(&app.routes, below) == AccessRule::Public;
    Some(judge(store, plot, is_public, asked, &target))
}

/// What [`Store::answer`] would decide; nothing is counted, fetched or changed.
fn judge(store: &Store, plot: &Plot, is_public: bool, asked: &CacheRequest, target: &str) -> CacheDecision {
    let (now, method, fields) = (clock::now(), method(&asked.method), fields(&asked.fields));
    let ask = Ask::new(&method, &fields, &plot.site);
    let key = Key::new(&plot.scope, "https", &asked.host, target);
    let slot = store.cache.peek(&key);
    let stored: &[Arc<Stored>] = slot.as_ref().map_or(&[], |slot| &slot.variants);
    let decision = if !is_public || has_credential(&fields) {
        Decision { action: Action::Forward, because: Because::NotCached, chosen: None }
    } else {
        decide(&ask, stored, now)
    };
    let variants = stored.iter().enumerate();
    CacheDecision {
        action: word(decision.action).to_owned(),
        because: ground(decision.because.text(), decision.because.section()),
        stored: variants.map(|(at, own)| variant(own, decision.chosen == Some(at), now)).collect(),
        not_stored: store.cache.ground(&key, now).filter(|_| ask.kind() == Kind::Lookup).map(not_stored),
    }
}

fn variant(stored: &Stored, chosen: bool, now: Moment) -> CacheVariant {
    CacheVariant {
        chosen,
        status: stored.status.as_u16(),
        age_s: stored.age_s(now),
        ttl_s: stored.ttl_s(now),
        bytes: stored.content.held() as u64,
        whole: stored.content.is_whole(),
        vary: stored.variant.names().map(ToString::to_string).collect(),
        groups: stored.groups.clone(),
    }
}

fn not_stored((why, ago_s): (NotStored, u64)) -> NotStoredGround {
    NotStoredGround { because: ground(why.text(), why.section()), ago_s }
}

fn ground(text: &str, section: &str) -> Ground {
    Ground { text: text.to_owned(), section: section.to_owned() }
}

const fn word(action: Action) -> &'static str {
    match action {
        Action::Hit(_) => "hit",
        Action::HitAndRefresh(_) => "hit and refresh",
        Action::Validate(_) => "validate",
        Action::Complete(_) => "complete",
        Action::Forward => "forward",
        Action::Refuse => "refuse",
    }
}

fn method(text: &str) -> Method {
    Method::from_bytes(text.as_bytes()).unwrap_or(Method::GET)
}

/// The fields as a request would have them after the edge has cleaned them.
fn fields(list: &[(String, String)]) -> HeaderMap {
    let mut fields = HeaderMap::new();
    for (name, value) in list {
        if let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), HeaderValue::from_str(value)) {
            fields.append(name, value);
        }
    }
    crate::headers::clean(&mut fields);
    fields
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        front::Fronts,
        view::{Worked, plots},
        waf::force::Sites,
    };
    use bastide_bus::facts::Facts;
    use bastide_cache::{Exchange, Limits, admit::admit};
    use bastide_types::{
        AppId, CustomerName, Digest, Domains, Purges, Route, Snapshot,
        snapshot::{Customer, Issuer, Stage},
    };
    use http::StatusCode;
    use std::collections::BTreeMap;

    fn customer() -> Customer {
        let issuer = Issuer { url: String::new(), keys: vec![], token_epoch: 0 };
        let route = |path: &str, access| Route { path: path.into(), access, acr: None, max_age_s: None };
        let shop = App {
            id: AppId::generate(),
            revision: Digest::from_sha256([7; 32]),
            revision_number: 1,
            routes: vec![route("/", AccessRule::Public), route("/me", AccessRule::Authenticated)],
            waf: None,
            replicas: BTreeMap::new(),
            purges: Purges::default(),
        };
        let apps = BTreeMap::from([(AppName::new("shop").unwrap(), shop)]);
        let waf = Digest::from_sha256([0; 32]);
        let stage = Stage { account: String::new(), issuer: issuer.clone(), waf, site: None, apps };
        Customer {
            id: CustomerId::generate(),
            issuer,
            bans: Vec::new(),
            stages: [(StageName::production(), stage)].into(),
        }
    }

    struct Town {
        store: Arc<Store>,
        view: View,
        acme: CustomerId,
        beta: CustomerId,
    }

    fn town() -> Town {
        let (acme, beta) = (customer(), customer());
        let ids = (acme.id, beta.id);
        let name = |name: &str| CustomerName::new(name).unwrap();
        let snapshot = Arc::new(Snapshot {
            epoch: 1,
            revision: 1,
            made_at: 0,
            domains: Domains::default(),
            customers: [(name("acme"), acme), (name("beta"), beta)].into(),
            hosts: std::collections::BTreeMap::new(),
            waf: BTreeMap::new(),
            kept: Vec::new(),
            schema: bastide_types::snapshot::SCHEMA,
            platform_waf: Digest::from_sha256([0; 32]),
        });
        let store = Store::new(Limits::default(), true);
        let fronts = Arc::<Fronts>::default();
        let plots = plots(&snapshot, &store.cache, &fronts);
        let waf = Sites::under_built_in_rules(&snapshot);
        let view = View::new(
            Worked { snapshot, plots, waf, bans: Arc::default(), fronts, custom: Arc::default() },
            &Facts::default(),
        );
        Town { store, view, acme: ids.0, beta: ids.1 }
    }

    impl Town {
        fn app(&self, customer: CustomerId) -> AppId {
            apps(&self.view).find(|(id, ..)| *id == customer).unwrap().3.id
        }

        fn plot(&self, customer: CustomerId) -> Arc<Plot> {
            let app = self.app(customer);
            self.view.plots[&AppKey { customer, stage: StageName::production(), app }].clone()
        }

        fn store_for_acme(&self, target: &str) {
            let (plot, now, asked) = (self.plot(self.acme), clock::now(), HeaderMap::new());
            let headers: HeaderMap = [
                (http::header::CACHE_CONTROL, HeaderValue::from_static("max-age=60")),
                (http::header::VARY, HeaderValue::from_static("accept-language")),
            ]
            .into_iter()
            .collect();
            let exchange = Exchange { requested: now, received: now, if_range: false };
            let ask = Ask::new(&Method::GET, &asked, &plot.site);
            let draft = admit(&plot.site, &ask, StatusCode::OK, &headers, exchange).unwrap();
            let key = Key::new(&plot.scope, "https", "acme.apps.localhost:8443", target);
            let ticket = self.store.cache.begin(&key);
            let stored = draft.finish("body".into(), None).unwrap();
            self.store.cache.store(&plot.space, &key, stored, ticket).unwrap();
        }

        fn ask(&self, customer: CustomerId, app: AppId, target: &str) -> Option<CacheDecision> {
            self.ask_with(customer, app, target, &[])
        }

        fn ask_with(
            &self,
            customer: CustomerId,
            app: AppId,
            target: &str,
            fields: &[(&str, &str)],
        ) -> Option<CacheDecision> {
            let fields = fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
            let request = CacheRequest {
                stage: StageName::production(),
                app,
                method: "GET".into(),
                host: "acme.apps.localhost:8443".into(),
                target: target.into(),
                fields: fields.collect(),
            };
            let question = CacheQuestion { customer, about: CacheAbout::Why(request) };
            match answer(&self.store, &self.view, &question) {
                CacheSays::Why(decision) => decision,
                CacheSays::Figures(_) => panic!("that was not asked"),
            }
        }
    }

    #[test]
    fn a_decision_is_explained_with_its_ground() {
        let town = town();
        let (acme, app) = (town.acme, town.app(town.acme));
        let check = |target: &str, fields: &[(&str, &str)], action: &str, section: &str, stored: usize| {
            let decision = town.ask_with(acme, app, target, fields).unwrap();
            let found = (&*decision.action, &*decision.because.section, decision.stored.len());
            assert_eq!(found, (action, section, stored), "{target} {fields:?}");
            decision
        };
        check("/shop/a", &[], "forward", "RFC 9111 §4", 0);
        town.store_for_acme("/shop/a");
        let hit = check("/shop/./a", &[], "hit", "RFC 9111 §4.2", 1);
        let stored = &hit.stored[0];
        assert_eq!((stored.chosen, stored.status, stored.bytes, stored.whole), (true, 200, 4, true));
        assert_eq!(stored.vary, ["accept-language"]);
        check("/shop/a", &[("Accept-Language", "fr")], "forward", "RFC 9111 §4.1", 1);
        check("/shop/a", &[("Authorization", "x")], "forward", "site policy", 1);
        check("/shop/me/a", &[], "forward", "site policy", 0);
        let key = Key::new(&town.plot(acme).scope, "https", "acme.apps.localhost:8443", "/shop/b");
        town.store.cache.note_ground(&key, NotStored::NoStore, clock::now());
        let not_stored = check("/shop/b", &[], "forward", "RFC 9111 §4", 0).not_stored.unwrap();
        assert_eq!(not_stored.because.section, "RFC 9111 §5.2.2.5");
    }

    #[test]
    fn nothing_of_another_customer_is_told_whatever_is_asked() {
        let town = town();
        town.store_for_acme("/shop/a");
        assert_eq!(town.ask(town.acme, town.app(town.acme), "/shop/a").unwrap().action, "hit");
        assert_eq!(town.ask(town.beta, town.app(town.acme), "/shop/a"), None);
        // Its own app, with the host and target of the other one.
        let own = town.ask(town.beta, town.app(town.beta), "/shop/a").unwrap();
        assert_eq!((&*own.action, own.stored.len(), own.not_stored), ("forward", 0, None));
        assert_eq!(town.ask(town.acme, town.app(town.acme), "/other/a"), None);
        for (customer, bytes) in [(town.acme, true), (town.beta, false)] {
            let question = CacheQuestion { customer, about: CacheAbout::Figures };
            let CacheSays::Figures(figures) = answer(&town.store, &town.view, &question) else { panic!() };
            assert_eq!((figures.len(), figures[0].bytes > 0), (1, bytes));
        }
    }
}
