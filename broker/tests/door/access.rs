//! Who is let in, and who may do what.

use crate::support::*;
use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use rumqttc::{Packet, QoS, SubscribeReasonCode, TlsConfiguration, Transport};
use std::sync::Arc;
use tidegate_broker::{Anonymous, DoorError, Listener, TlsFiles};

#[tokio::test]
async fn passwords_open_and_wrong_ones_get_the_right_code() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config();
    (config.users, config.anonymous) = (Some(users(&dir)), Anonymous::Off);
    let (door, keeper) = door_with(config).await;
    let connect = |user: &str, password: &str| {
        let mut options = Client::options(&door, "c");
        options.set_credentials(user, password);
        options
    };
    for (user, password) in [("d7", "wrong"), ("nobody", "secret")] {
        let (_client, mut events) = rumqttc::AsyncClient::new(connect(user, password), 1);
        let refused = events.poll().await.unwrap_err().to_string();
        assert!(refused.contains("BadUserNamePassword"), "{refused}");
    }
    let (_client, mut events) = rumqttc::AsyncClient::new(Client::options(&door, "c"), 1);
    let refused = events.poll().await.unwrap_err().to_string();
    assert!(refused.contains("NotAuthorized"), "{refused}");
    let client = Client::with(connect("d7", "secret")).await;
    client.mqtt.publish("tg/v1/s/g/prompt/d7", QoS::AtLeastOnce, false, "mine").await.unwrap();
    keeper.until(|store| store.prompts.len() == 1).await;
}

#[tokio::test]
async fn a_device_reads_and_writes_only_its_own() {
    let (door, keeper) = door().await;
    let mut client = Client::connect(&door, "c").await;
    for (filter, granted) in [
        (ANSWER, true),
        ("tg/v1/s/g/answer/d7", false),
        ("tg/v1/s/g/prompt/local-1", false),
        ("tg/v1/+/+/escalate/+", false),
        ("$SYS/#", false),
        ("$share/g/t", false),
    ] {
        client.mqtt.subscribe(filter, QoS::AtLeastOnce).await.unwrap();
        let Packet::SubAck(ack) = client.next().await else { panic!("a SUBACK is due") };
        assert_eq!(ack.return_codes[0] != SubscribeReasonCode::Failure, granted, "{filter}");
    }
    for topic in ["tg/v1/s/g/prompt/d7", "tg/v1/s/g/state/health", "tg/v1/s/other/prompt/local-1"] {
        client.mqtt.publish(topic, QoS::AtLeastOnce, false, "{}").await.unwrap();
        assert!(client.message().await.1.contains("not_allowed"), "{topic}");
    }
    assert!(keeper.store.lock().unwrap().prompts.is_empty());
}

#[tokio::test]
async fn a_3_1_1_client_without_answer_topic_is_disconnected_when_refused() {
    let (door, _keeper) = door().await;
    let mut raw = Raw::open(&door).await;
    raw.send(&connect_v4("c", 0)).await;
    raw.expect(&[0x20, 2, 0, 0]).await;
    raw.send(&publish_v4(2, b"tg/v1/s/g/prompt/d7", Some(1), b"hello")).await;
    assert!(raw.rest().await.is_empty());
}

#[tokio::test]
async fn wills_below_tg_are_refused() {
    let (door, _keeper) = door().await;
    for topic in [PROMPT, "tg/v1/s/g/control/local-1", "tg/v1/s/g/state/health"] {
        let mut options = Client::options(&door, "c");
        options.set_last_will(rumqttc::LastWill::new(topic, "x", QoS::AtLeastOnce, false));
        let (_client, mut events) = rumqttc::AsyncClient::new(options, 1);
        let refused = events.poll().await.unwrap_err().to_string();
        assert!(refused.contains("NotAuthorized"), "{topic} {refused}");
    }
}

struct Pki {
    dir: tempfile::TempDir,
    ca_pem: String,
    client: (String, String),
}

fn pki() -> Pki {
    let dir = tempfile::tempdir().unwrap();
    let (ca_key, server_key, client_key) =
        (KeyPair::generate().unwrap(), KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let mut ca = CertificateParams::new(Vec::new()).unwrap();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca_pem = ca.self_signed(&ca_key).unwrap().pem();
    let issuer = Issuer::new(ca, ca_key);
    let server = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let server = server.signed_by(&server_key, &issuer).unwrap().pem();
    let mut client = CertificateParams::new(Vec::new()).unwrap();
    client.distinguished_name.push(DnType::CommonName, "d7");
    client.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let client = client.signed_by(&client_key, &issuer).unwrap().pem();
    for (name, text) in [("ca", &ca_pem), ("cert", &server), ("key", &server_key.serialize_pem())] {
        std::fs::write(dir.path().join(name), text).unwrap();
    }
    Pki { dir, ca_pem, client: (client, client_key.serialize_pem()) }
}

#[tokio::test]
async fn a_client_certificate_names_the_device() {
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    let pki = pki();
    let file = |name| pki.dir.path().join(name);
    let tls = TlsFiles { client_cas: vec![file("ca")], ..TlsFiles::new(file("cert"), file("key")) };
    let mut config = config();
    config.listeners = vec![Listener { addr: "127.0.0.1:0".parse().unwrap(), tls: Some(tls) }];
    config.anonymous = Anonymous::Off;
    let (door, keeper) = door_with(config).await;
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(pki.ca_pem.as_bytes()).unwrap()).unwrap();
    let builder = || {
        rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots.clone())
    };
    let options = |tls: rustls::ClientConfig| {
        let port = door.local_addrs()[0].port();
        let mut options = rumqttc::MqttOptions::new("c", "localhost", port);
        options.set_transport(Transport::Tls(TlsConfiguration::Rustls(Arc::new(tls))));
        options
    };
    let chain = vec![CertificateDer::from_pem_slice(pki.client.0.as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(pki.client.1.as_bytes()).unwrap();
    let client = Client::with(options(builder().with_client_auth_cert(chain, key).unwrap())).await;
    client.mqtt.publish("tg/v1/s/g/prompt/d7", QoS::AtLeastOnce, false, "mine").await.unwrap();
    keeper.until(|store| store.prompts.len() == 1).await;
    let (_client, mut events) = rumqttc::AsyncClient::new(options(builder().with_no_client_auth()), 1);
    let refused = events.poll().await.unwrap_err().to_string();
    assert!(refused.contains("NotAuthorized"), "{refused}");
}

#[tokio::test]
async fn a_port_that_is_taken_is_named() {
    let (door, keeper) = door().await;
    let mut config = config();
    config.listeners[0].addr = door.local_addrs()[0];
    let error = tidegate_broker::Door::start(config, keeper).await.unwrap_err();
    assert!(matches!(&error, DoorError::Listen { addr, .. } if *addr == door.local_addrs()[0]), "{error}");
}
