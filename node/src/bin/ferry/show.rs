//! `ferry status` and `ferry connections`: what a node says, for people.

use core::fmt::Write as _;
use core::time::Duration;
use std::process::ExitCode;

use ferry_node::{
    Command, Connection, Copies, Counters, EtcdStatus, HomeAgentStatus, PeerStatus, Protection, Reply, Status,
};

use crate::Outcome;
use crate::args::NodeAndFormat;
use crate::socket::ask;

pub(crate) fn status(args: &NodeAndFormat) -> Outcome {
    show(args, &Command::Status)
}

pub(crate) fn connections(args: &NodeAndFormat) -> Outcome {
    show(args, &Command::Connections)
}

pub(crate) fn contact(args: &NodeAndFormat) -> Outcome {
    show(args, &Command::Contact)
}

fn show(args: &NodeAndFormat, command: &Command) -> Outcome {
    match ask(&args.node, args.json, command)? {
        Some(Reply::Status(status)) => print!("{}", status_text(&status)),
        Some(Reply::Connections { connections }) => print!("{}", connections_text(&connections)),
        Some(Reply::Done) | None => {}
        Some(other) => return Err(format!("the node answered something else: {other:?}").into()),
    }
    Ok(ExitCode::SUCCESS)
}

fn status_text(status: &Status) -> String {
    let Status { name, group, service_address, care_of, contact, draining, uptime_ms, .. } = status;
    let Status { connections, relayed, moving, peers, counters, home_agent, contact_node, .. } = status;
    let role = match (contact, draining) {
        (true, false) => ", contact node",
        (false, false) => "",
        (true, true) => ", contact node, draining",
        (false, true) => ", draining",
    };
    let up = Duration::from_secs(uptime_ms / 1000);
    let places = if status.placement.is_empty() { "?" } else { &status.placement };
    let mut rows = vec![
        ["node".to_owned(), format!("{name} of {group}{role}")],
        ["service address".to_owned(), format!("{service_address}, at {contact_node}")],
        ["care-of address".to_owned(), care_of.to_string()],
        ["up for".to_owned(), format!("{up:?}")],
        ["connections".to_owned(), format!("{connections} owned, {moving} moving, {relayed} relayed")],
        ["placement".to_owned(), places.to_owned()],
        ["directory".to_owned(), directory_text(status)],
    ];
    if !status.gateway_answers {
        let what = "has not answered: nothing can leave the link yet";
        rows.insert(3, ["gateway".to_owned(), what.to_owned()]);
    }
    if let Some(agent) = home_agent {
        rows.insert(2, ["home agent".to_owned(), home_agent_text(agent)]);
    }
    let copies = copies_text(&status.copies);
    format!("{}\n{}\n{copies}\n{}", table(&[], &rows), peers_text(peers), counters_text(counters))
}

fn directory_text(status: &Status) -> String {
    let Status { directory, serving, lease_ms, etcd, .. } = status;
    let etcd = etcd.as_ref().map(etcd_text).unwrap_or_default();
    let serves = match (serving, lease_ms) {
        (true, None) => format!("{directory}, this node may serve"),
        (true, Some(ms)) => format!("{directory}, this node may serve for {ms} ms more"),
        (false, _) => format!("{directory}, this node hears too few others to serve"),
    };
    serves + &etcd
}

fn etcd_text(etcd: &EtcdStatus) -> String {
    let EtcdStatus { connected, registered, lease_ms, revision } = etcd;
    let answers = if *connected { "answers" } else { "does not answer" };
    let lease = if *registered { format!("lease for {lease_ms} ms more") } else { "no lease".to_owned() };
    format!("; etcd {answers}, {lease}, revision {revision}")
}

fn home_agent_text(agent: &HomeAgentStatus) -> String {
    let HomeAgentStatus { address, registered, superseded, refused } = agent;
    let state = match (registered, superseded, refused) {
        (_, _, Some(status)) => format!("refuses this node, status {status} of RFC 6275"),
        (true, ..) => "this node is registered".to_owned(),
        (_, true, _) => "another node has registered since".to_owned(),
        (false, false, None) => "this node is not registered".to_owned(),
    };
    format!("{address}, {state}")
}

fn peers_text(peers: &[PeerStatus]) -> String {
    let rows: Vec<[String; 5]> = peers
        .iter()
        .map(|PeerStatus { name, care_of, up, standing, connections }| {
            let link = if *up { "up" } else { "down" };
            let standing = format!("{standing:?}").to_lowercase();
            [name.clone(), care_of.to_string(), link.to_owned(), standing, connections.to_string()]
        })
        .collect();
    table(&["PEER", "CARE-OF ADDRESS", "LINK", "NODE", "CONNECTIONS"], &rows)
}

