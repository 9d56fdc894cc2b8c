//! The states and conditions, and what brings each about.

use core::time::Duration;

use ferry_stack::tcp::tcb::{Doubt, Recovery};
use ferry_stack::tcp::{EcnPolicy, KeepAlive, MtuProbing, State, SynCookies};
use ferry_tests::serve::{ECHO, Order};
use ferry_tests::talk::{Script, Task};
use ferry_tests::world::service_at;

use super::scene::{Setting, exchange};
use super::{Moment, Outage};

const KIB: u64 = 1 << 10;

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn nothing(_: &mut Setting) {}

fn moment(name: &'static str, script: Script, is: super::Condition) -> Moment {
    Moment { name, script, set: nothing, outage: None, is }
}

/// A download of so many octets.
fn down(octets: u64) -> Script {
    exchange(0, octets, Order::ServerFirst)
}

/// An upload of so many octets.
fn up(octets: u64) -> Script {
    exchange(octets, 0, Order::ClientFirst)
}

/// A connection on which nothing happens for that long.
fn idle(millis: u64) -> Script {
    Script { idle: ms(millis), write_size: 100, ..exchange(400, 0, Order::ClientFirst) }
}

pub(crate) fn all() -> Vec<Moment> {
    [handshakes(), data(), losses(), closings(), timers(), paths()].into_iter().flatten().collect()
}

fn handshakes() -> Vec<Moment> {
    vec![
        moment("SYN-RECEIVED before the last ACK", down(50 * KIB), |sight| {
            sight.tcb.state == State::SynReceived
        }),
        Moment {
            outage: Some((|sight| sight.tcb.state == State::SynReceived, Outage::Up, ms(1300))),
            ..moment("SYN-RECEIVED, the SYN|ACK sent again", down(50 * KIB), |sight| {
                sight.tcb.state == State::SynReceived && sight.tcb.snd.timeouts > 0
            })
        },
        Moment {
            set: |setting| setting.server.syn_cookies = SynCookies::Always,
            ..moment("opened by a SYN cookie", down(600 * KIB), |sight| {
                sight.by_cookie && sight.tcb.state == State::Established && sight.tcb.snd.acked_total == 0
            })
        },
    ]
}

fn data() -> Vec<Moment> {
    vec![
        moment("ESTABLISHED, idle", idle(500), |sight| {
            let (snd, rcv) = (&sight.tcb.snd, &sight.tcb.rcv);
            sight.tcb.state == State::Established
                && snd.queue.is_empty()
                && rcv.unacked == 0
                && rcv.total > 100
        }),
        moment("data in flight both ways", exchange(300 * KIB, 300 * KIB, Order::Together), |sight| {
            sight.tcb.snd.in_flight > 20_000 && sight.client.snd.in_flight > 20_000
        }),
        Moment {
            outage: Some((|sight| sight.tcb.rcv.total > 100_000, Outage::Up, ms(8))),
            ..moment("octets out of order are held", up(300 * KIB), |sight| {
                sight.tcb.rcv.reassembly.len() > 5_000
            })
        },
        Moment {
            set: |setting| setting.client.receive_buffer = 32 << 10,
            ..moment("zero window", Script { deaf: ms(900), ..down(200 * KIB) }, |sight| {
                sight.tcb.snd.wnd == 0 && sight.tcb.timers.persist.is_some() && sight.tcb.probes == 0
            })
        },
        Moment {
            set: |setting| setting.client.receive_buffer = 32 << 10,
            ..moment("zero window, probing", Script { deaf: ms(900), ..down(200 * KIB) }, |sight| {
                sight.tcb.snd.wnd == 0 && sight.tcb.probes > 0
            })
        },
        Moment {
            set: |setting| {
                (setting.client.receive_buffer, setting.server.receive_buffer) = (16 << 10, 16 << 10);
                setting.server.send_buffer = 16 << 10;
            },
            ..moment("our own window is shut, and the client probes", deaf_echo(), |sight| {
                let rcv = &sight.tcb.rcv;
                rcv.adv == rcv.nxt && !rcv.unread.is_empty() && sight.client.probes > 0
            })
        },
        moment("a delayed acknowledgement is pending", slow_writer(), |sight| {
            sight.tcb.timers.delayed_ack.is_some()
        }),
    ]
}

/// It sends and does not read what comes back.
fn deaf_echo() -> Script {
    let server = service_at(ECHO);
    Script { server, task: Task::Echo(200 * KIB), deaf: ms(1500), ..up(0) }
}

fn slow_writer() -> Script {
    Script { write_size: 500, write_pause: ms(50), ..up(20_000) }
}

