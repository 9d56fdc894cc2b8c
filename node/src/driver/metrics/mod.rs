//! Metrics for Prometheus: what `ferry status` tells, over HTTP, at an address of its own.
//!
//! A part of the control plane. The data plane hears of a scrape as of any other command, and is never waited for: where
//! it gives no answer, there is none here either.

mod scrape;
#[cfg(test)]
mod tests;

use core::time::Duration;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tracing::{debug, warn};

use super::ask::Asker;
use crate::http::request::{After, Bad, Head, MAX_HEAD, Method, Request, parse};
use crate::http::response::{Status, head, short};
use crate::{Command, Reply};

/// Scrapers that may be connected at the same time; more wait.
const CLIENTS: usize = 16;

/// How long one of them may take, from the first octet of the request to the end.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long the node may take to say how it is.
const ANSWER: Duration = Duration::from_secs(3);

/// Before the next attempt to accept, after the system had no descriptor left.
const PAUSE: Duration = Duration::from_millis(100);

/// Where they are, below the root.
const PATH: &str = "metrics";

/// The text format of Prometheus.
const FORMAT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Nobody can be listened for.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot listen for scrapers at {address}: {why}; is the address of [metrics] on this machine, and nobody else there?"
)]
pub struct MetricsError {
    /// From the configuration.
    pub address: SocketAddr,
    /// What the system says.
    pub why: io::Error,
}

/// A bound address at which metrics will be served.
#[derive(Debug)]
pub(crate) struct Metrics(TcpListener);

impl Metrics {
    pub(crate) async fn bind(address: SocketAddr) -> Result<Self, MetricsError> {
        TcpListener::bind(address).await.map(Self).map_err(|why| MetricsError { address, why })
    }

    /// Serves scrapers for ever.
    pub(crate) async fn serve(self, asker: Asker) {
        let room = Arc::new(Semaphore::new(CLIENTS));
        // The semaphore is never closed.
        while let Ok(place) = Arc::clone(&room).acquire_owned().await {
            match self.0.accept().await {
                Ok((stream, from)) => {
                    let asker = asker.clone();
                    tokio::spawn(async move {
                        match timeout(PATIENCE, serve_one(stream, &asker)).await {
                            Ok(Ok(())) => {}
                            Ok(Err(why)) => debug!("the scraper at {from} left: {why}"),
                            Err(_) => debug!("the scraper at {from} was too slow"),
                        }
                        drop(place);
                    });
                }
                Err(why) => {
                    warn!("cannot accept a scraper: {why}");
                    sleep(PAUSE).await;
                }
            }
        }
    }
}

/// One request, one response, and the end.
async fn serve_one(mut stream: TcpStream, asker: &Asker) -> io::Result<()> {
    let Some(request) = read_request(&mut stream).await? else { return Ok(()) };
    let response = match request {
        Ok(request) => respond(&request, asker).await,
        Err(bad) => short(Status::Bad(bad), After::Close, true),
    };
    stream.write_all(&response).await?;
    stream.shutdown().await?;
    // What is sent to a closed socket would take the response away from its reader (RFC 9112 section 9.6).
    let mut rest = [0; 512];
    while stream.read(&mut rest).await? > 0 {}
    Ok(())
}

/// `None` if the scraper leaves before it has said what it wants.
async fn read_request(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<Result<Request, Bad>>> {
    let mut input = Vec::with_capacity(1 << 10);
    loop {
        match parse(&input) {
            Head::Partial => {}
            Head::Broken(bad) => return Ok(Some(Err(bad))),
            Head::Whole { request, .. } => return Ok(Some(request)),
        }
        let room = MAX_HEAD.saturating_sub(input.len()) as u64;
        if stream.take(room).read_buf(&mut input).await? == 0 {
            return Ok(None);
        }
    }
}

async fn respond(request: &Request, asker: &Asker) -> Bytes {
    let with_body = request.method == Method::Get;
    if request.path != PATH {
        return short(Status::Bad(Bad::NotFound), After::Close, with_body);
    }
    let text = match timeout(ANSWER, asker.ask(Command::Status)).await {
        Ok(Reply::Status(status)) => scrape::text(*status),
        Ok(_) | Err(_) => None,
    };
    let Some(text) = text else { return short(Status::Unavailable, After::Close, with_body) };
    let mut response = head(Status::Page, FORMAT, text.len() as u64, After::Close);
    if with_body {
        response.push_str(&text);
    }
    response.into()
}
