//! Files that are read again while the gateway runs: a bad new one keeps the old in use, and the log, an event and the
//! health say so, for each of the four kinds; so do they when it is well again.

use crate::support::{Device, Gateway, Setup, free_port, run, tidegate, until};
use argon2::password_hash::{PasswordHasher, SaltString};
use std::fs;
use std::path::{Path, PathBuf};

const RULES: &str = "[[rule]]\nwho = [\"*\"]\nsubscribe = [\"tg/v1/+/+/event/+\"]\n";

struct Files {
    users: PathBuf,
    rights: PathBuf,
    cert: PathBuf,
    crl: PathBuf,
}

fn certs(dir: &Path, args: &[&str]) {
    let (status, out, err) = run(tidegate().arg("certs").args(args).arg("--dir").arg(dir));
    assert_eq!(status, 0, "{args:?}: {out}{err}");
}

fn setup() -> (Setup, Files) {
    let mut setup = Setup::new();
    let folder = setup.folder.path().to_owned();
    let dir = folder.join("certs");
    for args in [&["init"][..], &["gateway", "site/gateway"], &["crl"]] {
        certs(&dir, args);
    }
    let params = argon2::Params::new(argon2::Params::MIN_M_COST, 1, 1, None).unwrap();
    let argon = argon2::Argon2::new(argon2::Algorithm::Argon2id, argon2::Version::V0x13, params);
    let salt = SaltString::encode_b64(b"saltsaltsalt").unwrap();
    let hash = argon.hash_password(b"secret", &salt).unwrap();
    let files = Files {
        users: folder.join("users"),
        rights: folder.join("rights.toml"),
        cert: dir.join("gateway/site/gateway.crt"),
        crl: dir.join("ca.crl"),
    };
    fs::write(&files.users, format!("press-7:{hash}\n")).unwrap();
    fs::write(&files.rights, RULES).unwrap();
    setup.door = format!(
        "listen = [\"127.0.0.1:{}\"]\nusers_file = {:?}\nrights_file = {:?}\nlisten_tls = [\"127.0.0.1:{}\"]\n\
         cert = {:?}\nkey = \"certs/gateway/site/gateway.key\"\nclient_ca = \"certs/ca.crt\"\ncrl = {:?}\n",
        setup.port,
        files.users,
        files.rights,
        free_port(),
        files.cert,
        files.crl
    );
    (setup, files)
}

fn press(gateway: &Gateway, client_id: &str) -> Device {
    let mut options = rumqttc::MqttOptions::new(client_id, "127.0.0.1", gateway.port);
    options.set_credentials("press-7", "secret");
    let mut press = Device::with(options, "press-7");
    press.subscribe("tg/v1/site/gateway/event/+");
    press
}

/// Whether an event whose message has all of these came.
fn announced(observer: &Device, parts: &[&str]) -> Option<()> {
    let says = |event: &serde_json::Value| {
        let message = event["message"].as_str().unwrap_or_default();
        parts.iter().all(|part| message.contains(part))
    };
    observer.frames().iter().any(says).then_some(())
}

#[test]
fn a_bad_new_file_is_said_in_the_log_and_as_an_event_and_the_old_stays() {
    let (setup, files) = setup();
    let gateway = setup.start();
    let observer = press(&gateway, "observer");
    for (file, what) in [
        (&files.users, "users"),
        (&files.rights, "rights"),
        (&files.cert, "certificates"),
        (&files.crl, "certificates"),
    ] {
        let well = fs::read(file).unwrap();
        fs::write(file, "neither one nor the other\n").unwrap();
        let name = file.file_name().unwrap().to_str().unwrap();
        let parts = [what, "cannot be read again, the old stay in use", name];
        until(&format!("the event of {name}"), || announced(&observer, &parts));
        let log = gateway.process.log();
        let line = |line: &str| line.contains("WARN") && line.contains("the old stay in use") && line.contains(name);
        assert!(log.lines().any(line), "{name}: {log}");
        let faults = gateway.status()["health"]["faults"].to_string();
        assert!(faults.contains(name), "{name}: {faults}");
        // Whoever came in by the old files still does.
        drop(press(&gateway, "newcomer"));
        fs::write(file, well).unwrap();
        until(&format!("the end of the fault of {name}"), || announced(&observer, &["no more", what, name]));
    }
    assert!(observer.seen().topics.iter().any(|topic| topic == "tg/v1/site/gateway/event/reload"));
}
