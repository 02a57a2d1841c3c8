//! TLS towards a broker: ring, certificates from PEM files.

use super::broker::{LinkError, Trust};
use crate::trusted_time::LatestKnown;
use rumqttc::TlsConfiguration;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Where Linux distributions keep the CAs that they trust (Debian, Alpine; Fedora).
const SYSTEM_CAS: [&str; 2] = ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt"];

/// A client's TLS configuration.
pub(super) fn client(trust: &Trust) -> Result<TlsConfiguration, LinkError> {
    let ca = trust.ca.clone().unwrap_or_else(system_cas);
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(certificates(&ca)?);
    if added == 0 {
        return Err(wrong(&ca, "no CA certificate in it"));
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_details(provider, Arc::new(LatestKnown))
        .with_safe_default_protocol_versions()
        .map_err(|e| wrong(&ca, e))?
        .with_root_certificates(roots);
    let config = match &trust.identity {
        None => builder.with_no_client_auth(),
        Some(identity) => {
            let key = PrivateKeyDer::from_pem_file(&identity.key).map_err(|e| wrong(&identity.key, e))?;
            let chain = certificates(&identity.cert)?;
            builder.with_client_auth_cert(chain, key).map_err(|e| wrong(&identity.cert, e))?
        }
    };
    Ok(TlsConfiguration::Rustls(Arc::new(config)))
}

fn system_cas() -> PathBuf {
    let found = SYSTEM_CAS.iter().map(PathBuf::from).find(|path| path.is_file());
    found.unwrap_or_else(|| SYSTEM_CAS[0].into())
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, LinkError> {
    let read = CertificateDer::pem_file_iter(path).map_err(|e| wrong(path, e))?;
    read.collect::<Result<_, _>>().map_err(|e| wrong(path, e))
}

fn wrong(path: &Path, what: impl ToString) -> LinkError {
    LinkError::Tls { path: path.to_path_buf(), what: what.to_string() }
}
