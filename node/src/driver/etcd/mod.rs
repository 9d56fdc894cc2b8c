//! Asks etcd what the node's core wants to know: one task for each request, over HTTP, as etcd's JSON gateway has it.
//!
//! An answer that does not come in time, or is none, is [`StoreAnswer::Failed`]; the core knows when to ask again. Each
//! failure moves on to the next endpoint.

mod gateway;
mod http;
#[cfg(test)]
mod tests;

use core::time::Duration;
use std::sync::{Arc, Mutex, PoisonError};

use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tracing::{info, warn};

use self::gateway::Gateway;
use self::http::{Connector, whole};
use super::mailbox::{Letter, Mailbox};
use crate::config::{Endpoint, Etcd, FileError};
use crate::{StoreAnswer, StoreRequest};

/// The core's requests, and the number that each answer carries. The core bounds how many are under way.
pub(crate) type Requests = mpsc::UnboundedSender<(u64, StoreRequest)>;

/// The part of a lease that etcd may take to answer.
const PATIENCE: u32 = 4;
/// For a single question outside of any lease.
const PROBE: Duration = Duration::from_secs(2);
/// Octets of one event of a watch, or of an answer.
const MAX_ANSWER: usize = 4 << 20;

/// Starts asking; to be called within a runtime.
pub(crate) fn start(config: &Etcd, lease: Duration, mailbox: &Mailbox) -> Result<Requests, FileError> {
    let client = Arc::new(Client {
        gateway: Gateway::new(&config.prefix),
        connector: Connector::new(config)?,
        endpoints: config.endpoints.clone(),
        state: Mutex::default(),
        patience: lease / PATIENCE,
        mailbox: mailbox.clone(),
    });
    let (sender, mut requests) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        let mut watch: Option<JoinHandle<()>> = None;
        while let Some((id, request)) = requests.recv().await {
            let client = Arc::clone(&client);
            if let StoreRequest::Watch { from } = request {
                let former = watch.replace(tokio::spawn(async move { client.watch(id, from).await }));
                former.inspect(JoinHandle::abort);
            } else {
                tokio::spawn(async move { client.ask(id, &request).await });
            }
        }
        watch.inspect(JoinHandle::abort);
    });
    Ok(sender)
}

/// Whether an endpoint answers: how many keys of the group it has.
pub(crate) async fn probe(config: &Etcd, endpoint: &Endpoint) -> Result<usize, String> {
    let (gateway, connector) =
        (Gateway::new(&config.prefix), Connector::new(config).map_err(|error| error.to_string())?);
    let (path, body) = gateway.request(&StoreRequest::Look);
    let exchange = async { whole(connector.post(endpoint, path, body).await?, MAX_ANSWER).await };
    let octets = timeout(PROBE, exchange).await.map_err(|_| "it does not answer in time".to_owned())??;
    match gateway.answer(&StoreRequest::Look, &octets)? {
        StoreAnswer::Cells { cells, .. } => Ok(cells.len()),
        _ => Err("it answers something else".to_owned()),
    }
}

struct Client {
    gateway: Gateway,
    connector: Connector,
    endpoints: Vec<Endpoint>,
    state: Mutex<State>,
    patience: Duration,
    mailbox: Mailbox,
}

/// Which endpoint is asked, and what the log has been told.
#[derive(Default)]
struct State {
    current: usize,
    /// Endpoints that have failed one after the other.
    failed: usize,
    told: Option<bool>,
}

impl Client {
    async fn ask(&self, id: u64, request: &StoreRequest) {
        let (nth, endpoint) = self.endpoint();
        let (path, body) = self.gateway.request(request);
        let exchange = async {
            let octets = whole(self.connector.post(endpoint, path, body).await?, MAX_ANSWER).await?;
            self.gateway.answer(request, &octets)
        };
        let answer = match timeout(self.patience, exchange).await {
            Ok(answer) => answer,
            Err(_) => Err(format!("no answer within {} ms", self.patience.as_millis())),
        };
        self.note(nth, answer.as_ref().err());
        self.mailbox.send(Letter::Store { id, answer: answer.unwrap_or(StoreAnswer::Failed) });
    }

    async fn watch(&self, id: u64, from: i64) {
        let (nth, endpoint) = self.endpoint();
        let (path, body) = self.gateway.request(&StoreRequest::Watch { from });
        let opened = match timeout(self.patience, self.connector.post(endpoint, path, body)).await {
            Ok(opened) => opened,
            Err(_) => Err(format!("no answer within {} ms", self.patience.as_millis())),
        };
        match opened {
            // That it ends is no failure of the endpoint's: other requests tell whether it is there.
            Ok(events) => drop(self.follow(id, events).await),
            Err(why) => self.note(nth, Some(&why)),
        }
        self.mailbox.send(Letter::Store { id, answer: StoreAnswer::Failed });
    }

    /// Tells each change, until the stream ends.
    async fn follow(&self, id: u64, mut events: Incoming) -> Result<(), String> {
        let mut waiting = Vec::new();
        while let Some(frame) = events.frame().await {
            let Ok(octets) = frame.map_err(|why| why.to_string())?.into_data() else { continue };
            waiting.extend_from_slice(&octets);
            while let Some(end) = waiting.iter().position(|octet| *octet == b'\n') {
                let line: Vec<u8> = waiting.drain(..=end).collect();
                if let Some(answer) = self.gateway.event(&line)? {
                    self.mailbox.send(Letter::Store { id, answer });
                }
            }
            if waiting.len() > MAX_ANSWER {
                return Err("an event has no end".to_owned());
            }
        }
        Ok(())
    }

    fn endpoint(&self) -> (usize, &Endpoint) {
        let nth = self.state().current;
        (nth, &self.endpoints[nth])
    }

    /// Notes whether an endpoint has answered. The log hears of changes only.
    fn note(&self, nth: usize, failed: Option<&String>) {
        let mut state = self.state();
        let Some(why) = failed else {
            state.failed = 0;
            if state.told.replace(true) != Some(true) {
                info!("etcd answers at {}", self.endpoints[nth]);
            }
            return;
        };
        if nth != state.current {
            // Another request has found out.
            return;
        }
        state.current = (nth + 1) % self.endpoints.len();
        state.failed += 1;
        if state.failed >= self.endpoints.len() && state.told.replace(false) != Some(false) {
            warn!(
                "etcd does not answer ({}: {why}): until it does nobody is taken for dead because of silence, and the role of \
                 the contact node does not move; connections go on",
                self.endpoints[nth]
            );
        }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        // No holder of the lock can panic, so it is never poisoned; and the value would be whole anyway.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
