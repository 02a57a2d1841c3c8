//! Certificates: an authority, whom it names, and clients that show what it gave them.

use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use rumqttc::{MqttOptions, TlsConfiguration, Transport};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// An authority and the folder of its files.
pub(crate) struct Pki {
    folder: PathBuf,
    issuer: Issuer<'static, KeyPair>,
}

/// PEM files of a certificate and its key.
pub(crate) struct Named {
    pub(crate) cert: PathBuf,
    pub(crate) key: PathBuf,
}

impl Pki {
    /// A new authority with its files in `folder`.
    pub(crate) fn new(folder: &Path) -> Self {
        fs::create_dir_all(folder).unwrap();
        let key = KeyPair::generate().unwrap();
        let mut ca = CertificateParams::new(Vec::new()).unwrap();
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        fs::write(folder.join("ca.pem"), ca.self_signed(&key).unwrap().pem()).unwrap();
        Self { folder: folder.to_path_buf(), issuer: Issuer::new(ca, key) }
    }

    /// The authority's own certificate.
    pub(crate) fn ca(&self) -> PathBuf {
        self.folder.join("ca.pem")
    }

    /// A certificate for a server at `localhost`.
    pub(crate) fn server(&self) -> Named {
        self.issue("server", CertificateParams::new(vec!["localhost".to_owned()]).unwrap())
    }

    /// A certificate that names a device.
    pub(crate) fn device(&self, name: &str) -> Named {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.issue(name, params)
    }

    fn issue(&self, name: &str, params: CertificateParams) -> Named {
        let key = KeyPair::generate().unwrap();
        let named =
            Named { cert: self.folder.join(format!("{name}.pem")), key: self.folder.join(format!("{name}.key")) };
        fs::write(&named.cert, params.signed_by(&key, &self.issuer).unwrap().pem()).unwrap();
        fs::write(&named.key, key.serialize_pem()).unwrap();
        named
    }

    /// Options of a client that trusts this authority, with a certificate of whomever it likes.
    pub(crate) fn client(&self, client_id: &str, port: u16, own: Option<&Named>) -> MqttOptions {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(self.ca()).unwrap()).unwrap();
        let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let tls = match own {
            None => builder.with_no_client_auth(),
            Some(own) => {
                let chain = vec![CertificateDer::from_pem_file(&own.cert).unwrap()];
                builder.with_client_auth_cert(chain, PrivateKeyDer::from_pem_file(&own.key).unwrap()).unwrap()
            }
        };
        let mut options = MqttOptions::new(client_id, "localhost", port);
        options.set_transport(Transport::Tls(TlsConfiguration::Rustls(Arc::new(tls))));
        options
    }
}
