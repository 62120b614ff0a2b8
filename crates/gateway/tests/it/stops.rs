//! The stops that tracing names are those that `docs/life-of-a-request.md` lists, in that order.

use crate::world::{SHOP, World};
use bastide_gateway::STOPS;
use std::cell::RefCell;
use tracing::{Event, Metadata, field::Visit, span};

thread_local! {
    // Each test has its own thread and everything that it starts runs there, so tests do not see each other.
    static STOPS_SEEN: RefCell<Vec<&'static str>> = const { RefCell::new(Vec::new()) };
    static ACCESS: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// Remembers the names of our events and the fields of the access log, for the thread on which they happen.
struct Watcher;

struct Fields(String);

impl Visit for Fields {
    fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
        use std::fmt::Write;
        let _ = write!(self.0, "{}={value:?} ", field.name());
    }
}

impl tracing::Subscriber for Watcher {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.name().starts_with("gateway.") || metadata.target() == "access"
    }
    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }
    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn event(&self, event: &Event<'_>) {
        if event.metadata().target() == "access" {
            let mut fields = Fields(String::new());
            event.record(&mut fields);
            ACCESS.with_borrow_mut(|lines| lines.push(fields.0));
        } else {
            STOPS_SEEN.with_borrow_mut(|stops| stops.push(event.metadata().name()));
        }
    }
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}

#[tokio::test]
async fn a_request_passes_the_documented_stops_and_leaves_a_receipt_without_secrets() {
    // For the whole process: what a thread-local one hears depends on which threads came first.
    tracing::subscriber::set_global_default(Watcher).unwrap();
    let world = World::new().await;
    let token = world.keys.shop_token(|_| {});
    assert_eq!(world.get_as(&format!("{SHOP}/me?secret=1"), &token).await.status, 200);
    assert_eq!(STOPS_SEEN.take(), STOPS);
    let lines = ACCESS.take();
    let line = &lines[0];
    for part in [
        "customer=\"demo\"",
        "stage=\"production\"",
        "app=\"shop\"",
        "zone=\"a\"",
        "subject=\"ann\"",
        "decision=\"pass\"",
        "status=200",
        "replica=",
        "ms=",
        "request=",
    ] {
        assert!(line.contains(part), "{part} in {line}");
    }
    assert!(!line.contains("secret") && !line.contains(&token));
}

#[test]
fn the_document_lists_the_stops_in_their_order() {
    let text = include_str!("../../../../docs/life-of-a-request.md");
    let listed: Vec<&str> = text
        .lines()
        .filter_map(|line| line.trim_start().split_once(". `gateway."))
        .filter_map(|(_, rest)| rest.split_once('`'))
        .map(|(stop, _)| stop)
        .collect();
    let named: Vec<&str> = STOPS.iter().filter_map(|stop| stop.strip_prefix("gateway.")).collect();
    assert_eq!(listed, named);
}
