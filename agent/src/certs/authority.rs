//! The CA: keys on P-256, certificates by rcgen with ring.

use super::files::Pair;
use crate::failure::Failure;
use crate::trusted_time;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use std::path::Path;
use tidegate_schemas::{DeviceId, Origin};
use time::OffsetDateTime;

/// How long a CA is valid, in days: ten years, longer than most gateways stand where they were put.
const CA_DAYS: i64 = 3_653;
/// How long anything else is valid, in days: a year.
const PARTY_DAYS: i64 = 366;
/// How long ago validity begins, in seconds: clocks of gateways and devices may lag by a day.
const LAG_S: i64 = 24 * 3600;

/// Whom a certificate names, and for what.
#[derive(Debug)]
pub(super) enum Party {
    /// The central broker: a server.
    Broker {
        /// The name.
        host: String,
        /// More names.
        hosts: Vec<String>,
    },
    /// A gateway: a server to devices, a client to the central broker.
    Gateway {
        /// Its name there.
        origin: Origin,
        /// How devices reach it.
        hosts: Vec<String>,
    },
    /// A device: a client.
    Device(DeviceId),
    /// Workers: clients.
    Worker(String),
}

impl Party {
    /// Folder of its files.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Broker { .. } => "broker",
            Self::Gateway { .. } => "gateway",
            Self::Device(_) => "device",
            Self::Worker(_) => "worker",
        }
    }

    /// Its name: the common name, and the file's below its folder.
    pub(super) fn name(&self) -> String {
        match self {
            Self::Broker { host, .. } => host.clone(),
            Self::Gateway { origin, .. } => format!("{}/{}", origin.site, origin.gateway),
            Self::Device(device) => device.to_string(),
            Self::Worker(name) => name.clone(),
        }
    }

    fn server_names(&self) -> Vec<String> {
        match self {
            Self::Broker { host, hosts } => {
                let mut names = vec![host.clone()];
                names.extend(hosts.iter().filter(|more| *more != host).cloned());
                names
            }
            Self::Gateway { hosts, .. } => hosts.clone(),
            // A door takes the first DNS name for the identity: clients have none, their common name counts.
            Self::Device(_) | Self::Worker(_) => Vec::new(),
        }
    }

    fn purposes(&self) -> Vec<ExtendedKeyUsagePurpose> {
        match self {
            Self::Broker { .. } => vec![ExtendedKeyUsagePurpose::ServerAuth],
            Self::Gateway { .. } => vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth],
            Self::Device(_) | Self::Worker(_) => vec![ExtendedKeyUsagePurpose::ClientAuth],
        }
    }
}

/// The CA, ready to sign.
pub(super) struct Authority {
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// Reads the CA of that folder.
    pub(super) fn open(dir: &Path) -> Result<Self, Failure> {
        let pair = Pair::of_ca(dir);
        let unusable = |path: &Path, what: &dyn std::fmt::Display| {
            Failure::other(format!("no CA in {}: {}: {what}", dir.display(), path.display()))
                .next("make one with `tidegate certs init`, or name its folder with --dir")
        };
        let pem = std::fs::read_to_string(&pair.key).map_err(|e| unusable(&pair.key, &e))?;
        let key = KeyPair::from_pem(&pem).map_err(|e| unusable(&pair.key, &e))?;
        let cert = CertificateDer::from_pem_file(&pair.cert).map_err(|e| unusable(&pair.cert, &e))?;
        let issuer = Issuer::from_ca_cert_der(&cert, key).map_err(|e| unusable(&pair.cert, &e))?;
        Ok(Self { issuer })
    }

    /// Key and certificate of a party, in PEM.
    pub(super) fn issue(&self, party: &Party) -> Result<(String, String), Failure> {
        let mut params = CertificateParams::new(party.server_names()).map_err(failed)?;
        params.distinguished_name = named(&party.name());
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = party.purposes();
        params.use_authority_key_identifier_extension = true;
        (params.not_before, params.not_after) = validity(PARTY_DAYS)?;
        let key = KeyPair::generate().map_err(failed)?;
        let cert = params.signed_by(&key, &self.issuer).map_err(failed)?;
        Ok((key.serialize_pem(), cert.pem()))
    }

    /// Who signs.
    pub(super) fn issuer(&self) -> &Issuer<'static, KeyPair> {
        &self.issuer
    }
}

/// Key and certificate of a new CA, in PEM. It signs parties and lists, no other CAs.
pub(super) fn new_ca(name: &str) -> Result<(String, String), Failure> {
    let mut params = CertificateParams::new(Vec::new()).map_err(failed)?;
    params.distinguished_name = named(name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    (params.not_before, params.not_after) = validity(CA_DAYS)?;
    let key = KeyPair::generate().map_err(failed)?;
    let cert = params.self_signed(&key).map_err(failed)?;
    Ok((key.serialize_pem(), cert.pem()))
}

fn named(name: &str) -> DistinguishedName {
    let mut names = DistinguishedName::new();
    names.push(DnType::CommonName, name);
    names
}

/// From a day ago for so many days.
fn validity(days: i64) -> Result<(OffsetDateTime, OffsetDateTime), Failure> {
    Ok((in_seconds(-LAG_S)?, in_seconds(days * 24 * 3600)?))
}

/// The moment that many seconds from now.
pub(super) fn in_seconds(seconds: i64) -> Result<OffsetDateTime, Failure> {
    let now = i64::try_from(trusted_time::system_ms() / 1000).unwrap_or(i64::MAX);
    let moment = OffsetDateTime::from_unix_timestamp(now.saturating_add(seconds));
    moment.map_err(|e| Failure::other(format!("this machine's clock: {e}")).next("set the clock"))
}

/// What rcgen refuses: none of it is the person's doing.
pub(super) fn failed(error: rcgen::Error) -> Failure {
    Failure::other(format!("the certificate cannot be made: {error}"))
}
