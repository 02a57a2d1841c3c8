//! How long certificates and revocation lists are valid: read from the files, judged by the latest time that is known.

use crate::config::Config;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer};
use serde_json::{Value, json};
use std::fmt;
use std::path::{Path, PathBuf};
use time::OffsetDateTime;
use x509_parser::prelude::{CertificateRevocationList, FromDer, X509Certificate};

/// Days before an end from which it is warned of: time for a person on a site that is seldom visited.
pub(crate) const WARN_DAYS: i64 = 30;
/// Milliseconds of a day.
const DAY_MS: i64 = 24 * 3600 * 1000;
/// Folders below the one that is listed, at most: KIND/SITE/GATEWAY.
const DEPTH_MAX: usize = 3;

/// A moment in milliseconds since 1970; shown as a date.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Until(pub(crate) i64);

impl fmt::Display for Until {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match OffsetDateTime::from_unix_timestamp(self.0 / 1000) {
            Ok(moment) => write!(f, "{}", moment.date()),
            Err(_) => write!(f, "{} ms after 1970", self.0),
        }
    }
}

/// A file with something in it that ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Paper {
    /// What it is for, in words.
    pub(crate) what: &'static str,
    /// The file.
    pub(crate) path: PathBuf,
    /// The first end of anything in it; a key has none.
    pub(crate) until: Option<Until>,
}

/// How near an end is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Nearness {
    /// More than [`WARN_DAYS`] away.
    Far,
    /// Within them.
    Near,
    /// Past.
    Over,
}

impl Paper {
    /// Whole days until the end; negative once it is past.
    pub(crate) fn days(&self, now_ms: u64) -> Option<i64> {
        let now = i64::try_from(now_ms).unwrap_or(i64::MAX);
        Some((self.until?.0.saturating_sub(now)).div_euclid(DAY_MS))
    }

    /// How near its end is.
    pub(crate) fn nearness(&self, now_ms: u64) -> Nearness {
        match self.days(now_ms) {
            Some(days) if days < 0 => Nearness::Over,
            Some(days) if days < WARN_DAYS => Nearness::Near,
            _ => Nearness::Far,
        }
    }

    /// The fact.
    pub(crate) fn sentence(&self, now_ms: u64) -> String {
        let (what, path) = (self.what, self.path.display());
        match (self.until, self.days(now_ms)) {
            (Some(until), Some(days)) if days < 0 => format!("{what} {path} ended on {until}"),
            (Some(until), Some(days)) => format!("{what} {path} is valid until {until}, {days} days"),
            _ => format!("{what} {path}"),
        }
    }
}

/// For a script.
pub(crate) fn json(paper: &Paper) -> Value {
    let days = paper.days(crate::trusted_time::now_ms());
    json!({ "what": paper.what, "file": paper.path, "until_ms": paper.until.map(|until| until.0), "days": days })
}

/// Looks at a file of certificates or revocation lists.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn paper(what: &'static str, path: &Path) -> Result<Paper, String> {
    let refuse = |why: &dyn fmt::Display| format!("{what} {}: {why}", path.display());
    let pem = std::fs::read(path).map_err(|e| refuse(&e))?;
    let mut ends = Vec::new();
    for der in CertificateDer::pem_slice_iter(&pem) {
        let der = der.map_err(|e| refuse(&e))?;
        let (_, cert) = X509Certificate::from_der(&der).map_err(|e| refuse(&e))?;
        ends.push(cert.validity().not_after.timestamp());
    }
    for der in CertificateRevocationListDer::pem_slice_iter(&pem) {
        let der = der.map_err(|e| refuse(&e))?;
        let (_, list) = CertificateRevocationList::from_der(&der).map_err(|e| refuse(&e))?;
        ends.extend(list.next_update().map(|next| next.timestamp()));
    }
    let first = ends.into_iter().min().ok_or_else(|| refuse(&"neither a certificate nor a list with an end in it"))?;
    Ok(Paper { what, path: path.to_owned(), until: Some(Until(first.saturating_mul(1000))) })
}

/// Every file of a certificate, a CA or a list that the configuration names.
pub(crate) fn files(config: &Config) -> Vec<(&'static str, PathBuf)> {
    let mut found = Vec::new();
    for tls in config.door.listeners.iter().filter_map(|listener| listener.tls.as_ref()) {
        found.push(("the door's certificate", tls.cert.clone()));
        found.extend(tls.client_cas.iter().map(|path| ("the CA of devices", path.clone())));
        found.extend(tls.crls.iter().map(|path| ("revocation list", path.clone())));
    }
    let trusts = [config.bridge.as_ref().map(|bridge| &bridge.broker.trust), config.intake.as_ref().map(|b| &b.trust)];
    for trust in trusts.into_iter().flatten() {
        found.extend(trust.identity.iter().map(|own| ("the gateway's certificate", own.cert.clone())));
        found.extend(trust.ca.iter().map(|path| ("the broker's CA", path.clone())));
    }
    found.extend(config.page.tls.iter().map(|tls| ("the page's certificate", tls.cert.clone())));
    found.sort();
    found.dedup();
    found
}

/// Every certificate and list below a folder, by name; files that are none are left out.
pub(crate) fn of_folder(dir: &Path) -> Vec<Paper> {
    let mut found = Vec::new();
    collect(dir, DEPTH_MAX, &mut found);
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

fn collect(dir: &Path, depth: usize, found: &mut Vec<Paper>) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        match path.extension().and_then(|ending| ending.to_str()) {
            Some("crt") => found.extend(paper("certificate", &path)),
            Some("crl") => found.extend(paper("revocation list", &path)),
            _ if depth > 0 && path.is_dir() => collect(&path, depth - 1, found),
            _ => {}
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn ending(in_days: i64) -> Paper {
        Paper { what: "certificate", path: "x.crt".into(), until: Some(Until(in_days * DAY_MS + 5)) }
    }

    #[test]
    fn an_end_is_far_near_or_over() {
        for (days, expect) in [(31, Nearness::Far), (30, Nearness::Far), (29, Nearness::Near), (0, Nearness::Near)] {
            assert_eq!(ending(days).nearness(0), expect, "{days}");
        }
        assert_eq!(ending(0).nearness(6), Nearness::Over);
        assert_eq!(ending(400).sentence(0), "certificate x.crt is valid until 1971-02-05, 400 days");
        assert_eq!(ending(1).sentence(400 * DAY_MS as u64), "certificate x.crt ended on 1970-01-02");
    }

    #[test]
    fn a_file_ends_with_the_first_of_its_certificates() {
        let key = rcgen::KeyPair::generate().unwrap();
        let ending = |year| {
            let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
            params.not_after = rcgen::date_time_ymd(year, 2, 3);
            params.self_signed(&key).unwrap().pem()
        };
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), ending(2041) + &ending(2031)).unwrap();
        assert_eq!(paper("certificate", file.path()).unwrap().until, Some(Until(1_927_843_200_000)));
    }

    #[test]
    fn a_file_without_a_certificate_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.crt");
        std::fs::write(&path, "no PEM").unwrap();
        assert!(paper("certificate", &path).unwrap_err().contains("neither a certificate nor a list"));
        assert!(paper("certificate", &dir.path().join("b.crt")).unwrap_err().contains("No such file"));
        assert!(of_folder(dir.path()).is_empty());
    }
}
