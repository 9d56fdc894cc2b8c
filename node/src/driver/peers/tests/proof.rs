//! What proves that the process of another node is gone, and what does not.

use super::*;

/// For the one that dials, and for the one that is dialled.
#[tokio::test]
async fn the_end_of_a_process_is_proved_at_once_from_either_side() {
    for (stays, goes) in [("a", "b"), ("b", "a")] {
        let lab = Lab::new();
        let node = Node::start(&lab.config(stays, &[goes]), 1).await;
        let ends = short_lived(lab.config(goes, &[stays]), 2, stays);
        assert_eq!(node.up(goes).await, 2);
        ends.await.unwrap();
        node.down(goes).await;
        node.dead(goes, 2).await;
    }
}

/// Somebody who speaks for a, as long as the link is held.
async fn speaks_for_a(lab: &Lab, life: u64) -> Box<dyn Wire> {
    let (_sender, life) = watch::channel(Incarnation(life));
    let own = Identity { name: "a".into(), group: "demo".into(), life };
    let tls = Tls::load(&lab.keys("a"), "a", "demo").unwrap();
    let peer = lab.config("a", &["b"]).peers.remove(0);
    let (fatal, _fatal) = mpsc::channel(1);
    dial::Dialer::new(peer, own, Some(tls), QUICK, fatal).next(None).await.unwrap().wire
}

#[tokio::test]
async fn a_link_that_ends_while_somebody_listens_proves_nothing() {
    let lab = Lab::new();
    let b = Node::start(&lab.config("b", &["a"]), 1).await;
    let listens = TcpListener::bind((Ipv6Addr::LOCALHOST, lab.ports["a"])).await.unwrap();
    let wire = speaks_for_a(&lab, 2).await;
    assert_eq!(b.up("a").await, 2);
    drop(wire);
    b.down("a").await;
    for _ in 0..2 {
        // It is asked, and says nothing, and hangs up.
        drop(timeout(SOON, listens.accept()).await.unwrap().unwrap());
    }
    let _wire = speaks_for_a(&lab, 2).await;
    assert_eq!(b.up("a").await, 2, "nothing was said of it meanwhile");
}

#[tokio::test]
async fn a_process_that_closes_one_socket_after_the_other_is_called_again_at_once() {
    let lab = Lab::new();
    let patient = Timing { back_off: (10 * SOON, 10 * SOON), ..QUICK };
    let b = Node::start_with(&lab.config("b", &["a"]), 1, patient).await;
    let listens = TcpListener::bind((Ipv6Addr::LOCALHOST, lab.ports["a"])).await.unwrap();
    let wire = speaks_for_a(&lab, 2).await;
    assert_eq!(b.up("a").await, 2);
    drop(wire);
    b.down("a").await;
    let called = timeout(SOON, listens.accept()).await.unwrap().unwrap();
    drop((listens, called));
    b.dead("a", 2).await;
}

#[tokio::test]
async fn a_link_that_falls_silent_proves_nothing_although_nobody_listens_there() {
    let lab = Lab::new();
    let b = Node::start(&lab.config("b", &["a"]), 1).await;
    let _silent = speaks_for_a(&lab, 2).await;
    assert_eq!(b.up("a").await, 2);
    b.down("a").await;
    let _wire = speaks_for_a(&lab, 2).await;
    assert_eq!(b.up("a").await, 2, "nothing was said of it meanwhile");
}
