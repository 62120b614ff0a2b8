//! What the hosts of a stage do by themselves, as its customer wants it: pages, maintenance, redirects, security fields.

mod fields;

use bastide_proxy::{Body, Response};
use bastide_types::{
    AppName, CustomerId, Domains, Problem, SiteDocument, SiteSettings, Snapshot, StageName,
    site::{Asked, PageKind, RedirectTable},
};
use fields::Fields;
use http::{HeaderValue, StatusCode, Uri, header};
use std::{collections::HashMap, net::IpAddr, sync::Arc};

/// The settings of one stage, in force.
#[derive(Default)]
pub(crate) struct Front {
    settings: SiteSettings,
    redirects: RedirectTable,
    pub(crate) fields: Fields,
}

/// The settings of all stages. Stages that have none share the defaults.
#[derive(Default)]
pub(crate) struct Fronts {
    stages: HashMap<CustomerId, HashMap<StageName, Kept>>,
    default: Arc<Front>,
}

struct Kept {
    /// What it was, or should have been, made of.
    document: SiteDocument,
    front: Arc<Front>,
}

impl Fronts {
    /// The settings of a Snapshot, read. Those that cannot be leave the last good ones of their stage in place, and touch
    /// no other stage.
    pub(crate) fn new(snapshot: &Snapshot, before: Option<&Self>) -> Self {
        let mut made = Self::default();
        for (customer_name, customer) in &snapshot.customers {
            for (stage_name, stage) in &customer.stages {
                let Some(document) = &stage.site else { continue };
                let last = before.and_then(|before| before.stages.get(&customer.id)?.get(stage_name));
                let front = match last {
                    Some(kept) if kept.document == *document => kept.front.clone(),
                    _ => document.read().map(|settings| Arc::new(Front::new(settings))).unwrap_or_else(
                        |fault| {
                            tracing::error!(
                                customer = %customer_name, stage = %stage_name, %fault,
                                "the settings of a site cannot be read; the last good ones stay in force"
                            );
                            last.map_or_else(Arc::default, |kept| kept.front.clone())
                        },
                    ),
                };
                let kept = Kept { document: document.clone(), front };
                made.stages.entry(customer.id).or_default().insert(stage_name.clone(), kept);
            }
        }
        made
    }

    /// What holds for a stage.
    pub(crate) fn of(&self, customer: CustomerId, stage: &StageName) -> &Arc<Front> {
        let own = self.stages.get(&customer).and_then(|stages| stages.get(stage));
        own.map_or(&self.default, |kept| &kept.front)
    }
}

/// Where a request is sent: status and `Location`.
pub(crate) type Sent = (u16, String);

impl Front {
    fn new(settings: SiteSettings) -> Self {
        let redirects = RedirectTable::new(&settings.redirects);
        Self { redirects, fields: Fields::new(&settings.fields), settings }
    }

    /// Whether it has anything to say where there is no app.
    pub(crate) fn speaks_for_nothing(&self) -> bool {
        !self.redirects.is_empty()
            || self.settings.maintenance.stage.is_some()
            || self.settings.pages.contains_key(&PageKind::Status(404))
    }

    /// For how many seconds an app, or the rest of the stage, is closed for a client.
    pub(crate) fn closed(&self, app: Option<&AppName>, client: IpAddr) -> Option<u32> {
        self.settings.maintenance.closes(app, client).map(|closure| closure.retry_after_s)
    }

    /// Where a request is sent. `seen` is its target as the client sees it, with a canonical path.
    pub(crate) fn redirect(&self, domains: &Domains, host: &str, seen: &Uri) -> Option<Sent> {
        self.redirects.find(&Asked { domains, host, path: seen.path(), query: seen.query() })
    }

    /// Puts the customer's page, if there is one for this refusal, in the place of the built-in one.
    pub(crate) fn dress(&self, problem: &Problem, is_custom: bool, response: Response) -> Response {
        let pages = &self.settings.pages;
        let page = pages.get(&PageKind::of(problem)).or_else(|| pages.get(&PageKind::Status(problem.status)));
        let Some(page) = page else { return response };
        let (mut head, _) = response.into_parts();
        for of_the_other in [
            header::CONTENT_LENGTH,
            header::CONTENT_ENCODING,
            header::CONTENT_SECURITY_POLICY,
            header::ETAG,
            header::LAST_MODIFIED,
        ] {
            head.headers.remove(of_the_other);
        }
        head.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
        head.headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        self.fields.add(is_custom, &mut head.headers);
        Response::from_parts(head, Body::from(page.filled(problem)))
    }

