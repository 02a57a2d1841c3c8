//! A certificate authority for a run: one server certificate for `localhost`, client certificates by name.

use anyhow::Context as _;
use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The authority, and its files in a directory: `ca.pem`, `cert.pem`, `key.pem`.
pub(crate) struct Pki {
    dir: PathBuf,
    ca_pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Pki {
    /// Makes the authority and the server's certificate.
    pub(crate) fn new(dir: &Path) -> anyhow::Result<Self> {
        let (ca_key, server_key) = (KeyPair::generate()?, KeyPair::generate()?);
        let mut ca = CertificateParams::new(Vec::new())?;
        ca.distinguished_name.push(DnType::CommonName, "rigs");
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca_pem = ca.self_signed(&ca_key)?.pem();
        let issuer = Issuer::new(ca, ca_key);
        let server = CertificateParams::new(vec!["localhost".to_owned(), "127.0.0.1".to_owned()])?;
        let server = server.signed_by(&server_key, &issuer)?.pem();
        let pki = Self { dir: dir.to_owned(), ca_pem, issuer };
        for (name, text) in [("ca.pem", &pki.ca_pem), ("cert.pem", &server), ("key.pem", &server_key.serialize_pem())] {
            let path = pki.file(name);
            std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        }
        Ok(pki)
    }

    /// A file of the authority.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Writes the certificate and the key of a client of that name: `client-cert.pem`, `client-key.pem`.
    pub(crate) fn write_client(&self, name: &str) -> anyhow::Result<()> {
        let (certificate, key) = self.sign(name)?;
        std::fs::write(self.file("client-cert.pem"), certificate.pem()).context("cannot write a certificate")?;
        std::fs::write(self.file("client-key.pem"), key.serialize_pem()).context("cannot write a key")
    }

    fn sign(&self, name: &str) -> anyhow::Result<(rcgen::Certificate, KeyPair)> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(Vec::new())?;
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        Ok((params.signed_by(&key, &self.issuer)?, key))
    }

    /// A client that brings a certificate of that name, or none.
    pub(crate) fn client(&self, name: Option<&str>) -> anyhow::Result<Arc<rustls::ClientConfig>> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.ca_pem.as_bytes())?)?;
        let builder = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots);
        let Some(name) = name else { return Ok(Arc::new(without_resumption(builder.with_no_client_auth()))) };
        let (certificate, key) = self.sign(name)?;
        let certificate = certificate.der().clone();
        let key = PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes())?;
        Ok(Arc::new(without_resumption(builder.with_client_auth_cert(vec![certificate], key)?)))
    }
}

/// Devices that come back after a power cut have no ticket: every handshake of a rig is a whole one.
fn without_resumption(mut config: rustls::ClientConfig) -> rustls::ClientConfig {
    config.resumption = rustls::client::Resumption::disabled();
    config
}
