//! One request to etcd over HTTP/1.1, on a connection of its own: two or three in a second are not worth keeping one.

use std::sync::Arc;

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::Request;
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::config::{Endpoint, Etcd, FileError};
use crate::driver::peers::{certificates, private_key, roots};

const RIGHT: &str = "[directory] names the files by which etcd and this node know each other";

/// Connects to endpoints.
pub(super) struct Connector {
    tls: TlsConnector,
}

impl Connector {
    /// Reads the files that the configuration names.
    pub(super) fn new(config: &Etcd) -> Result<Self, FileError> {
        let roots = match &config.ca {
            Some(ca) => roots(ca).map_err(ours)?,
            None => Arc::new(RootCertStore::empty()),
        };
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let wrong = |why: rustls::Error| FileError::Malformed {
            file: config.certificate.as_ref().map(|(certificate, _)| certificate.clone()).unwrap_or_default(),
            what: why.to_string(),
            right: RIGHT,
        };
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(wrong)?
            .with_root_certificates(roots);
        let tls = match &config.certificate {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => builder
                .with_client_auth_cert(
                    certificates(certificate).map_err(ours)?,
                    private_key(key).map_err(ours)?,
                )
                .map_err(wrong)?,
        };
        Ok(Self { tls: Arc::new(tls).into() })
    }

    /// The body of the answer, if it is one of success.
    pub(super) async fn post(
        &self,
        endpoint: &Endpoint,
        path: &str,
        body: String,
    ) -> Result<Incoming, String> {
        let stream = TcpStream::connect((endpoint.host.as_str(), endpoint.port)).await.map_err(told)?;
        stream.set_nodelay(true).map_err(told)?;
        let request = Request::post(path)
            .header("host", endpoint.authority())
            .header("content-type", "application/json")
            .body(Full::from(body))
            .map_err(told)?;
        if !endpoint.tls {
            return send(stream, request).await;
        }
        let name = ServerName::try_from(endpoint.host.clone()).map_err(told)?;
        send(self.tls.connect(name, stream).await.map_err(told)?, request).await
    }
}

async fn send<S>(stream: S, request: Request<Full<Bytes>>) -> Result<Incoming, String>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(told)?;
    // Ends when the body has been read, or nobody wants it any more.
    tokio::spawn(connection);
    let answer = sender.send_request(request).await.map_err(told)?;
    let status = answer.status();
    if status.is_success() {
        return Ok(answer.into_body());
    }
    let why = whole(answer.into_body(), 1 << 10).await.unwrap_or_default();
    Err(format!("{status}: {}", String::from_utf8_lossy(&why).trim()))
}

/// A body to its end, of at most so many octets.
pub(super) async fn whole(body: Incoming, limit: usize) -> Result<Bytes, String> {
    Limited::new(body, limit).collect().await.map(http_body_util::Collected::to_bytes).map_err(told)
}

#[allow(clippy::needless_pass_by_value, reason = "it is what `map_err` gives")]
fn told(why: impl ToString) -> String {
    why.to_string()
}

/// These files are not those of `ferry keygen`.
fn ours(error: FileError) -> FileError {
    match error {
        FileError::Unreadable { file, why, .. } => FileError::Unreadable { file, why, right: RIGHT },
        FileError::Malformed { file, what, .. } => FileError::Malformed { file, what, right: RIGHT },
    }
}
