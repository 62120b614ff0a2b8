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
        include_str!("../../src/waf.rs"),
    ]
    .concat();
    for stop in STOPS {
        assert!(code.contains(&format!("name: \"{stop}\"")), "{stop}");
    }
}
