//! TLS of the page: a certificate that is read again when its file changes.

use crate::config::PageTls;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;
use tokio_rustls::TlsAcceptor;
use tracing::warn;

/// The files and what was last read of them.
pub(super) struct Certificate {
    files: PageTls,
    stamp: Stamp,
    acceptor: TlsAcceptor,
}

/// When both files changed last.
type Stamp = [Option<SystemTime>; 2];

fn stamp(files: &PageTls) -> Stamp {
    [&files.cert, &files.key].map(|file| fs::metadata(file).and_then(|found| found.modified()).ok())
}

impl Certificate {
    /// Reads the files.
    ///
    /// # Errors
    /// In words: which file cannot be used, and why.
    pub(super) fn open(files: PageTls) -> Result<Self, String> {
        Ok(Self { stamp: stamp(&files), acceptor: acceptor(&files)?, files })
    }

    /// What the next connection is met with. Files that cannot be used leave the old in use.
    pub(super) fn acceptor(&mut self) -> TlsAcceptor {
        let now = stamp(&self.files);
        if now != self.stamp {
            self.stamp = now;
            match acceptor(&self.files) {
                Ok(acceptor) => self.acceptor = acceptor,
                Err(error) => warn!(%error, "the page's certificate cannot be read again, the old stays in use"),
            }
        }
        self.acceptor.clone()
    }
}

fn acceptor(files: &PageTls) -> Result<TlsAcceptor, String> {
    let wrong = |file: &Path, what: &dyn std::fmt::Display| format!("{}: {what}", file.display());
    let read = CertificateDer::pem_file_iter(&files.cert).map_err(|e| wrong(&files.cert, &e))?;
    let chain: Vec<_> = read.collect::<Result<_, _>>().map_err(|e| wrong(&files.cert, &e))?;
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(|e| wrong(&files.key, &e))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key))
        .map_err(|e| wrong(&files.cert, &e))?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}
