//! What the kernel's TCP has counted in a network namespace.

use std::fs;

use crate::error::Doing;
use crate::namespace::Namespace;
use crate::{Error, Result};

/// Counts since the namespace was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// How often the retransmission timer fired (`TcpExtTCPTimeouts`).
    pub timeouts: u64,
    /// Tail loss probes sent (`TcpExtTCPLossProbes`).
    pub loss_probes: u64,
    /// Segments sent again (`TcpRetransSegs`).
    pub retransmitted: u64,
}

impl Counts {
    /// Of the namespace now.
    pub fn of(namespace: &Namespace) -> Result<Self> {
        // The files of the thread, which alone is in the namespace.
        let read = |name: &str| {
            let path = format!("/proc/thread-self/net/{name}");
            fs::read_to_string(&path).doing(format!("read {path}"))
        };
        namespace.run(|| {
            let (extended, basic) = (read("netstat")?, read("snmp")?);
            Ok(Self {
                timeouts: find(&extended, "TcpExt:", "TCPTimeouts")?,
                loss_probes: find(&extended, "TcpExt:", "TCPLossProbes")?,
                retransmitted: find(&basic, "Tcp:", "RetransSegs")?,
            })
        })
    }

    /// What was counted since then.
    pub fn since(self, before: Self) -> Self {
        Self {
            timeouts: self.timeouts - before.timeouts,
            loss_probes: self.loss_probes - before.loss_probes,
            retransmitted: self.retransmitted - before.retransmitted,
        }
    }
}

/// A line of names is followed by a line of figures; both begin with the group's name.
fn find(text: &str, group: &str, name: &str) -> Result<u64> {
    let mut lines = text.lines().filter(|line| line.split_whitespace().next() == Some(group));
    let (names, figures) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
    let mut pairs = names.split_whitespace().zip(figures.split_whitespace());
    let found = pairs.find(|(key, _)| *key == name).and_then(|(_, figure)| figure.parse().ok());
    found.ok_or_else(|| Error::Machine(format!("this kernel does not count {name}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_is_found_by_its_name_in_its_group() {
        let text = "TcpExt: SyncookiesSent TCPTimeouts\nTcpExt: 3 17\nIpExt: TCPTimeouts\nIpExt: 5\n";
        assert_eq!(find(text, "TcpExt:", "TCPTimeouts").expect("there"), 17);
        assert!(find(text, "TcpExt:", "TCPSlow").is_err());
        assert!(find(text, "Tcp:", "TCPTimeouts").is_err());
    }
}
