//! A private CA made by `tidegate certs`, used by a gateway and its devices: who comes in, who does not, renewal and
//! revocation while the gateway runs, and what is said of an end that is near.

use crate::support::{Device, Gateway, Named, Setup, free_port, run, tidegate, until};
use rumqttc::{MqttOptions, TlsConfiguration, Transport};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::Value;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

fn certs(dir: &Path, args: &[&str]) -> (i32, String, String) {
    run(tidegate().arg("certs").args(args).arg("--dir").arg(dir))
}

fn made(dir: &Path, args: &[&str]) {
    let (status, out, err) = certs(dir, args);
    assert_eq!(status, 0, "{args:?}: {out}{err}");
}

fn named(dir: &Path, name: &str) -> Named {
    Named { cert: dir.join(format!("{name}.crt")), key: dir.join(format!("{name}.key")) }
}

/// A CA with a gateway and a device, and the door that they make.
fn site() -> (Setup, PathBuf, u16) {
    let (mut setup, port) = (Setup::new(), free_port());
    let dir = setup.folder.path().join("certs");
    made(&dir, &["init"]);
    made(&dir, &["gateway", "site/gateway"]);
    made(&dir, &["device", "press-7"]);
    made(&dir, &["crl"]);
    setup.door += &format!(
        "\nlisten_tls = [\"127.0.0.1:{port}\"]\ncert = \"certs/gateway/site/gateway.crt\"\n\
         key = \"certs/gateway/site/gateway.key\"\nclient_ca = \"certs/ca.crt\"\ncrl = \"certs/ca.crl\"\n"
    );
    (setup, dir, port)
}

fn options(dir: &Path, own: &Named, port: u16) -> MqttOptions {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(dir.join("ca.crt")).unwrap()).unwrap();
    let tls =
        rustls::ClientConfig::builder_with_provider(std::sync::Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
    let key = rustls::pki_types::PrivateKeyDer::from_pem_file(&own.key).unwrap();
    let tls = tls.with_client_auth_cert(vec![CertificateDer::from_pem_file(&own.cert).unwrap()], key).unwrap();
    let mut options = MqttOptions::new("press-7", "localhost", port);
    options.set_transport(Transport::Tls(TlsConfiguration::Rustls(std::sync::Arc::new(tls))));
    options
}

fn device(dir: &Path, port: u16) -> Device {
    let mut device = Device::with(options(dir, &named(dir, "device/press-7"), port), "press-7");
    device.subscribe("tg/v1/site/gateway/answer/press-7");
    device
}

