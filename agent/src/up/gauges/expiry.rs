//! When our certificates end: read from their files, so that a renewed one counts at once.

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use std::path::{Path, PathBuf};
use x509_parser::prelude::{FromDer, X509Certificate};

/// A certificate of ours, and what it is for: a word of a handful.
#[derive(Debug, Clone)]
pub(in crate::up) struct Certificate {
    /// `door`, `bridge`, `intake`, `page`.
    pub(in crate::up) part: &'static str,
    /// Its PEM file.
    pub(in crate::up) file: PathBuf,
}

/// The end of the first certificate of a file, in seconds since 1970.
pub(super) fn ends(file: &Path) -> Option<u64> {
    let der = CertificateDer::pem_file_iter(file).ok()?.next()?.ok()?;
    let (_, certificate) = X509Certificate::from_der(&der).ok()?;
    u64::try_from(certificate.validity().not_after.timestamp()).ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_says_when_it_ends() {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
        params.not_after = rcgen::date_time_ymd(2031, 2, 3);
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), params.self_signed(&key).unwrap().pem()).unwrap();
        assert_eq!(ends(file.path()), Some(1_927_843_200));
        assert_eq!(ends(Path::new("/nowhere.pem")), None);
    }
}
