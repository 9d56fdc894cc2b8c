//! Mutual TLS 1.3 between nodes: each proves with a certificate of the group's authority that it is
//! `NODE.GROUP.ferry`.

use std::path::Path;
use std::sync::Arc;

use rustls::client::danger::ServerCertVerifier as _;
use rustls::client::{Resumption, WebPkiServerVerifier, verify_server_name};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::version::TLS13;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::config::{FileError, KeyFiles};

/// The name that the certificate of a node carries.
pub(crate) fn certified_name(node: &str, group: &str) -> String {
    format!("{node}.{group}.ferry")
}

/// One certificate of a chain.
pub(super) type Certificate = CertificateDer<'static>;

/// Both roles of one node.
#[derive(Clone)]
pub(in crate::driver) struct Tls {
    pub(in crate::driver) connector: TlsConnector,
    pub(in crate::driver) acceptor: TlsAcceptor,
}

const KEYGEN: &str = "use the files that `ferry keygen` made for this node";

impl Tls {
    /// Reads the files; refuses a certificate that is not this node's.
    pub(in crate::driver) fn load(files: &KeyFiles, node: &str, group: &str) -> Result<Self, FileError> {
        let roots = roots(&files.ca)?;
        let chain = certificates(&files.certificate)?;
        is_for(&chain, &certified_name(node, group)).map_err(|what| malformed(&files.certificate, what))?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let wrong_pair = |why: rustls::Error| malformed(&files.key, why.to_string());

        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(&provider))
            .build()
            .map_err(|why| malformed(&files.ca, why.to_string()))?;
        let mut server = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&TLS13])
            .map_err(wrong_pair)?
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain.clone(), private_key(&files.key)?)
            .map_err(wrong_pair)?;
        // A link is set up rarely, and each time both sides show who they are.
        server.send_tls13_tickets = 0;
        let mut client = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])
            .map_err(wrong_pair)?
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, private_key(&files.key)?)
            .map_err(wrong_pair)?;
        client.resumption = Resumption::disabled();
        Ok(Self { connector: Arc::new(client).into(), acceptor: Arc::new(server).into() })
    }
}

/// Whether the others would believe a node with these files, as far as that can be told now and here; tells what its
/// certified name is.
pub(crate) fn verify_own(files: &KeyFiles, node: &str, group: &str) -> Result<String, FileError> {
    Tls::load(files, node, group)?;
    let chain = certificates(&files.certificate)?;
    let name = certified_name(node, group);
    let wrong = |why: rustls::Error| malformed(&files.certificate, why.to_string());
    let server_name =
        ServerName::try_from(name.as_str()).map_err(|why| malformed(&files.certificate, why.to_string()))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = WebPkiServerVerifier::builder_with_provider(roots(&files.ca)?, provider)
        .build()
        .map_err(|why| malformed(&files.ca, why.to_string()))?;
    let (first, rest) =
        chain.split_first().ok_or_else(|| malformed(&files.certificate, "is empty".to_owned()))?;
    verifier.verify_server_cert(first, rest, &server_name, &[], UnixTime::now()).map_err(wrong)?;
    Ok(name)
}

pub(in crate::driver) fn roots(file: &Path) -> Result<Arc<RootCertStore>, FileError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(file)? {
        roots.add(certificate).map_err(|why| malformed(file, why.to_string()))?;
    }
    Ok(Arc::new(roots))
}

pub(in crate::driver) fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, FileError> {
    let text = read(file)?;
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(&text)
        .collect::<Result<_, _>>()
        .map_err(|why| malformed(file, why.to_string()))?;
    if certificates.is_empty() {
        return Err(malformed(file, "holds no certificate".to_owned()));
    }
    Ok(certificates)
}

pub(in crate::driver) fn private_key(file: &Path) -> Result<PrivateKeyDer<'static>, FileError> {
    PrivateKeyDer::from_pem_slice(&read(file)?)
        .map_err(|why| malformed(file, format!("holds no private key: {why}")))
}

fn read(file: &Path) -> Result<Vec<u8>, FileError> {
    std::fs::read(file).map_err(|why| FileError::Unreadable { file: file.to_owned(), why, right: KEYGEN })
}

fn malformed(file: &Path, what: String) -> FileError {
    FileError::Malformed { file: file.to_owned(), what, right: KEYGEN }
}

/// Whether the first certificate, whose chain somebody else has checked, is for `name`.
pub(super) fn is_for(chain: &[CertificateDer<'_>], name: &str) -> Result<(), String> {
    let first = chain.first().ok_or("no certificate")?;
    let parsed = ParsedCertificate::try_from(first).map_err(|why| why.to_string())?;
    let server_name = ServerName::try_from(name).map_err(|why| why.to_string())?;
    verify_server_name(&parsed, &server_name).map_err(|_| format!("the certificate is not for {name}"))
}
