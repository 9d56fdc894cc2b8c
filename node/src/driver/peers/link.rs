//! One established link: frames both ways, signs of life, and the end of it.

use core::time::Duration;
use std::io;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use ferry_handoff::{NodeId, Pieces};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::{Notify, Semaphore, watch};
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::greet::Arrival;
use super::queue::Outgoing;
use super::wire::{FrameError, Kind, MAX_MESSAGE, frame_header, next_frame};
use crate::driver::mailbox::{Letter, Mailbox};

/// Octets of received messages that may wait for the data plane; then the link is not read until it has caught up.
const BUDGET: usize = 4 * MAX_MESSAGE;

/// Frames that leave together are joined up to this length, which is that of a TLS record. A longer one goes as it is.
const JOIN: usize = 16 << 10;

const READ: usize = 64 << 10;

/// Anything that octets can be read from and written to.
pub(super) trait Wire: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Wire for T {}

/// When the other side counts as dead.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// How often a sign of life is asked for.
    pub(super) ping: Duration,
    /// How long a silence ends the link.
    pub(super) silence: Duration,
}

/// Why a link ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum Ended {
    #[error("the other side closed it")]
    Closed,
    #[error("it broke: {0}")]
    Broken(#[from] io::Error),
    #[error("nothing was heard for {} s", .0.as_secs_f32())]
    Silent(Duration),
    #[error("{0}")]
    Malformed(#[from] FrameError),
    #[error("this node begins a new life")]
    Reborn,
    #[error("a newer connection takes its place")]
    Replaced(Arrival),
}

impl Ended {
    /// Whether the other side has closed the link, or its machine has for it.
    pub(super) fn is_closed(&self) -> bool {
        use io::ErrorKind::{BrokenPipe, ConnectionReset};
        match self {
            Self::Closed => true,
            Self::Broken(why) => matches!(why.kind(), ConnectionReset | BrokenPipe),
            _ => false,
        }
    }
}

/// What others may know of a running link, and ask of it.
#[derive(Debug, Default)]
pub(super) struct Pulse {
    /// Grows with everything that is heard.
    heard: watch::Sender<u64>,
    ping_now: Notify,
}

impl Pulse {
    /// Whether the other side gives a sign of life within `patience`.
    pub(super) async fn is_alive(&self, patience: Duration) -> bool {
        let mut heard = self.heard.subscribe();
        self.ping_now.notify_one();
        timeout(patience, heard.changed()).await.is_ok_and(|changed| changed.is_ok())
    }

    fn heard(&self) {
        self.heard.send_modify(|count| *count += 1);
    }
}

/// Carries frames until the link ends.
pub(super) async fn run(
    wire: Box<dyn Wire>,
    peer: NodeId,
    outgoing: &mut Outgoing,
    mailbox: &Mailbox,
    pulse: &Pulse,
    patience: Patience,
) -> Ended {
    let (reader, writer) = tokio::io::split(wire);
    let pong = Notify::new();
    let incoming = Incoming { peer, mailbox, pulse, pong: &pong, silence: patience.silence };
    tokio::select! {
        Err(ended) = incoming.read(reader) => ended,
        Err(ended) = write(writer, outgoing, pulse, &pong, patience.ping) => ended,
    }
}

struct Incoming<'a> {
    peer: NodeId,
    mailbox: &'a Mailbox,
    pulse: &'a Pulse,
    /// Told when the other side asks for a sign of life.
    pong: &'a Notify,
    silence: Duration,
}

/// There is no good end.
enum Never {}

