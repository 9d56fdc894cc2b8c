//! The section `[directory]`: how the nodes find out which of them are alive.

use core::ops::RangeInclusive;
use std::time::Duration;

use super::check::Checker;
use super::raw::{self, At};
use crate::DirectorySetup;

const HEARTBEAT_MS: RangeInclusive<i64> = 1..=10_000;
const LEASE_MS: RangeInclusive<i64> = 4..=600_000;
/// Heartbeats that a lease must outlast, so that one or two may be lost.
const BEATS: u32 = 4;

impl Checker<'_> {
    pub(super) fn directory(&mut self, raw: Option<raw::Directory>) -> Option<DirectorySetup> {
        let DirectorySetup { heartbeat, lease } = DirectorySetup::default();
        let Some(raw::Directory { kind, heartbeat_ms, lease_ms }) = raw else {
            return Some(DirectorySetup::default());
        };
        let kind = self.choice(kind.as_ref(), "kind of directory", &[("embedded", ())]);
        let at = lease_ms.as_ref().or(heartbeat_ms.as_ref()).map(|at| At::new(at.span(), ()));
        let millis = |span: Duration| i64::try_from(span.as_millis()).unwrap_or(i64::MAX);
        let heartbeat = self.number(heartbeat_ms, "heartbeat-ms", &HEARTBEAT_MS, millis(heartbeat));
        let lease = self.number(lease_ms, "lease-ms", &LEASE_MS, millis(lease));
        let span = |millis: i64| Duration::from_millis(millis.unsigned_abs());
        let (heartbeat, lease) = (span(heartbeat?), span(lease?));
        if lease < heartbeat * BEATS {
            let right =
                format!("make it at least {} ms, or the heartbeat shorter", (heartbeat * BEATS).as_millis());
            let what = format!(
                "a lease of {} ms is too short for heartbeats of {} ms",
                lease.as_millis(),
                heartbeat.as_millis()
            );
            self.problem(&at.unwrap_or_else(|| At::new(0..0, ())), what, right);
        }
        kind?;
        Some(DirectorySetup { heartbeat, lease })
    }
}
