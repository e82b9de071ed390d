//! Asks a controller what it thinks of our certificate.
//!
//! In TLS 1.3 the server judges the client's certificate when the client's side of the handshake is over already. Its refusal
//! then races with the first request, and often all that is left of it is a broken pipe. A connection that only listens
//! gets to read the refusal.

use std::{io, sync::Arc, time::Duration};

use feather_proto::tls::{Principal, Rotating, Tcp, dial_any};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject as _},
};
use tokio::io::AsyncReadExt as _;
use tokio_rustls::TlsConnector;

/// A controller that has nothing against us may well say nothing.
const PATIENCE: Duration = Duration::from_secs(2);

/// The reason why the controller refuses our certificate, if it says one in time.
pub(super) async fn refusal(address: &str, identity: &Rotating) -> Option<rustls::Error> {
    let listen = async {
        let stream = dial_any(&Tcp, address).await?;
        let name = ServerName::try_from(Principal::controller().dns_name()).map_err(io::Error::other)?;
        let mut stream = TlsConnector::from(Arc::new(config(identity)?)).connect(name, stream).await?;
        stream.read_u8().await
    };
    let error = tokio::time::timeout(PATIENCE, listen).await.ok()?.err()?;
    error.get_ref()?.downcast_ref::<rustls::Error>().cloned()
}

fn config(identity: &Rotating) -> io::Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(identity.identity().ca_pem.as_bytes()) {
        roots.add(certificate.map_err(io::Error::other)?).map_err(io::Error::other)?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_root_certificates(roots)
        .with_client_cert_resolver(Arc::new(identity.clone()));
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}
