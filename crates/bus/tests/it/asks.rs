//! Questions of the Platform to all edges.

use crate::house::*;
use bastide_bus::{Bus, BusError, ask};
use bastide_types::{
    CustomerId,
    cache::{CacheAbout, CacheAnswer, CacheFigures, CacheQuestion, CacheSays},
};
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

fn says(edge: &Bus, name: &'static str, stop: &CancellationToken) {
    ask::answer(edge, stop.clone(), move |question| {
        let figures = CacheFigures { app: question.customer.to_string(), ..CacheFigures::default() };
        CacheAnswer { edge: name.into(), says: CacheSays::Figures(vec![figures]) }
    });
}

#[tokio::test]
async fn every_edge_answers_for_itself_and_nobody_but_the_platform_can_ask() {
    let house = House::new();
    let platform = house.platform(&Arc::new(Fake::default())).await;
    let question = CacheQuestion { customer: CustomerId::generate(), about: CacheAbout::Figures };
    let none = ask::edges(platform.bus.bus(), &question).await;
    assert!(matches!(none, Err(BusError::NoResponders(_))), "{none:?}");

    let (one, two) = (house.edge("edge-1").await, house.edge("edge-2").await);
    let stop = CancellationToken::new();
    says(&one, "one", &stop);
    says(&two, "two", &stop);
    let mut names = Vec::new();
    // The subscriptions are under way.
    while names.len() < 2 {
        let answers = ask::edges(platform.bus.bus(), &question).await.unwrap_or_default();
        for answer in &answers {
            let CacheSays::Figures(figures) = &answer.says else { panic!("{answer:?}") };
            assert_eq!(figures[0].app, question.customer.to_string());
        }
        names = answers.into_iter().map(|answer| answer.edge).collect();
        names.sort();
    }
    assert_eq!(names, ["one", "two"]);

    let (_, agent) = house.stage(&platform).await;
    for other in [&agent, &one] {
        let denied = ask::edges(other, &question).await;
        assert!(denied.is_err(), "{denied:?}");
    }
    stop.cancel();
}
