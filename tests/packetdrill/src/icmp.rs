//! What ICMPv6 errors do to sockets.

use ferry_stack::host::quoted_segment;
use ferry_stack::icmp::{Error, Received};
use ferry_stack::tcp::{State, Tcb};

use crate::errno::Errno;
use crate::world::World;

impl World {
    /// An error about a packet of ours. One that cannot pass ends a connection that is being opened (RFC 5461 section
    /// 4.1 tells why not any other); later it is only told if the connection times out.
    pub(crate) fn receive_error(&mut self, received: &Received) {
        self.tcp.receive_error(received, self.now);
        let Some((flow, seq)) = quoted_segment(received) else { return };
        let Some(handle) = self.tcp.find(&flow) else { return };
        let Some(tcb) = self.tcp.get(handle) else { return };
        let in_flight = tcb.snd.una.at_or_before(seq) && seq.before(tcb.snd.nxt);
        if let Error::PacketTooBig { .. } = received.error {
            self.narrow.insert(*flow.remote.ip(), tcb.snd.path_mtu);
        }
        let (Some(error), true) = (meaning(received.error), in_flight) else { return };
        let opening = tcb.state == State::SynSent;
        if let Some(socket) = self.files.sockets_mut().find(|socket| socket.handle() == Some(handle)) {
            socket.soft_error = Some(error);
            if opening {
                self.tcp.with(handle, Tcb::abort);
            }
        }
    }
}

/// `icmpv6_err_convert` of Linux.
fn meaning(error: Error) -> Option<Errno> {
    match error {
        Error::Unreachable { code: 0 } => Some(Errno::ENETUNREACH),
        Error::Unreachable { code: 1 | 5 | 6 } => Some(Errno::EACCES),
        Error::Unreachable { code: 2 | 3 } | Error::TimeExceeded { .. } => Some(Errno::EHOSTUNREACH),
        Error::Unreachable { code: 4 } => Some(Errno::ECONNREFUSED),
        Error::Unreachable { .. } | Error::ParameterProblem { .. } => Some(Errno::EPROTO),
        Error::PacketTooBig { .. } => None,
    }
}
