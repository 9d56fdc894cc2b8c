//! Everything that can happen to the ownership of connections, within bounds.

use ferry_tests::model::{Bounds, Found, search};

/// Within these nothing at all happens.
const NOTHING: Bounds = Bounds {
    gives: 0,
    losses: 0,
    doubles: 0,
    deaths: 0,
    breaks: 0,
    timeouts: 0,
    refusals: 0,
    steps: 0,
    ends: 0,
};

/// `FERRY_MODEL=n` allows of each thing that may happen at all n more.
fn everything_within(name: &str, bounds: Bounds) -> Found {
    let more: u8 = std::env::var("FERRY_MODEL").ok().and_then(|more| more.parse().ok()).unwrap_or(0);
    let raised = |count: u8| if count == 0 { 0 } else { count + more };
    let Bounds { gives, losses, doubles, deaths, breaks, timeouts, refusals, steps, ends } = bounds;
    let [gives, losses, doubles, deaths, breaks, timeouts, refusals, steps, ends] =
        [gives, losses, doubles, deaths, breaks, timeouts, refusals, steps, ends].map(raised);
    let bounds = Bounds { gives, losses, doubles, deaths, breaks, timeouts, refusals, steps, ends };
    match search(bounds) {
        Ok(found) => {
            println!("{name}: {bounds:?}: {found:?}");
            assert!(found.states > 1_000 && found.ended > 0, "{found:?}");
            found
        }
        Err((way, sentence)) => panic!("{sentence}\n  after {way:#?}"),
    }
}

#[test]
fn whoever_dies_a_connection_has_one_owner_or_none() {
    let bounds = Bounds { gives: 1, deaths: 2, steps: 1, timeouts: 1, ..NOTHING };
    everything_within("deaths", bounds);
}

#[test]
fn whoever_dies_after_having_passed_a_connection_on_it_has_one_owner_or_none() {
    let bounds = Bounds { gives: 2, deaths: 1, steps: 1, timeouts: 1, ..NOTHING };
    everything_within("deaths behind a handoff", bounds);
}

#[test]
fn whatever_is_lost_and_doubled_a_connection_has_one_owner_and_goes_on() {
    let bounds = Bounds { gives: 2, losses: 1, doubles: 1, timeouts: 1, ..NOTHING };
    everything_within("messages", bounds);
}

#[test]
fn whichever_link_breaks_and_for_how_long_a_connection_has_one_owner_and_goes_on() {
    let bounds = Bounds { gives: 2, breaks: 1, timeouts: 2, ..NOTHING };
    everything_within("links", bounds);
}

#[test]
fn what_is_refused_goes_on_where_it_was_and_what_has_ended_does_not_come_back() {
    let bounds = Bounds { gives: 2, ends: 1, refusals: 1, breaks: 1, ..NOTHING };
    everything_within("ends", bounds);
}
