//! Rights from a file, and what is read again while the door runs.

use crate::support::*;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SerialNumber,
};
use rumqttc::{QoS, SubscribeReasonCode, TlsConfiguration, Transport};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::path::PathBuf;
use std::sync::Arc;
use tidegate_broker::{Anonymous, Door, DoorConfig, Listener, TlsFiles};

const RULES: &str = "[[rule]]\nwho = [\"local\"]\npublish = [\"plant/{client_id}/#\"]\n\
    subscribe = [\"plant/+/temp\", \"tg/v1/+/+/state/+\"]\nwill = [\"plant/{client_id}/gone\"]\n";

async fn ruled(rules: &str) -> (Door, Arc<FakeKeeper>, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("rights.toml");
    std::fs::write(&path, rules).unwrap();
    let (door, keeper) = door_with(DoorConfig { rights: Some(path), ..config() }).await;
    (door, keeper, dir)
}

#[tokio::test]
async fn rules_bind_publishes_subscriptions_and_wills() {
    let (door, keeper, _dir) = ruled(RULES).await;
    let (mut raw, _) = Raw::greet_v5(&door, "c1", &[]).await;
    for (topic, reason) in
        [("plant/c1/temp", 0), ("plant/c2/temp", 0x87), ("other", 0x87), ("tg/v1/s/g/state/health", 0x87), (PROMPT, 0)]
    {
        raw.send(&publish_v5(2, topic, Some(5), &[], b"x")).await;
        let (first, ack) = raw.packet().await.unwrap();
        assert_eq!((first, ack.get(2).copied().unwrap_or(0)), (0x40, reason), "{topic}");
    }
    for (filter, granted) in [
        ("plant/+/temp", true),
        ("plant/c1/temp", true),
        ("plant/#", false),
        ("#", false),
        ("tg/v1/s/g/state/health", true),
        ("tg/v1/s/g/event/+", false),
        (ANSWER, true),
        ("tg/v1/+/+/answer/+", true),
        ("tg/v1/s/g/answer/d7", false),
    ] {
        let code = raw.subscribe_v5(filter, 1).await;
        assert_eq!(code, if granted { 1 } else { 0x87 }, "{filter}");
    }
    for (topic, accepted) in [("plant/c1/gone", true), ("plant/c1/temp", false), ("plant/c2/gone", false)] {
        let mut options = Client::options(&door, "c1");
        options.set_last_will(rumqttc::LastWill::new(topic, "x", QoS::AtLeastOnce, false));
        let (_client, mut events) = rumqttc::AsyncClient::new(options, 1);
        assert_eq!(events.poll().await.is_ok(), accepted, "{topic}");
    }
    assert_eq!(keeper.store.lock().unwrap().prompts.len(), 1);
}

#[tokio::test]
async fn a_client_id_cannot_widen_a_pattern() {
    let (door, _keeper, _dir) = ruled(RULES).await;
    for id in ["+", "#", "a/b", "é"] {
        let (mut raw, _) = Raw::greet_v5(&door, id, &[]).await;
        raw.send(&publish_v5(2, "plant/a/b/x", Some(1), &[], b"x")).await;
        assert_eq!(raw.packet().await.unwrap().1[2], 0x87, "{id}");
    }
}

#[tokio::test]
async fn a_dashboard_gets_copies_and_releases_nothing() {
    let (door, keeper, _dir) = ruled("[[rule]]\nwho = [\"local\"]\nsubscribe = [\"tg/v1/s/g/answer/+\"]\n").await;
    let mut dashboard = Client::connect(&door, "dashboard").await;
    dashboard.subscribe("tg/v1/s/g/answer/+", QoS::AtLeastOnce).await;
    keeper.keep_outcome("d7", 1, "for d7");
    door.outcome_ready(&"d7".parse().unwrap(), tidegate_schemas::JobId(1), bytes::Bytes::from_static(b"for d7"));
    assert_eq!(dashboard.message().await, ("tg/v1/s/g/answer/d7".to_owned(), "for d7".to_owned()));
    dashboard.mqtt.publish(PROMPT, QoS::AtLeastOnce, false, "wait for it").await.unwrap();
    keeper.until(|store| store.prompts.len() == 1).await;
    assert!(keeper.store.lock().unwrap().released.is_empty());
}

