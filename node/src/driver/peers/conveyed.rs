//! A connection that becomes a link: a matter of tokio until it is greeted, of the data plane from then on.

use std::io;

use rustls::Connection;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::{client, server};

use crate::driver::links::Channel;

/// Anything that can be greeted on, and then run as a link.
pub(super) trait Wire: AsyncRead + AsyncWrite + Send + Unpin {
    /// Out of tokio's hands.
    fn convey(self: Box<Self>) -> io::Result<Channel>;
}

impl Wire for TcpStream {
    fn convey(self: Box<Self>) -> io::Result<Channel> {
        Ok(Channel::new(self.into_std()?, None))
    }
}

impl Wire for client::TlsStream<TcpStream> {
    fn convey(self: Box<Self>) -> io::Result<Channel> {
        let (socket, tls) = self.into_inner();
        Ok(Channel::new(socket.into_std()?, Some(Connection::Client(tls))))
    }
}

impl Wire for server::TlsStream<TcpStream> {
    fn convey(self: Box<Self>) -> io::Result<Channel> {
        let (socket, tls) = self.into_inner();
        Ok(Channel::new(socket.into_std()?, Some(Connection::Server(tls))))
    }
}
