//! What an acceptor sends first: at once, in the form that the client takes now.

use bytes::Bytes;
use ferry_stack::tcp;

use super::lan::Lan;
use super::mobility::bound_at_b;
use crate::{Command, Input, PlainSource, Which};

/// A connection at b of a client that understands, to which an answer was lost. It goes to c, and no time passes.
fn just_come_to_c(plain_source: PlainSource) -> (Lan, tcp::Handle) {
    let (mut lan, client) = bound_at_b(|setup| setup.plain_source = plain_source);
    lan.deaf = true;
    lan.client.tcp.with(client, |tcb| tcb.write(Bytes::from_static(b"lost")));
    lan.run();
    lan.pass(20);
    lan.deaf = false;
    lan.heard.clear();
    let (now, to) = (lan.now, "c".to_owned());
    let command = Command::Handoff { to, which: Which::All };
    lan.nodes.get_mut("b").unwrap().handle(Input::Command { id: 900, command }, now);
    lan.run();
    assert!(lan.owner() == ["b"] && lan.heard.is_empty(), "c goes through its care-of test");
    lan.answer_mobility();
    assert_eq!((lan.owner(), lan.now), (vec!["c"], now));
    (lan, client)
}

#[test]
fn an_acceptor_sends_at_once_plainly_and_straight_only_after_the_acknowledgement() {
    // From the service address where the network lets that through, else by way of the contact node.
    for (plain_source, by) in [(PlainSource::Auto, "c"), (PlainSource::Never, "a")] {
        let (mut lan, client) = just_come_to_c(plain_source);
        let first = lan.heard.first().expect("it has sent at the instant of the install");
        assert_eq!((first.by, first.straight), (by, false), "{plain_source:?}");
        // The oldest octets once more, and the acknowledgement of what has arrived.
        assert_eq!(&first.segment.payload[..], b"lost", "{plain_source:?}");
        assert_eq!(first.segment.ack, lan.nodes["c"].control_blocks().next().map(|tcb| tcb.rcv.nxt));
        lan.pass(20);
        assert!(lan.heard.iter().all(|heard| !heard.straight), "the update is not acknowledged");
        // The client's acknowledgement has been on its way.
        lan.answer_mobility();
        lan.heard.clear();
        assert_eq!(lan.echo(client, b" and found"), b"lost and found");
        assert!(lan.heard.iter().all(|heard| heard.by == "c" && heard.straight), "{plain_source:?}");
        assert_eq!(lan.resets(), 0);
    }
}