/// Whether the door turns that client away, rather than taking a prompt of it.
fn is_refused(options: MqttOptions, id: &str) -> bool {
    let mut device = Device::with(options, "press-8");
    device.prompt(format!(r#"{{"id":"{id}","input":"turn on the kitchen light"}}"#));
    until("a word of the door", || {
        let seen = device.seen();
        seen.ended.as_ref().map(|_| true).or((seen.acknowledged > 0).then_some(false))
    })
}

#[test]
fn files_are_ours_alone_and_nothing_is_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("certs");
    let (status, _, err) = certs(&dir, &["device", "press-7"]);
    assert_eq!(status, 1);
    assert!(err.contains("no CA in") && err.contains("next: make one with `tidegate certs init`"), "{err}");
    made(&dir, &["init"]);
    made(&dir, &["device", "press-7"]);
    for name in ["ca.key", "ca.crt", "device/press-7.key", "device/press-7.crt"] {
        assert_eq!(fs::metadata(dir.join(name)).unwrap().permissions().mode() & 0o777, 0o600, "{name}");
    }
    assert_eq!(fs::metadata(&dir).unwrap().permissions().mode() & 0o777, 0o700);
    let before = fs::read(dir.join("device/press-7.crt")).unwrap();
    for args in [&["init"][..], &["device", "press-7"]] {
        let (status, _, err) = certs(&dir, args);
        assert_eq!(status, 1, "{err}");
        assert!(err.contains("is there and is not overwritten"), "{err}");
    }
    made(&dir, &["device", "press-7", "--renew"]);
    let kept = fs::read_dir(dir.join("device")).unwrap().map(|entry| entry.unwrap().path());
    let kept = kept.filter(|path| path.to_string_lossy().contains(".crt.until-")).collect::<Vec<_>>();
    assert_eq!(kept.len(), 1, "the old one is kept");
    assert_eq!(fs::read(&kept[0]).unwrap(), before);
    for wrong in [&["gateway", "north"][..], &["device", "../x"], &["device", "local-1"], &["broker", "mqtts://x"]] {
        let (status, _, err) = certs(&dir, wrong);
        assert_eq!(status, 1, "{wrong:?}");
        assert!(err.contains("next: "), "{wrong:?}: {err}");
    }
    let (_, out, _) = certs(&dir, &["ls", "--json"]);
    let list: Value = serde_json::from_str(&out).unwrap();
    let days = |n: usize| list[n]["days"].as_i64().unwrap();
    assert!((3_650..=3_653).contains(&days(0)) && (364..=366).contains(&days(1)), "{out}");
}

#[test]
fn a_device_with_a_certificate_is_answered_and_a_renewed_and_a_revoked_one_are_noticed_while_it_runs() {
    let (setup, dir, port) = site();
    let mut gateway = setup.start();
    let mut press = device(&dir, port);
    press.prompt(r#"{"id":"a-1","input":"turn on the kitchen light"}"#);
    press.answer("a-1");
    let leaf = |gateway: &Gateway| gateway.status()["certificates"].clone();
    until("the certificates", || leaf(&gateway).as_array().filter(|list| list.len() == 3).map(|_| ()));
    // The door's own certificate.
    made(&dir, &["gateway", "site/gateway", "--renew"]);
    gateway.process.wait_for_log("read again");
    drop(device(&dir, port));
    // Another device is let in until it is on the list.
    made(&dir, &["device", "press-8"]);
    let press_8 = dir.join("device/press-8.crt");
    let own = named(&dir, "device/press-8");
    assert!(!is_refused(options(&dir, &own, port), "before"));
    made(&dir, &["crl", "--revoke", press_8.to_str().unwrap()]);
    until("a refusal", || is_refused(options(&dir, &own, port), "after").then_some(()));
    // A list written later still has it.
    made(&dir, &["crl", "--days", "30"]);
    gateway.process.wait_for_log("read again");
    assert!(is_refused(options(&dir, &own, port), "later"));
    drop(device(&dir, port));
    assert_eq!(gateway.status()["health"]["faults"], Value::Array(Vec::new()));
}

#[test]
fn an_end_that_is_near_is_announced_and_said_by_doctor() {
    let (setup, dir, _) = site();
    made(&dir, &["crl", "--days", "20"]);
    let mut gateway = setup.start();
    gateway.process.wait_for_log("ca.crl is valid until");
    let event = gateway.process.log();
    assert!(event.lines().any(|line| line.contains("announced") && line.contains("certificate")), "{event}");
    let (status, out, err) = run(tidegate().args(["doctor", "--json", "--config"]).arg(setup.config()));
    assert_eq!(status, 0, "{out}{err}");
    let found: Value = serde_json::from_str(&out).unwrap();
    let findings = found["findings"].as_array().unwrap();
    let crl = findings.iter().find(|f| f["what"].as_str().unwrap().contains("ca.crl")).unwrap();
    assert_eq!(crl["level"], "warning", "{crl}");
    assert!(crl["next"].as_str().unwrap().contains("renew it"), "{crl}");
    let door = findings.iter().find(|f| f["what"].as_str().unwrap().contains("gateway.crt")).unwrap();
    assert_eq!(door["level"], "ok", "{door}");
}
