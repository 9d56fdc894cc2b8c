//! A client without a kernel: two sequence numbers and nothing else, so that a hundred thousand of them fit into the
//! process that measures.

use bytes::Bytes;
use ferry_stack::Seq;
use ferry_stack::tcp::{Control, Options, Segment, Timestamps};

use super::ground::broken;
use crate::Result;

/// The payload of a request, which comes back.
pub(in crate::bench) const REQUEST: &[u8] = &[7; 64];

/// One end of a connection over a path that loses nothing.
#[derive(Clone, Copy, Debug)]
pub(in crate::bench) struct Thin {
    /// SND.NXT.
    next: Seq,
    /// RCV.NXT; 0 until something came.
    expected: Seq,
}

impl Thin {
    /// One that has not connected.
    pub(in crate::bench) const NEW: Self = Self { next: Seq(1000), expected: Seq(0) };

    /// The segment that opens its connection.
    pub(in crate::bench) fn syn() -> Segment {
        Segment::bare(Seq(0), None, Some(Control::Syn))
    }

    /// A segment with a request.
    pub(in crate::bench) fn request() -> Segment {
        let mut request = Self::acknowledgement();
        (request.payload, request.push) = (Bytes::from_static(REQUEST), true);
        request
    }

    /// A segment that acknowledges only.
    pub(in crate::bench) fn acknowledgement() -> Segment {
        Segment::bare(Seq(0), None, None)
    }

    /// Whether anything came from the other side.
    pub(in crate::bench) fn is_answered(self) -> bool {
        self.expected != Seq(0)
    }

    /// Fills in what a segment of this client carries.
    pub(in crate::bench) fn fill(&mut self, segment: &mut Segment) {
        segment.seq = self.next;
        segment.window = 0xffff;
        segment.options.timestamps = Some(Timestamps { value: 1, echo: 0 });
        if segment.is_syn() {
            segment.options =
                Options { mss: Some(1440), sack_permitted: true, window_scale: Some(7), ..segment.options };
        } else {
            segment.ack = Some(self.expected);
        }
        self.next = segment.end();
    }

    /// Takes what came; whether it is to be acknowledged.
    pub(in crate::bench) fn take(&mut self, segment: &Segment) -> Result<bool> {
        if segment.is_rst() || segment.ack.is_none_or(|ack| ack.after(self.next)) {
            return Err(broken("the node resets, or acknowledges what was not sent"));
        }
        let new = segment.seq_len() > 0 && (segment.is_syn() || segment.seq == self.expected);
        if new {
            self.expected = segment.end();
        }
        Ok(new)
    }
}
