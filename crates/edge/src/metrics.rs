//! Figures for a scraper, in the Prometheus text format: on an address of its own that only the operator's network
//! should reach, since it names all customers' apps.

use crate::{bans, cache::Store, view::View};
use bastide_cache::Counts;
use bastide_proxy::{Body, Limits, Listener, RefusedHead, Request, Response, Service, serve};
use http::{HeaderValue, Method, StatusCode, header};
use std::{fmt::Write, net::TcpListener, sync::Arc};
use tokio_util::sync::CancellationToken;

/// Most apps that have lines of their own; the others are one, with empty labels.
const APPS_MAX: usize = 2000;
const MEDIA_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// An app's labels and what is counted of it.
pub(crate) struct Line {
    pub(crate) labels: String,
    pub(crate) counts: Counts,
}

/// Who gives the lines when a scraper asks.
pub(crate) type Lines = Arc<dyn Fn() -> Vec<Line> + Send + Sync>;

/// Serves figures until `stop`, or until another edge does.
pub(crate) async fn serve_at(
    tcp: TcpListener,
    figures: Figures,
    leave: CancellationToken,
    stop: CancellationToken,
) {
    let limits = Limits { connections_max: 16, ..Limits::default() };
    let listener = Listener { leave, ..Listener::new(tcp, None, limits) };
    if let Err(error) = serve(listener, Arc::new(figures), stop).await {
        tracing::error!(%error, "figures are not served");
    }
}

/// The lines of all apps of a view.
pub(crate) fn of_apps(view: &View) -> Vec<Line> {
    let (mut lines, mut others) = (Vec::new(), None::<Counts>);
    for (customer_name, customer) in &view.snapshot.customers {
        for (stage_name, stage) in &customer.stages {
            for (app_name, app) in &stage.apps {
                let key = (customer.id, stage_name.clone(), app.id);
                let (customer, stage, app) = key;
                let key = bastide_balancer::AppKey { customer, stage, app };
                let Some(plot) = view.plots.get(&key) else { continue };
                let counts = plot.space.tally().counts();
                if lines.len() < APPS_MAX {
                    // None of the three names can hold what would need an escape.
                    let labels =
                        format!("customer=\"{customer_name}\",stage=\"{stage_name}\",app=\"{app_name}\"");
                    lines.push(Line { labels, counts });
                } else {
                    others = Some(others.unwrap_or_default() + counts);
                }
            }
        }
    }
    let others = others.map(|counts| Line { labels: "customer=\"\",stage=\"\",app=\"\"".into(), counts });
    lines.extend(others);
    lines
}

/// What a scraper gets.
pub(crate) struct Figures {
    store: Arc<Store>,
    lines: Lines,
    banned: Option<Arc<bans::Counts>>,
}

impl Figures {
    pub(crate) fn new(store: Arc<Store>, lines: Lines, banned: Option<Arc<bans::Counts>>) -> Self {
        Self { store, lines, banned }
    }
}

impl Service for Figures {
    async fn call(&self, request: Request) -> Response {
        let is_asked = request.method() == Method::GET && request.uri().path() == "/metrics";
        if !is_asked {
            return answer(StatusCode::NOT_FOUND, "GET /metrics\n".into());
        }
        let mut text = text(&(self.lines)(), self.store.cache.figures());
        text.extend(self.banned.iter().map(|banned| banned.text()));
        answer(StatusCode::OK, text)
    }

    async fn refuse(&self, head: RefusedHead) -> Response {
        answer(head.status, format!("{}\n", head.reason))
    }
}

fn answer(status: StatusCode, text: String) -> Response {
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
    response
}

/// What a counter is called, what it means, and where it stands.
type Counter = (&'static str, &'static str, fn(&Counts) -> u64);

const COUNTERS: [Counter; 8] = [
    ("hits", "Requests answered from the store without asking anybody", |c| c.hits),
    ("misses", "Requests that went on, for an answer or to validate a stored one", |c| c.misses),
    ("validated", "Misses for which the stored answer was said to hold", |c| c.validated),
    ("collapsed", "Requests that shared the answer of another one on its way", |c| c.collapsed),
    ("stale", "Stale answers of all kinds", |c| c.stale),
    ("passed", "Requests that the cache has no part in", |c| c.passed),
    ("stores", "Responses that were stored", |c| c.stored),
    ("evictions", "Addresses that had to leave for others", |c| c.evicted),
];

fn text(lines: &[Line], all: bastide_cache::store::Figures) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    for (name, help, read) in COUNTERS {
        let _ = writeln!(text, "# HELP bastide_cache_{name}_total {help}.");
        let _ = writeln!(text, "# TYPE bastide_cache_{name}_total counter");
        for Line { labels, counts } in lines {
            let _ = writeln!(text, "bastide_cache_{name}_total{{{labels}}} {}", read(counts));
        }
    }
    let _ = writeln!(text, "# HELP bastide_cache_bytes Bytes stored of an app.");
    let _ = writeln!(text, "# TYPE bastide_cache_bytes gauge");
    for Line { labels, counts } in lines {
        let _ = writeln!(text, "bastide_cache_bytes{{{labels}}} {}", counts.bytes);
    }
    for (name, help, value) in [
        ("held_bytes", "Bytes stored in all", all.bytes),
        ("held_addresses", "Addresses stored in all", all.addresses),
    ] {
        let _ = writeln!(text, "# HELP bastide_cache_{name} {help}.");
        let _ = writeln!(text, "# TYPE bastide_cache_{name} gauge");
        let _ = writeln!(text, "bastide_cache_{name} {value}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_figure_has_a_type_and_a_line_for_each_app() {
        let counts = Counts { hits: 7, bytes: 9, ..Counts::default() };
        let lines = [Line { labels: "app=\"shop\"".into(), counts }];
        let text = text(&lines, bastide_cache::store::Figures::default());
        assert!(text.contains("\nbastide_cache_hits_total{app=\"shop\"} 7\n"), "{text}");
        assert!(text.contains("\nbastide_cache_bytes{app=\"shop\"} 9\n"), "{text}");
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let name = line.split(['{', ' ']).next().unwrap();
            assert!(text.contains(&format!("# TYPE {name} ")), "{line}");
        }
    }
}
