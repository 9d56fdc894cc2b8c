//! Writes a line to the log for each move of a connection or of the contact node's role, without ever holding the data plane up.

use core::time::Duration;
use std::io;
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender, unbounded};
use tracing::{info, warn};

use super::gather;
use crate::{Audit, AuditResult};

/// How long they are gathered.
const GATHER: Duration = Duration::from_millis(10);
/// The target of the lines, by which a log is filtered.
const TARGET: &str = "ferry::audit";

/// The data plane's end.
#[derive(Debug)]
pub(crate) struct Auditor {
    sender: Sender<Moved>,
    lost: u64,
}

/// What has moved.
#[derive(Debug)]
enum Moved {
    Connection(Audit),
    Role(Role),
}

/// The role of the contact node, from one node to another.
#[derive(Clone, Debug)]
pub(crate) struct Role {
    pub(crate) from: String,
    pub(crate) to: String,
    pub(crate) term: u64,
    /// Whether the former one is dead.
    pub(crate) dead: bool,
}

/// The thread that writes; ends when the [`Auditor`] is dropped.
#[derive(Debug)]
pub(crate) struct AuditWriter(JoinHandle<()>);

/// Starts the thread.
pub(crate) fn auditor() -> io::Result<(Auditor, AuditWriter)> {
    let (sender, moves) = unbounded();
    let thread = std::thread::Builder::new().name("ferry-audit".to_owned()).spawn(move || write(&moves))?;
    Ok((Auditor { sender, lost: 0 }, AuditWriter(thread)))
}

impl Auditor {
    /// Never blocks.
    pub(crate) fn put(&mut self, audit: Audit) {
        self.send(Moved::Connection(audit));
    }

    /// Never blocks.
    pub(crate) fn put_role(&mut self, role: Role) {
        self.send(Moved::Role(role));
    }

    fn send(&mut self, moved: Moved) {
        self.lost += u64::from(!gather::put(&self.sender, moved));
    }
}

impl Drop for Auditor {
    fn drop(&mut self) {
        if self.lost > 0 {
            warn!(target: TARGET, "the log lacks {} moves: it was too slow", self.lost);
        }
    }
}

impl AuditWriter {
    /// Waits until everything is written; the [`Auditor`] must be gone.
    pub(crate) fn finish(self) {
        // A panic has told its own story.
        let _ = self.0.join();
    }
}

fn write(moves: &Receiver<Moved>) {
    while let Some(some) = gather::next(moves, GATHER) {
        for moved in some {
            match moved {
                Moved::Connection(audit) => info!(target: TARGET, "{}", line(&audit)),
                Moved::Role(role) => info!(target: TARGET, "{}", role_line(&role)),
            }
        }
    }
}

fn role_line(role: &Role) -> String {
    let Role { from, to, term, dead } = role;
    let why = if *dead { "crash" } else { "handover" };
    format!("audit: role=contact-node from={from} to={to} term={term} why={why}")
}

/// One move as one line: what nodes and clients chose stands in it only where it cannot break it.
pub(crate) fn line(audit: &Audit) -> String {
    let Audit { client, port, service, from, to, before, epoch, why, result } = audit;
    let before = before.map_or_else(|| "?".to_owned(), |epoch| epoch.to_string());
    let why = format!("{why:?}").to_lowercase();
    let result = match result {
        AuditResult::Moved => "moved".to_owned(),
        AuditResult::Stayed { why_not } => format!("stayed: {}", why_not.escape_debug()),
        AuditResult::Lost => "lost".to_owned(),
        AuditResult::Refused { why_not } => format!("refused: {}", why_not.escape_debug()),
    };
    format!(
        "audit: client={client} port={port} service={service} from={from} to={to} epoch={before}->{epoch} \
         why={why} result={result}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Reason;

    #[test]
    fn a_role_that_moves_is_one_line() {
        let role = Role { from: "a".into(), to: "b".into(), term: 3, dead: true };
        assert_eq!(role_line(&role), "audit: role=contact-node from=a to=b term=3 why=crash");
        let handed = role_line(&Role { dead: false, ..role });
        assert_eq!(handed, "audit: role=contact-node from=a to=b term=3 why=handover");
    }

    #[test]
    fn a_move_is_one_line_whatever_another_node_gives_as_its_reason() {
        let moved = Audit {
            client: "[2001:db8::c]:40000".parse().unwrap(),
            port: 80,
            service: "file".into(),
            from: "a".into(),
            to: "b".into(),
            before: Some(1),
            epoch: 2,
            why: Reason::Drain,
            result: AuditResult::Moved,
        };
        let expected = "audit: client=[2001:db8::c]:40000 port=80 service=file from=a to=b epoch=1->2 why=drain result=moved";
        assert_eq!(line(&moved), expected);
        let why_not = "full\naudit: client=forged".to_owned();
        let refused = Audit { before: None, result: AuditResult::Stayed { why_not }, ..moved };
        assert!(line(&refused).ends_with(r"epoch=?->2 why=drain result=stayed: full\naudit: client=forged"));
        assert_eq!(line(&refused).lines().count(), 1);
    }
}