#[tokio::test]
async fn rights_are_read_again_and_a_bad_file_keeps_the_old() {
    let (door, _keeper, dir) = ruled(RULES).await;
    let path = dir.path().join("rights.toml");
    let mut client = Client::connect(&door, "c").await;
    client.subscribe("plant/+/temp", QoS::AtLeastOnce).await;
    std::fs::write(&path, "[[rule]]\nwho = [\"local\"]\npublsh = []\n").unwrap();
    until(|| door.faults().iter().any(|fault| fault.contains("rights") && fault.contains("publsh"))).await;
    let mut second = Client::connect(&door, "second").await;
    second.subscribe("plant/+/temp", QoS::AtLeastOnce).await;
    std::fs::write(&path, RULES.replace("\"plant/+/temp\", ", "\"other/#\", ")).unwrap();
    door.reload();
    until(|| door.faults().is_empty()).await;
    let ended = async { while client.packets.recv().await.is_some() {} };
    tokio::time::timeout(PATIENCE, ended)
        .await
        .expect("a subscription that is not allowed any more ends the connection");
    let mut third = Client::connect(&door, "third").await;
    for (filter, granted) in [("plant/a/temp", false), ("other/x", true)] {
        third.mqtt.subscribe(filter, QoS::AtLeastOnce).await.unwrap();
        let rumqttc::Packet::SubAck(ack) = third.next().await else { panic!("a SUBACK is due") };
        assert_eq!(ack.return_codes[0] != SubscribeReasonCode::Failure, granted, "{filter}");
    }
}

#[tokio::test]
async fn a_bad_rights_file_keeps_the_door_shut_at_start() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("rights.toml");
    std::fs::write(&path, "[[rule]]\nwho = []\npublish = [\"tg/x\", \"a/#/b\"]\n").unwrap();
    let error = Door::start(DoorConfig { rights: Some(path), ..config() }, FakeKeeper::new()).await.unwrap_err();
    let told = error.to_string();
    for part in ["rights.toml", "who is empty", "tg/x", "a/#/b"] {
        assert!(told.contains(part), "{told} lacks {part}");
    }
}

#[tokio::test]
async fn users_are_read_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = users(&dir);
    let (door, _keeper) = door_with(DoorConfig { users: Some(path.clone()), ..config() }).await;
    let comes_in = async |user: &str| {
        let mut options = Client::options(&door, user);
        options.set_credentials(user, "secret");
        let (_client, mut events) = rumqttc::AsyncClient::new(options, 1);
        events.poll().await.is_ok()
    };
    assert!(comes_in("d7").await && !comes_in("d8").await);
    std::fs::write(&path, "no colon\n").unwrap();
    until(|| door.faults().iter().any(|fault| fault.contains("users") && fault.contains("line 1"))).await;
    assert!(comes_in("d7").await, "the old users stay");
    write_users(&path, &["d8"]);
    until(|| door.faults().is_empty()).await;
    assert!(comes_in("d8").await && !comes_in("d7").await);
}

/// A CA, a server certificate, and clients.
pub(crate) struct Pki {
    dir: tempfile::TempDir,
    ca: Issuer<'static, KeyPair>,
    ca_pem: String,
}

