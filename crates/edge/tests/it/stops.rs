//! The document of a request's life names the stops that the code has, in their order.

use bastide_edge::STOPS;

#[test]
fn the_document_names_the_stops_of_the_edge_in_order() {
    let document = include_str!("../../../../docs/life-of-a-request.md");
    let named: Vec<&str> = document
        .lines()
        .filter_map(|line| line.split_once(". `edge.")?.1.split_once('`'))
        .map(|(stop, _)| stop)
        .collect();
    let own: Vec<&str> = STOPS.iter().map(|stop| stop.trim_start_matches("edge.")).collect();
    assert_eq!(named, own);
}

#[test]
fn every_stop_is_an_event_in_the_code() {
    let code = [
        include_str!("../../src/journey.rs"),
        include_str!("../../src/gateways.rs"),
        include_str!("../../src/waf/mod.rs"),
    ]
    .concat();
    for stop in STOPS {
        assert!(code.contains(&format!("name: \"{stop}\"")), "{stop}");
    }
}

#[test]
fn the_document_of_settings_shows_the_defaults() {
    let document = include_str!("../../../../docs/edge-settings.md");
    let (_, rest) = document.split_once("```toml\n").unwrap();
    let (shown, _) = rest.split_once("```").unwrap();
    let read: bastide_edge::config::Settings = toml::from_str(shown).unwrap();
    assert_eq!(read, bastide_edge::config::Settings::default());
    let all = serde_json::to_value(&read).unwrap();
    for key in all.as_object().unwrap().keys().chain(all["limits"].as_object().unwrap().keys()) {
        assert!(shown.contains(key.as_str()), "{key} is not shown");
    }
    for wrong in ["unknown = 1", "[limits]\nhead_bytes_max = 0", "forwarded_from = [\"a\"]"] {
        assert!(toml::from_str::<bastide_edge::config::Settings>(wrong).is_err(), "{wrong}");
    }
}
