//! A client certificate that is renewed while the gateway runs.

use crate::brokers::Mosquitto;
use crate::support::{Setup, until};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use std::fs;
use std::path::Path;

struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, "a test's authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    /// Writes certificate and key of that name, each in one step.
    fn issue(&self, folder: &Path, name: &str, common_name: &str) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, common_name);
        let cert = params.signed_by(&key, &self.issuer).unwrap();
        for (ending, pem) in [("crt", cert.pem()), ("key", key.serialize_pem())] {
            let fresh = folder.join(format!("{name}.{ending}.new"));
            fs::write(&fresh, pem).unwrap();
            fs::rename(fresh, folder.join(format!("{name}.{ending}"))).unwrap();
        }
    }
}

#[test]
fn a_renewed_certificate_is_used_without_a_restart_and_one_that_does_not_fit_is_not() {
    let (folder, authority) = (tempfile::tempdir().unwrap(), Authority::new());
    let dir = folder.path();
    fs::write(dir.join("ca.crt"), &authority.pem).unwrap();
    authority.issue(dir, "broker", "broker");
    authority.issue(dir, "gateway", "first");
    let tls = format!(
        "cafile {0}/ca.crt\ncertfile {0}/broker.crt\nkeyfile {0}/broker.key\nrequire_certificate true\n\
         use_identity_as_username true\n",
        dir.display()
    );
    let central = Mosquitto::start(&tls);
    let mut setup = Setup::bridged(central.port);
    let with = format!(
        "mqtts://127.0.0.1:{}\"\nca = \"{1}/ca.crt\"\ncert = \"{1}/gateway.crt\"\nkey = \"{1}/gateway.key\"",
        central.port,
        dir.display()
    );
    setup.more = setup.more.replacen(&format!("mqtt://127.0.0.1:{}\"", central.port), &with, 1);
    let mut gateway = setup.start();
    until("the first name", || central.process.log().contains("u'first'").then_some(()));
    // A key that is not the certificate's: the connection stays.
    let key = fs::read(dir.join("gateway.key")).unwrap();
    fs::write(dir.join("gateway.key"), KeyPair::generate().unwrap().serialize_pem()).unwrap();
    gateway.process.wait_for_log("the old ones stay");
    assert_eq!(gateway.status()["health"]["link"], "up");
    fs::write(dir.join("gateway.key"), key).unwrap();
    authority.issue(dir, "gateway", "second");
    until("the second name", || central.process.log().contains("u'second'").then_some(()));
    gateway.until_status("the link", |s| s["health"]["link"] == "up");
}