fn counters_text(counters: &Counters) -> String {
    // Named one by one, so that a new counter is not forgotten here.
    let Counters {
        frames_in,
        frames_out,
        accepted,
        taken,
        given,
        handoffs_failed,
        forwarded,
        held,
        optimised,
        resets_sent,
        retransmitted,
        cookies_sent,
        cookies_accepted,
        cookies_replayed,
        disbelieved,
        lost_ownership,
        roles_taken,
        dropped,
    } = counters;
    let rows = [
        ("frames in, out", vec![frames_in, frames_out]),
        ("connections accepted, taken, given", vec![accepted, taken, given]),
        ("handoffs failed", vec![handoffs_failed]),
        ("segments forwarded, held", vec![forwarded, held]),
        ("segments sent straight to clients that know the owner", vec![optimised]),
        ("segments sent again, resets sent", vec![retransmitted, resets_sent]),
        ("SYN cookies sent, accepted, replayed", vec![cookies_sent, cookies_accepted, cookies_replayed]),
        ("messages not believed", vec![disbelieved]),
        ("connections given up to others", vec![lost_ownership]),
        ("times it became the contact node", vec![roles_taken]),
        ("packets dropped", vec![dropped]),
    ];
    let rows = rows.map(|(name, values)| {
        [name.to_owned(), values.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")]
    });
    table(&[], &rows)
}

fn connections_text(connections: &[Connection]) -> String {
    if connections.is_empty() {
        return "no connections\n".to_owned();
    }
    let rows: Vec<[String; 10]> = connections.iter().map(connection_row).collect();
    let titles =
        ["CLIENT", "PORT", "SERVICE", "STATE", "EPOCH", "SENT", "RECEIVED", "RTT", "CWND", "COPIES AT"];
    table(&titles, &rows)
}

fn connection_row(connection: &Connection) -> [String; 10] {
    let Connection { client, port, service, state, epoch, sent, received, srtt_us, cwnd, protection, .. } =
        connection;
    [
        client.to_string(),
        port.to_string(),
        service.clone(),
        state.clone(),
        epoch_text(*epoch),
        octets(*sent),
        octets(*received),
        srtt_us.map_or_else(|| "-".to_owned(), |us| format!("{:?}", Duration::from_micros(us))),
        octets(*cwnd),
        protection.as_ref().map_or_else(|| "-".to_owned(), protection_text),
    ]
}

/// How often it moved, and how often it went on after a crash.
fn epoch_text(epoch: u64) -> String {
    match (epoch >> 32, epoch & u64::from(u32::MAX)) {
        (0, moves) => moves.to_string(),
        (crashes, moves) => format!("{moves}+{crashes}"),
    }
}

fn protection_text(protection: &Protection) -> String {
    let Protection { holders, lag_octets } = protection;
    match (holders.is_empty(), *lag_octets) {
        (true, _) => "none".to_owned(),
        (false, 0) => holders.join(", "),
        (false, lag) => format!("{} ({} behind)", holders.join(", "), octets(lag)),
    }
}

fn copies_text(copies: &Copies) -> String {
    let Copies {
        protected,
        unprotected,
        lag_octets,
        lag_us,
        held,
        held_octets,
        recovering,
        discarding,
        recovered,
        lost,
        deltas,
        delta_octets,
    } = copies;
    let behind = format!("{}, {:?}", octets(*lag_octets), Duration::from_micros(*lag_us));
    let rows = [
        ("connections with and without copies", format!("{protected}, {unprotected}")),
        ("their copies are behind by", behind),
        ("copies held for others", format!("{held} with {}", octets(*held_octets as u64))),
        ("of dead owners, to be forgotten elsewhere", format!("{recovering}, {discarding}")),
        ("connections recovered, lost", format!("{recovered}, {lost}")),
        ("deltas sent", format!("{deltas} with {}", octets(*delta_octets))),
    ];
    table(&[], &rows.map(|(name, value)| [name.to_owned(), value]))
}

/// Three digits and a unit.
fn octets(count: u64) -> String {
    let units = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    match units.into_iter().find(|&(unit, _)| count >= unit) {
        Some((unit, name)) => format!("{}.{} {name}", count / unit, count % unit * 10 / unit),
        None => format!("{count} B"),
    }
}

/// Columns as wide as they must be.
pub(crate) fn table<const N: usize>(titles: &[&str], rows: &[[String; N]]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.chain(titles.get(column).map(|title| title.len())).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..N).map(width).collect();
    let mut text = String::new();
    let mut line = |cells: &mut dyn Iterator<Item = &str>| {
        let mut row = String::new();
        for (cell, width) in cells.zip(&widths) {
            // Writing to a string cannot fail.
            let _ = write!(row, "{cell:width$}  ");
        }
        text.push_str(row.trim_end());
        text.push('\n');
    };
    if !titles.is_empty() {
        line(&mut titles.iter().copied());
    }
    for row in rows {
        line(&mut row.iter().map(String::as_str));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_nothing_trails() {
        let rows = [["a".to_owned(), "1".to_owned()], ["long".to_owned(), "2".to_owned()]];
        assert_eq!(table(&["NAME", "N"], &rows), "NAME  N\na     1\nlong  2\n");
        assert_eq!(table(&[], &rows), "a     1\nlong  2\n");
    }

    #[test]
    fn octets_have_one_digit_behind_the_point() {
        let cases =
            [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (1_600_000, "1.5 MiB"), (3 << 30, "3.0 GiB")];
        for (count, expected) in cases {
            assert_eq!(octets(count), expected);
        }
    }

    #[test]
    fn a_connection_is_one_line() {
        let connection = Connection {
            client: "[2001:db8::c]:40000".parse().unwrap(),
            port: 80,
            service: "file".into(),
            state: "ESTABLISHED".into(),
            opened_ms: 1_700_000_000_000,
            epoch: 3,
            sent: 2048,
            received: 80,
            srtt_us: Some(1500),
            cwnd: 14_600,
            protection: Some(Protection { holders: vec!["b".into()], lag_octets: 1024 }),
        };
        let text = connections_text(&[connection]);
        let expected = "CLIENT               PORT  SERVICE  STATE        EPOCH  SENT     RECEIVED  RTT    CWND      COPIES AT\n\
                        [2001:db8::c]:40000  80    file     ESTABLISHED  3      2.0 KiB  80 B      1.5ms  14.2 KiB  b (1.0 KiB behind)\n";
        assert_eq!(text, expected);
        assert_eq!(connections_text(&[]), "no connections\n");
    }
}