    /// The answer to a request that is sent elsewhere.
    pub(crate) fn sent(&self, (status, location): &Sent, is_custom: bool) -> Option<Response> {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::from_u16(*status).ok()?;
        let headers = response.headers_mut();
        headers.insert(header::LOCATION, HeaderValue::from_str(location).ok()?);
        // Rules change; who keeps an answer asks again.
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        self.fields.add(is_custom, headers);
        Some(response)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bastide_types::{Code, CustomerName, Digest, snapshot};
    use std::collections::BTreeMap;

    fn snapshot(sites: &[(&str, &str)]) -> Snapshot {
        let issuer = snapshot::Issuer { url: String::new(), keys: vec![], token_epoch: 0 };
        let stage = |site: &str| snapshot::Stage {
            account: String::new(),
            issuer: issuer.clone(),
            waf: Digest::from_sha256([0; 32]),
            site: SiteDocument::from_json(site),
            apps: BTreeMap::new(),
        };
        let customer = |(n, (name, site)): (usize, &(&str, &str))| {
            let id = format!("01a20de4-d54c-7659-9f5b-f4ec6569bb3{n}").parse().unwrap();
            let stages = [(StageName::production(), stage(site))].into();
            (
                CustomerName::new(*name).unwrap(),
                snapshot::Customer { id, issuer: issuer.clone(), bans: Vec::new(), stages },
            )
        };
        Snapshot {
            epoch: 1,
            revision: 1,
            made_at: 0,
            domains: Domains::default(),
            customers: sites.iter().enumerate().map(customer).collect(),
            hosts: BTreeMap::new(),
            waf: BTreeMap::new(),
            kept: Vec::new(),
            schema: bastide_types::snapshot::SCHEMA,
            platform_waf: Digest::from_sha256([0; 32]),
        }
    }

    fn location(fronts: &Fronts, snapshot: &Snapshot, name: &str) -> Option<String> {
        let customer = &snapshot.customers[&CustomerName::new(name).unwrap()];
        let front = fronts.of(customer.id, &StageName::production());
        front.redirect(&snapshot.domains, "h", &Uri::from_static("/a")).map(|(_, location)| location)
    }

    #[test]
    fn settings_that_cannot_be_read_leave_the_last_good_ones_and_touch_nobody_else() {
        let good = |to: &str| format!(r#"{{"redirects":[{{"from":"/a","to":"{to}"}}]}}"#);
        let first = snapshot(&[("acme", &good("/one")), ("beta", &good("/two"))]);
        let before = Fronts::new(&first, None);
        assert_eq!(location(&before, &first, "acme").as_deref(), Some("/one"));
        for bad in [
            r#"{"redirects":7}"#,
            r#"{"of":"tomorrow"}"#,
            r#"{"redirects":[{"from":"/a","to":"//x"}]}"#,
            "[]",
        ] {
            let second = snapshot(&[("acme", bad), ("beta", &good("/three"))]);
            let after = Fronts::new(&second, Some(&before));
            assert_eq!(location(&after, &second, "acme").as_deref(), Some("/one"), "{bad}");
            assert_eq!(location(&after, &second, "beta").as_deref(), Some("/three"), "{bad}");
            let again = Fronts::new(&second, Some(&after));
            assert_eq!(location(&again, &second, "acme").as_deref(), Some("/one"), "{bad}");
            let alone = Fronts::new(&second, None);
            assert_eq!(location(&alone, &second, "acme"), None, "{bad}");
            assert_eq!(location(&alone, &second, "beta").as_deref(), Some("/three"), "{bad}");
        }
        let gone = snapshot(&[("acme", "null"), ("beta", &good("/two"))]);
        assert_eq!(location(&Fronts::new(&gone, None), &gone, "acme"), None);
    }

    #[test]
    fn a_page_for_maintenance_comes_before_that_of_its_status() {
        let shown = |pages: &str| {
            let settings =
                SiteDocument::from_json(&format!(r#"{{"pages":{pages}}}"#)).unwrap().read().unwrap();
            let response =
                Front::new(settings).dress(&Code::Maintenance.problem(), false, Response::new(Body::empty()));
            response.headers().get(header::CONTENT_TYPE).is_some()
        };
        assert!(shown(r#"{"maintenance":"m"}"#) && shown(r#"{"503":"s"}"#));
        assert!(!shown(r#"{"404":"n"}"#));
    }
}