fn losses() -> Vec<Moment> {
    let lose = |span| -> Option<(super::Condition, Outage, Duration)> {
        Some((|sight| sight.tcb.snd.acked_total > 60_000, Outage::Down, span))
    };
    vec![
        Moment {
            outage: lose(ms(2)),
            ..moment("fast recovery", down(300 * KIB), |sight| {
                matches!(sight.tcb.recovery, Recovery::Fast { .. })
            })
        },
        Moment {
            set: |setting| setting.server.sack = false,
            outage: lose(ms(2)),
            ..moment("fast recovery without selective acknowledgements", down(300 * KIB), |sight| {
                matches!(sight.tcb.recovery, Recovery::Fast { .. })
            })
        },
        Moment {
            outage: lose(ms(2)),
            ..moment("octets are acknowledged selectively", down(300 * KIB), |sight| {
                sight.tcb.snd.sacked > 10_000 && sight.tcb.snd.lost() > 0
            })
        },
        Moment {
            outage: lose(ms(1200)),
            ..moment("RTO back-off", down(300 * KIB), |sight| sight.tcb.snd.timeouts >= 2)
        },
        Moment {
            outage: lose(ms(1200)),
            ..moment("repair after a timeout", down(300 * KIB), |sight| {
                matches!(sight.tcb.recovery, Recovery::Loss { .. }) && sight.tcb.snd.timeouts == 0
            })
        },
        Moment {
            outage: Some((|sight| sight.tcb.snd.acked_total > 60_000, Outage::Up, ms(400))),
            ..moment("a timeout that may have been none", down(300 * KIB), |sight| {
                matches!(sight.tcb.recovery, Recovery::Loss { doubt: Doubt::Waiting | Doubt::Probing, .. })
            })
        },
        Moment {
            outage: Some((|sight| sight.tcb.snd.acked_total > 4_000, Outage::Down, ms(30))),
            ..moment("tail loss probe in flight", lost_tail(), |sight| sight.tcb.rack.probe.is_some())
        },
        Moment {
            outage: lose(ms(2)),
            ..moment("what reordering may explain is waited for", down(300 * KIB), |sight| {
                sight.tcb.timers.reorder.is_some()
            })
        },
    ]
}

/// The server sends twenty kilobytes and then waits for the client.
fn lost_tail() -> Script {
    Script { idle: ms(800), write_size: 25, ..exchange(30, 20_000, Order::ClientFirst) }
}

fn closings() -> Vec<Moment> {
    let closing = Script { idle: ms(15), write_size: 25, ..exchange(25, 0, Order::Apart) };
    vec![
        moment("FIN-WAIT-1, data before the FIN in flight", down(50 * KIB), |sight| {
            let snd = &sight.tcb.snd;
            sight.tcb.state == State::FinWait1 && snd.queue.len() > 5_000 && snd.unsent() == 0
        }),
        moment("FIN sent and not acknowledged", down(100), |sight| {
            sight.tcb.state == State::FinWait1
                && sight.tcb.snd.fin.is_some_and(|fin| fin.before(sight.tcb.snd.nxt))
        }),
        Moment {
            outage: Some((|sight| sight.tcb.state == State::FinWait1, Outage::Down, ms(700))),
            ..moment("FIN-WAIT-1, the FIN lost", down(100), |sight| {
                sight.tcb.state == State::FinWait1 && sight.tcb.snd.timeouts >= 1
            })
        },
        moment("FIN-WAIT-2", exchange(100 * KIB, 0, Order::ServerFirst), |sight| {
            matches!(sight.tcb.state, State::FinWait2 { .. })
        }),
        moment("CLOSE-WAIT", exchange(10, 200 * KIB, Order::ClientFirst), |sight| {
            sight.tcb.state == State::CloseWait && sight.tcb.snd.in_flight > 10_000
        }),
        moment("CLOSING", closing, |sight| sight.tcb.state == State::Closing),
        moment("LAST-ACK", up(100), |sight| sight.tcb.state == State::LastAck),
        Moment {
            outage: Some((|sight| sight.tcb.state == State::LastAck, Outage::Down, ms(700))),
            ..moment("LAST-ACK, the FIN lost", slow_end(), |sight| {
                sight.tcb.state == State::LastAck && sight.tcb.snd.timeouts >= 1
            })
        },
        moment("TIME-WAIT", down(100), |sight| matches!(sight.tcb.state, State::TimeWait { .. })),
        Moment {
            outage: Some((|sight| matches!(sight.tcb.state, State::FinWait2 { .. }), Outage::Down, ms(500))),
            ..moment("TIME-WAIT, the last ACK lost", exchange(50_000, 0, Order::ServerFirst), |sight| {
                matches!(sight.tcb.state, State::TimeWait { .. })
            })
        },
    ]
}

/// Half closed by the client for a while.
fn slow_end() -> Script {
    exchange(10, 60 * KIB, Order::ClientFirst)
}

fn timers() -> Vec<Moment> {
    fn keeps_alive(setting: &mut Setting) {
        setting.server.keep_alive = Some(KeepAlive { idle: ms(200), interval: ms(100), count: 9 });
    }
    vec![
        Moment {
            set: keeps_alive,
            ..moment("keep-alive runs", idle(1500), |sight| {
                let quiet = sight.tcb.snd.queue.is_empty() && sight.tcb.timers.delayed_ack.is_none();
                sight.tcb.timers.keep_alive.is_some() && quiet && sight.tcb.rcv.total > 100
            })
        },
        Moment {
            set: keeps_alive,
            outage: Some((|sight| sight.tcb.rcv.total > 100, Outage::Both, ms(800))),
            ..moment("keep-alive asks in vain", idle(1500), |sight| sight.tcb.probes >= 2)
        },
    ]
}

fn paths() -> Vec<Moment> {
    vec![
        Moment {
            set: |setting| setting.path_mtu = 1400,
            ..moment("path MTU just lowered", down(200 * KIB), |sight| {
                sight.tcb.snd.path_mtu <= 1400 && sight.tcb.snd.in_flight > 0
            })
        },
        Moment {
            set: |setting| setting.server.mtu_probing = MtuProbing::Always,
            ..moment("a larger packet is tried", down(200 * KIB), |sight| sight.tcb.snd.probe().is_some())
        },
        Moment {
            set: |setting| {
                (setting.server.ecn, setting.client.ecn) = (EcnPolicy::On, EcnPolicy::On);
                setting.marking = Some(10_000);
            },
            ..moment("congestion has been marked", exchange(400 * KIB, 400 * KIB, Order::Together), |sight| {
                sight.tcb.ecn.is_some_and(|ecn| ecn.echo || ecn.reduced)
            })
        },
    ]
}
