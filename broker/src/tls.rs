//! TLS of the listeners: rustls with ring, 1.2 and 1.3, and the identity that a client certificate names.

use crate::config::TlsFiles;
use crate::error::DoorError;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::{RootCertStore, ServerConfig};
use std::path::Path;
use std::sync::Arc;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

/// Reads the files of a listener.
///
/// # Errors
/// Which file cannot be used, and why.
pub(crate) fn server(files: &TlsFiles) -> Result<Arc<ServerConfig>, DoorError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let chain = certificates(&files.cert)?;
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(|e| unusable(&files.key, &e))?;
    let builder = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| unusable(&files.cert, &e))?;
    let builder = match files.client_cas.first() {
        Some(first) => builder.with_client_cert_verifier(verifier(first, files)?),
        None => builder.with_no_client_auth(),
    };
    let config = builder.with_single_cert(chain, key).map_err(|e| unusable(&files.cert, &e))?;
    Ok(Arc::new(config))
}

fn unusable(path: &Path, what: &dyn std::fmt::Display) -> DoorError {
    DoorError::Tls { path: path.to_owned(), what: what.to_string() }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, DoorError> {
    let read = CertificateDer::pem_file_iter(path).map_err(|e| unusable(path, &e))?;
    let chain: Vec<_> = read.collect::<Result<_, _>>().map_err(|e| unusable(path, &e))?;
    if chain.is_empty() { Err(unusable(path, &"no certificate in it")) } else { Ok(chain) }
}

/// Clients may come without a certificate: then a user name must say who they are. A CA without a list of its own
/// revokes nothing; a chain that a list covers is refused when the list is past its next update.
fn verifier(first: &Path, files: &TlsFiles) -> Result<Arc<dyn ClientCertVerifier>, DoorError> {
    let mut roots = RootCertStore::empty();
    for ca in &files.client_cas {
        for certificate in certificates(ca)? {
            roots.add(certificate).map_err(|e| unusable(ca, &e))?;
        }
    }
    let mut crls = Vec::new();
    for path in &files.crls {
        let read = CertificateRevocationListDer::pem_file_iter(path).map_err(|e| unusable(path, &e))?;
        let before = crls.len();
        for crl in read {
            crls.push(crl.map_err(|e| unusable(path, &e))?);
        }
        if crls.len() == before {
            return Err(unusable(path, &"no revocation list in it"));
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
        .with_crls(crls)
        .allow_unknown_revocation_status()
        .enforce_revocation_expiration()
        .allow_unauthenticated()
        .build()
        .map_err(|e| unusable(files.crls.first().map_or(first, |path| path), &e))
}

/// Whom a verified client certificate names: its first DNS name, else its common name.
pub(crate) fn identity(certificate: &CertificateDer<'_>) -> Option<Arc<str>> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let names = certificate.subject_alternative_name().ok()?;
    let dns = names.iter().flat_map(|n| n.value.general_names.iter()).find_map(|name| match name {
        GeneralName::DNSName(name) => Some(*name),
        _ => None,
    });
    let name = dns.or_else(|| certificate.subject().iter_common_name().next()?.as_str().ok())?;
    Some(name.into())
}
