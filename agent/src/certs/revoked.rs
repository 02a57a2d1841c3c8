//! The revocation list. What stood on the old one stays on the new one.

use super::authority::{Authority, failed, in_seconds};
use super::files::replace;
use crate::expiry::{Paper, paper};
use crate::failure::Failure;
use rcgen::{CertificateRevocationListParams, KeyIdMethod, RevocationReason, RevokedCertParams, SerialNumber};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use time::OffsetDateTime;
use x509_parser::prelude::{CertificateRevocationList, FromDer, X509Certificate};

/// Serial numbers and since when they are revoked.
type Revoked = BTreeMap<Vec<u8>, OffsetDateTime>;

/// Writes `ca.crl` anew, with these certificates added.
pub(super) fn write(dir: &Path, authority: &Authority, more: &[PathBuf], days: u32) -> Result<Vec<Paper>, Failure> {
    let path = dir.join("ca.crl");
    let mut revoked = if path.exists() { read(&path)? } else { Revoked::new() };
    let ca = dir.join("ca.crt");
    for file in more {
        revoked.entry(serial(file, &ca)?).or_insert(in_seconds(0)?);
    }
    let now = in_seconds(0)?;
    let params = CertificateRevocationListParams {
        this_update: now,
        next_update: in_seconds(i64::from(days) * 24 * 3600)?,
        // Seconds never go back, and two lists within one are the same list.
        crl_number: SerialNumber::from_slice(&now.unix_timestamp().to_be_bytes()),
        issuing_distribution_point: None,
        revoked_certs: revoked.iter().map(|(serial, since)| entry(serial, *since)).collect(),
        key_identifier_method: KeyIdMethod::Sha256,
    };
    let list = params.signed_by(authority.issuer()).and_then(|list| list.pem()).map_err(failed)?;
    replace(&path, &list)?;
    Ok(paper("revocation list", &path).into_iter().collect())
}

fn entry(serial: &[u8], revocation_time: OffsetDateTime) -> RevokedCertParams {
    RevokedCertParams {
        serial_number: SerialNumber::from_slice(serial),
        revocation_time,
        reason_code: Some(RevocationReason::Unspecified),
        invalidity_date: None,
    }
}

fn read(path: &Path) -> Result<Revoked, Failure> {
    let unusable = |what: &dyn std::fmt::Display| {
        Failure::other(format!("{} cannot be read, what it revokes would be lost: {what}", path.display()))
            .next("put the last good list back")
    };
    let der = CertificateRevocationListDer::from_pem_file(path).map_err(|e| unusable(&e))?;
    let (_, list) = CertificateRevocationList::from_der(&der).map_err(|e| unusable(&e))?;
    let since = |at: i64| OffsetDateTime::from_unix_timestamp(at).map_err(|e| unusable(&e));
    let entries = list.iter_revoked_certificates();
    entries.map(|one| Ok((one.raw_serial().to_vec(), since(one.revocation_date.timestamp())?))).collect()
}

/// The serial number of a certificate of this CA.
fn serial(file: &Path, ca: &Path) -> Result<Vec<u8>, Failure> {
    let unusable = |what: &dyn std::fmt::Display| {
        Failure::other(format!("{}: {what}", file.display())).next("name the .crt file of whom to lock out")
    };
    let der = CertificateDer::from_pem_file(file).map_err(|e| unusable(&e))?;
    let (_, cert) = X509Certificate::from_der(&der).map_err(|e| unusable(&e))?;
    let ca_der = CertificateDer::from_pem_file(ca).map_err(|e| unusable(&e))?;
    let (_, ca) = X509Certificate::from_der(&ca_der).map_err(|e| unusable(&e))?;
    if cert.issuer().as_raw() != ca.subject().as_raw() {
        return Err(unusable(&"another CA signed it"));
    }
    Ok(cert.raw_serial().to_vec())
}
