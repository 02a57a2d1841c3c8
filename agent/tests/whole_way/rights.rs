//! Who is let in over TLS and with passwords, and what they may touch.

use crate::support::{Device, LONG, Named, Pki, Setup, run, tidegate};
use argon2::password_hash::{PasswordHasher, SaltString};
use rumqttc::MqttOptions;
use std::fs;
use std::path::Path;

const PREFIX: &str = "tg/v1/site/gateway";

/// A gateway that speaks TLS only, knows its devices by certificate and lets nobody in without a name.
fn secured() -> (Setup, Pki) {
    let mut setup = Setup::new();
    let pki = Pki::new(&setup.folder.path().join("pki"));
    let Named { cert, key } = pki.server();
    setup.door = format!(
        "listen = []\nlisten_tls = [\"127.0.0.1:{}\"]\ncert = {cert:?}\nkey = {key:?}\nclient_ca = {:?}\nanonymous = \"off\"",
        setup.port,
        pki.ca()
    );
    (setup, pki)
}

#[test]
fn a_certificate_names_its_device_and_no_other() {
    let (setup, pki) = secured();
    let gateway = setup.start();
    let mut press = Device::with(pki.client("press-7", gateway.port, Some(&pki.device("press-7"))), "press-7");
    press.subscribe(&format!("{PREFIX}/answer/press-7"));
    press.prompt(r#"{"id":"t-1","input":"turn on the kitchen light"}"#);
    assert_eq!(press.answer("t-1")["route"], "local");
    // The topics of another device: neither to be read nor to be written.
    for filter in ["answer/press-8", "prompt/press-8", "prompt/press-7"] {
        let denied = press.seen().denied;
        press.subscribe(&format!("{PREFIX}/{filter}"));
        assert_eq!(press.seen().denied, denied + 1, "{filter}");
    }
    // A wildcard is taken, and brings what a name would have brought.
    press.subscribe(&format!("{PREFIX}/answer/+"));
    press.publish_to(format!("{PREFIX}/prompt/press-8"), r#"{"id":"t-2","input":"turn on the kitchen light"}"#);
    assert_eq!(press.outcome("t-2")["code"], "not_allowed");
    let mut other = Device::with(pki.client("press-8", gateway.port, Some(&pki.device("press-8"))), "press-8");
    other.subscribe(&format!("{PREFIX}/answer/press-8"));
    other.fence("t-3");
    assert_eq!(other.frames().iter().filter(|f| f["id"] != "t-3").count(), 0, "nothing was done in its name");
    press.fence("t-4");
    assert!(press.frames().iter().all(|f| f["id"] != "t-3"), "an answer of another device arrived");
    assert_eq!(gateway.status()["answered"]["local"], 3);
}

#[test]
fn a_certificate_of_another_authority_opens_nothing() {
    let (setup, pki) = secured();
    let gateway = setup.start();
    let stranger = Pki::new(&setup.folder.path().join("stranger"));
    let forged = Device::with(pki.client("press-7", gateway.port, Some(&stranger.device("press-7"))), "press-7");
    forged.until_ended();
    let nameless = Device::with(pki.client("press-7", gateway.port, None), "press-7");
    assert!(nameless.until_ended().contains("NotAuthorized"), "{}", nameless.until_ended());
    // A device that trusts the stranger tells it no prompt.
    let misled = Device::with(stranger.client("press-7", gateway.port, Some(&pki.device("press-7"))), "press-7");
    assert!(misled.until_ended().contains("invalid peer certificate"), "{}", misled.until_ended());
    let connected = gateway.status();
    assert_eq!(connected["door"]["publishes"], 0, "{connected}");
    let mut press = Device::with(pki.client("press-7", gateway.port, Some(&pki.device("press-7"))), "press-7");
    press.subscribe(&format!("{PREFIX}/answer/press-7"));
    press.fence("t-5");
}

#[test]
fn a_borrowed_client_id_brings_nothing_of_another_device() {
    let (setup, pki) = secured();
    let gateway = setup.start();
    let (seven, eight) = (pki.device("press-7"), pki.device("press-8"));
    let connect = |client_id: &str, own: &Named, name: &str| {
        let mut options = pki.client(client_id, gateway.port, Some(own));
        options.set_clean_session(false);
        Device::with(options, name)
    };
    let mut press = connect("shared", &seven, "press-7");
    press.subscribe(&format!("{PREFIX}/answer/press-7"));
    drop(press);
    let mut thief = connect("shared", &eight, "press-8");
    let mut press = connect("other", &seven, "press-7");
    press.prompt(r#"{"id":"b-1","input":"turn on the kitchen light"}"#);
    press.until_acknowledged();
    gateway.until_status("the outcome", |s| s["answered"]["local"] == 1);
    thief.subscribe(&format!("{PREFIX}/answer/press-8"));
    thief.fence("b-2");
    assert!(thief.frames().iter().all(|f| f["id"] == "b-2"), "{:?}", thief.frames());
    // The first finds its session as it left it, and takes none from the second.
    connect("shared", &seven, "press-7").answer("b-1");
    thief.fence("b-3");
}

#[test]
fn ask_speaks_tls_and_shows_who_it_is() {
    let (setup, pki) = secured();
    let gateway = setup.start();
    let (press, stranger) = (pki.device("press-7"), Pki::new(&setup.folder.path().join("stranger")));
    let ask = |ca: &Path, own: Option<&Named>, device: &str| {
        let mut command = tidegate();
        command.args(["ask", "turn on the kitchen light", "--timeout", "30", "--device", device, "--url"]);
        command.arg(format!("mqtts://localhost:{}", gateway.port)).arg("--ca").arg(ca);
        if let Some(own) = own {
            command.arg("--cert").arg(&own.cert).arg("--key").arg(&own.key);
        }
        run(&mut command)
    };
    let (status, out, err) = ask(&pki.ca(), Some(&press), "press-7");
    assert_eq!(status, 0, "{err}");
    assert!(out.contains("intent") && out.contains("[local, "), "{out}");
    for (what, (status, out, err), expect) in [
        ("a gateway that it does not trust", ask(&stranger.ca(), Some(&press), "press-7"), "invalid peer certificate"),
        ("no certificate", ask(&pki.ca(), None, "press-7"), "NotAuthorized"),
        ("a certificate of someone else", ask(&pki.ca(), Some(&press), "press-8"), "refuses the subscription"),
        ("a file that is not there", ask(Path::new("nowhere.pem"), None, "press-7"), "nowhere.pem"),
    ] {
        assert_eq!((status, out.as_str()), (1, ""), "{what}: {err}");
        assert!(err.contains(expect), "{what}: {err} lacks {expect}");
    }
}

/// Settings of a gateway that knows `press-7` by the password `secret`.
fn with_users() -> Setup {
    let mut setup = Setup::new();
    let salt = SaltString::encode_b64(b"saltsaltsalt").unwrap();
    let hash = argon2::Argon2::default().hash_password(b"secret", &salt).unwrap();
    let users = setup.folder.path().join("users");
    fs::write(&users, format!("# devices\npress-7:{hash}\n")).unwrap();
    setup.door = format!("listen = [\"127.0.0.1:{}\"]\nusers_file = {users:?}\nanonymous = \"off\"", setup.port);
    setup
}

#[test]
fn a_password_opens_and_a_wrong_one_gets_its_code() {
    let setup = with_users();
    let gateway = setup.start();
    let options = |user: &str, password: &str| {
        let mut options = MqttOptions::new("client", "127.0.0.1", gateway.port);
        options.set_credentials(user, password);
        options
    };
    let mut press = Device::with(options("press-7", "secret"), "press-7");
    press.subscribe(&format!("{PREFIX}/answer/press-7"));
    press.fence("u-1");
    // MQTT 3.1.1, table 3.1: 4 is a bad user name or password, 5 is not authorized.
    for (user, password) in [("press-7", "wrong"), ("press-7", ""), ("nobody", "secret")] {
        let refused = Device::with(options(user, password), "press-7").until_ended();
        assert!(refused.contains("BadUserNamePassword"), "{user} {password}: {refused}");
    }
    let nameless = Device::observer(gateway.port, "press-7").until_ended();
    assert!(nameless.contains("NotAuthorized"), "{nameless}");
    // MQTT 5, table 3-1: 0x86 is a bad user name or password.
    let mut five = rumqttc::v5::MqttOptions::new("client", "127.0.0.1", gateway.port);
    five.set_credentials("press-7", "wrong").set_connection_timeout(LONG.as_secs());
    let (_client, mut connection) = rumqttc::v5::Client::new(five, 1);
    let refused = connection.iter().find_map(Result::err).unwrap();
    let code = rumqttc::v5::mqttbytes::v5::ConnectReturnCode::BadUserNamePassword;
    assert!(matches!(refused, rumqttc::v5::ConnectionError::ConnectionRefused(found) if found == code), "{refused}");
}

#[test]
fn ask_takes_its_password_from_a_file_and_its_device_from_the_user_name() {
    let setup = with_users();
    let gateway = setup.start();
    let file = setup.folder.path().join("password");
    let ask = |password: &str| {
        fs::write(&file, format!("{password}\n")).unwrap();
        let mut command = tidegate();
        command.args(["ask", "turn on the kitchen light", "--user", "press-7", "--password-file"]).arg(&file);
        run(command.args(["--url", &format!("mqtt://127.0.0.1:{}", gateway.port)]))
    };
    let (status, out, err) = ask("secret");
    assert_eq!(status, 0, "{err}");
    assert!(out.contains("intent"), "{out}");
    let (status, _, err) = ask("wrong");
    assert_eq!(status, 1);
    assert!(err.contains("BadUserNamePassword"), "{err}");
}