impl Incoming<'_> {
    async fn read(&self, mut reader: ReadHalf<Box<dyn Wire>>) -> Result<Never, Ended> {
        let budget = Arc::new(Semaphore::new(BUDGET));
        let mut buffer = BytesMut::with_capacity(READ);
        loop {
            buffer.reserve(READ);
            match timeout(self.silence, reader.read_buf(&mut buffer)).await {
                Err(_) => return Err(Ended::Silent(self.silence)),
                Ok(Ok(0)) => return Err(Ended::Closed),
                // A process that ends does not say good-bye in TLS.
                Ok(Err(why)) if why.kind() == io::ErrorKind::UnexpectedEof => return Err(Ended::Closed),
                Ok(read) => read?,
            };
            self.pulse.heard();
            while let Some((kind, bytes)) = next_frame(&mut buffer)? {
                match kind {
                    Kind::Message => self.deliver(bytes, &budget).await,
                    Kind::Ping => self.pong.notify_one(),
                    Kind::Pong => {}
                }
            }
        }
    }

    async fn deliver(&self, bytes: Bytes, budget: &Arc<Semaphore>) {
        let octets = u32::try_from(bytes.len().max(1)).unwrap_or(u32::MAX);
        // The semaphore is never closed.
        if let Ok(share) = Arc::clone(budget).acquire_many_owned(octets).await {
            self.mailbox.send(Letter::Message { from: self.peer, bytes, share });
        }
    }
}

async fn write(
    mut writer: WriteHalf<Box<dyn Wire>>,
    outgoing: &mut Outgoing,
    pulse: &Pulse,
    pong: &Notify,
    every: Duration,
) -> Result<Never, Ended> {
    let mut pings = interval(every);
    pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut row = Row::default();
    loop {
        let (kind, payload) = tokio::select! {
            message = outgoing.next() => (Kind::Message, message.ok_or(Ended::Closed)?),
            () = pong.notified() => (Kind::Pong, Pieces::default()),
            () = pulse.ping_now.notified() => (Kind::Ping, Pieces::default()),
            _ = pings.tick() => (Kind::Ping, Pieces::default()),
        };
        row.put(&mut writer, kind, &payload).await?;
        while let Some(message) = outgoing.try_next() {
            row.put(&mut writer, Kind::Message, &message).await?;
        }
        row.end(&mut writer).await?;
    }
}

/// Frames that are to leave as one record.
#[derive(Default)]
struct Row(Vec<u8>);

impl Row {
    async fn put(
        &mut self,
        writer: &mut (impl AsyncWrite + Unpin),
        kind: Kind,
        payload: &Pieces,
    ) -> io::Result<()> {
        let (header, len) = (frame_header(kind, payload.len()), payload.len());
        if self.0.len() + header.len() + len > JOIN {
            self.write(writer).await?;
        }
        self.0.extend_from_slice(&header);
        for piece in payload.iter() {
            if self.0.len() + piece.len() > JOIN {
                self.write(writer).await?;
            }
            if piece.len() <= JOIN {
                self.0.extend_from_slice(piece);
            } else {
                writer.write_all(piece).await?;
            }
        }
        Ok(())
    }

    /// Nothing more waits.
    async fn end(&mut self, writer: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
        self.write(writer).await?;
        writer.flush().await
    }

    async fn write(&mut self, writer: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
        writer.write_all(&self.0).await?;
        self.0.clear();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use core::pin::Pin;
    use core::task::{Context, Poll};

    use super::super::wire::next_frame;
    use super::*;

    /// Remembers how much was written at a time.
    #[derive(Default)]
    struct Writes(Vec<Vec<u8>>);

    impl AsyncWrite for Writes {
        fn poll_write(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            octets: &[u8],
        ) -> Poll<io::Result<usize>> {
            self.0.push(octets.to_vec());
            Poll::Ready(Ok(octets.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[tokio::test]
    async fn messages_that_wait_together_leave_in_few_records() {
        let payload = |nth: usize| vec![nth.to_le_bytes()[0]; if nth == 500 { 100_000 } else { 100 }];
        let (mut row, mut writes) = (Row::default(), Writes::default());
        for nth in 0..1000 {
            row.put(&mut writes, Kind::Message, &payload(nth).into()).await.unwrap();
        }
        row.end(&mut writes).await.unwrap();
        assert!(writes.0.len() < 12, "{} writes", writes.0.len());
        assert!(writes.0.iter().all(|octets| octets.len() <= JOIN || octets.len() == 100_000));
        let mut said = BytesMut::from(&writes.0.concat()[..]);
        for nth in 0..1000 {
            let (_, octets) = next_frame(&mut said).unwrap().unwrap();
            assert!(octets == payload(nth), "message {nth}");
        }
        assert!(said.is_empty());
    }
}
