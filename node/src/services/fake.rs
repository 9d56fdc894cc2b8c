//! Stands in for a connection in the tests of the services.

use core::time::Duration;

use bytes::{Buf, Bytes, BytesMut};

use super::Pipe;

/// A connection whose other side is the test.
#[derive(Debug, Default)]
pub(super) struct Fake {
    input: BytesMut,
    ended: bool,
    capacity: usize,
    queued: usize,
    sent: Vec<u8>,
    finished: bool,
    reset: bool,
    wake: Option<Duration>,
}

impl Fake {
    /// One that queues at most so many octets.
    pub(super) fn with_room(capacity: usize) -> Self {
        Self { capacity, ..Self::default() }
    }

    /// From now on it queues at most so many octets.
    pub(super) fn narrow(&mut self, capacity: usize) {
        self.capacity = capacity;
    }

    pub(super) fn arrive(&mut self, octets: &[u8]) {
        self.input.extend_from_slice(octets);
    }

    pub(super) fn end(&mut self) {
        self.ended = true;
    }

    /// The other side acknowledges up to `max` of what is queued; tells how much that was.
    pub(super) fn acknowledge(&mut self, max: usize) -> usize {
        let count = max.min(self.queued);
        self.queued -= count;
        count
    }

    /// For how long it was asked to sleep, if it was since this was asked last.
    pub(super) fn wake(&mut self) -> Option<Duration> {
        self.wake.take()
    }

    pub(super) fn unread(&self) -> usize {
        self.input.len()
    }

    pub(super) fn sent(&self) -> &[u8] {
        &self.sent
    }

    pub(super) fn is_finished(&self) -> bool {
        self.finished
    }

    pub(super) fn is_reset(&self) -> bool {
        self.reset
    }
}

impl Pipe for Fake {
    fn read(&mut self, max: usize) -> Bytes {
        self.input.copy_to_bytes(max.min(self.input.len()))
    }

    fn at_end(&self) -> bool {
        self.ended && self.input.is_empty()
    }

    fn writable(&self) -> usize {
        if self.finished { 0 } else { self.capacity.saturating_sub(self.queued) }
    }

    fn write(&mut self, mut octets: Bytes) -> Bytes {
        let rest = octets.split_off(octets.len().min(self.writable()));
        self.queued += octets.len();
        self.sent.extend_from_slice(&octets);
        rest
    }

    fn wake_after(&mut self, span: Duration) {
        self.wake = Some(span);
    }

    fn finish(&mut self) {
        self.finished = true;
    }

    fn reset(&mut self) {
        self.reset = true;
    }
}
