//! The rights at the central broker, tried out at a real mosquitto with the file that ships.
#![allow(clippy::unwrap_used)]

use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const USERS: [&str; 4] = ["worker", "operator", "mill/gw-3", "mill/gw-4"];
const WORKERS: &str = "$share/tidegate/tg/v1/+/+/escalate/+";
/// How long mosquitto may take until it accepts.
const START_LIMIT: Duration = Duration::from_secs(10);

struct Broker {
    child: Child,
    port: String,
    _folder: tempfile::TempDir,
}

impl Drop for Broker {
    fn drop(&mut self) {
        // Both fail only when it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn run(program: &str, arguments: &[&str]) {
    let status = Command::new(program).args(arguments).stderr(Stdio::null()).status();
    assert!(status.as_ref().is_ok_and(|s| s.success()), "{program} {arguments:?}: {status:?}");
}

fn broker() -> Broker {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/mosquitto/acl");
    std::fs::copy(shipped, path("acl")).unwrap();
    std::fs::write(path("passwords"), "").unwrap();
    for user in USERS {
        run("mosquitto_passwd", &["-b", &path("passwords"), user, "secret"]);
    }
    // Started as root, mosquitto becomes another user and still has to read them.
    run("chmod", &["-R", "a+rX", &folder.path().display().to_string()]);
    // Below the ports that the kernel gives to outgoing connections, one of which could be faster than mosquitto.
    let mut ports = (0..20_000).map(|n| 12_000 + ((std::process::id() + n) % 20_000) as u16);
    let port = ports.find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok()).unwrap();
    let config = format!(
        "listener {port} 127.0.0.1\nallow_anonymous false\npassword_file {}\nacl_file {}\n",
        path("passwords"),
        path("acl")
    );
    std::fs::write(path("config"), config).unwrap();
    let mut command = Command::new("/usr/sbin/mosquitto");
    let child = command.args(["-c", &path("config")]).stderr(Stdio::null()).spawn().unwrap();
    let broker = Broker { child, port: port.to_string(), _folder: folder };
    let begin = Instant::now();
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(begin.elapsed() < START_LIMIT, "mosquitto does not accept");
        std::thread::sleep(Duration::from_millis(20));
    }
    broker
}

/// Whether a publish of one user reaches a subscription of another, which stands before the publish.
fn reaches(broker: &Broker, publisher: (&str, &str), subscriber: (&str, &str)) -> bool {
    let login = |user: &'static str| ["-V", "5", "-p", &broker.port, "-u", user, "-P", "secret"].map(str::to_owned);
    let user = |name: &str| USERS.into_iter().find(|user| *user == name).unwrap();
    // A line at a time, or what it says would stay in its buffer.
    let mut listen = Command::new("stdbuf");
    listen.args(["-oL", "mosquitto_sub"]).args(login(user(subscriber.0))).args([
        "-q",
        "1",
        "-t",
        subscriber.1,
        "-C",
        "1",
        "-W",
        "2",
        "-d",
    ]);
    let mut listening = listen.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut said = std::io::BufReader::new(listening.stdout.take().unwrap());
    let mut line = String::new();
    while !line.contains("SUBACK") {
        line.clear();
        // A refused subscription ends the client: then nothing can reach it.
        if std::io::BufRead::read_line(&mut said, &mut line).unwrap() == 0 {
            listening.wait().unwrap();
            return false;
        }
    }
    let mut publish = Command::new("mosquitto_pub");
    publish.args(login(user(publisher.0))).args(["-q", "1", "-t", publisher.1, "-m", "marker"]).stderr(Stdio::null());
    publish.status().unwrap();
    let heard = std::io::read_to_string(said).unwrap();
    listening.wait().unwrap();
    heard.lines().any(|line| line == "marker")
}

#[test]
fn each_role_has_its_own_topics_and_no_others() {
    let broker = broker();
    let check = |publisher, subscriber, expect| {
        assert_eq!(reaches(&broker, publisher, subscriber), expect, "{publisher:?} to {subscriber:?}");
    };
    check(("mill/gw-3", "tg/v1/mill/gw-3/escalate/d"), ("worker", WORKERS), true);
    check(("mill/gw-3", "tg/v1/mill/gw-4/escalate/d"), ("worker", WORKERS), false);
    check(("worker", "tg/v1/mill/gw-3/resolve/d"), ("mill/gw-3", "tg/v1/mill/gw-3/resolve/+"), true);
    check(("worker", "tg/v1/mill/gw-4/resolve/d"), ("mill/gw-3", "tg/v1/mill/gw-4/resolve/+"), false);
    check(("mill/gw-4", "tg/v1/mill/gw-3/resolve/d"), ("mill/gw-3", "tg/v1/mill/gw-3/resolve/+"), false);
    check(("mill/gw-3", "tg/v1/mill/gw-3/state/health"), ("operator", "tg/v1/+/+/state/+"), true);
    check(("mill/gw-3", "tg/v1/mill/gw-3/escalate/d"), ("operator", "tg/v1/#"), false);
    check(("worker", "tg/v1/mill/gw-3/escalate/d"), ("worker", WORKERS), false);
}