impl Pki {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        // CAs of one name could not be told apart by their revocation lists.
        params.distinguished_name.push(DnType::CommonName, dir.path().display().to_string());
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().unwrap();
        let ca_pem = params.self_signed(&key).unwrap().pem();
        let pki = Self { dir, ca: Issuer::new(params, key), ca_pem };
        std::fs::write(pki.file("ca"), &pki.ca_pem).unwrap();
        pki.write_server();
        pki
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write_server(&self) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        let cert = params.signed_by(&key, &self.ca).unwrap();
        std::fs::write(self.file("cert"), cert.pem()).unwrap();
        std::fs::write(self.file("key"), key.serialize_pem()).unwrap();
    }

    fn client(&self, name: &str, serial: u8) -> (CertificateDer<'static>, PrivateKeyDer<'static>) {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.serial_number = Some(SerialNumber::from(vec![serial]));
        let key = KeyPair::generate().unwrap();
        let cert = params.signed_by(&key, &self.ca).unwrap();
        (cert.der().clone(), PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes()).unwrap())
    }

    fn write_crl(&self, revoked: &[u8]) {
        let now = rcgen::date_time_ymd(2020, 1, 1);
        let entry = |serial: &u8| RevokedCertParams {
            serial_number: SerialNumber::from(vec![*serial]),
            revocation_time: now,
            reason_code: None,
            invalidity_date: None,
        };
        let params = CertificateRevocationListParams {
            this_update: now,
            next_update: rcgen::date_time_ymd(4000, 1, 1),
            crl_number: SerialNumber::from(vec![1]),
            issuing_distribution_point: None,
            revoked_certs: revoked.iter().map(entry).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        std::fs::write(self.file("crl"), params.signed_by(&self.ca).unwrap().pem().unwrap()).unwrap();
    }
}

/// Whether a TLS client with this certificate gets in; the server is checked against this CA.
async fn gets_in(door: &Door, ca_pem: &str, client: &(CertificateDer<'static>, PrivateKeyDer<'static>)) -> bool {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca_pem.as_bytes()).unwrap()).unwrap();
    let tls = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_client_auth_cert(vec![client.0.clone()], client.1.clone_key())
        .unwrap();
    let mut options = rumqttc::MqttOptions::new("c", "localhost", door.local_addrs()[0].port());
    options.set_transport(Transport::Tls(TlsConfiguration::Rustls(Arc::new(tls))));
    let (_client, mut events) = rumqttc::AsyncClient::new(options, 1);
    events.poll().await.is_ok()
}

#[tokio::test]
async fn certificates_and_revocation_lists_are_read_again_and_several_cas_hold() {
    let (pki, second) = (Pki::new(), Pki::new());
    std::fs::write(pki.file("ca2"), &second.ca_pem).unwrap();
    pki.write_crl(&[]);
    let tls = TlsFiles {
        client_cas: vec![pki.file("ca"), pki.file("ca2")],
        crls: vec![pki.file("crl")],
        ..TlsFiles::new(pki.file("cert"), pki.file("key"))
    };
    let mut config = DoorConfig { anonymous: Anonymous::Off, ..config() };
    config.listeners = vec![Listener { addr: "127.0.0.1:0".parse().unwrap(), tls: Some(tls) }];
    let (door, _keeper) = door_with(config).await;
    let (d7, d8, far) = (pki.client("d7", 7), pki.client("d8", 8), second.client("far", 7));
    for client in [&d7, &d8, &far] {
        assert!(gets_in(&door, &pki.ca_pem, client).await);
    }
    assert!(!gets_in(&door, &pki.ca_pem, &Pki::new().client("d7", 7)).await, "another CA's word is none");
    std::fs::write(pki.file("crl"), "no list").unwrap();
    until(|| door.faults().iter().any(|fault| fault.contains("crl"))).await;
    assert!(gets_in(&door, &pki.ca_pem, &d7).await, "the old list stays");
    pki.write_crl(&[7]);
    until(|| door.faults().is_empty()).await;
    assert!(!gets_in(&door, &pki.ca_pem, &d7).await, "revoked");
    assert!(gets_in(&door, &pki.ca_pem, &d8).await && gets_in(&door, &pki.ca_pem, &far).await);
    // The door's own certificate changes to one of the second CA; half of the pair is no reason to close.
    std::fs::copy(second.file("cert"), pki.file("cert")).unwrap();
    door.reload();
    until(|| !door.faults().is_empty()).await;
    assert!(gets_in(&door, &pki.ca_pem, &d8).await);
    std::fs::copy(second.file("key"), pki.file("key")).unwrap();
    until(|| door.faults().is_empty()).await;
    assert!(gets_in(&door, &second.ca_pem, &d8).await && !gets_in(&door, &pki.ca_pem, &d8).await);
}
