//! A gateway for tests that speak to one from outside.

use std::net::{TcpListener, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long the gateway may take until its door accepts.
const START_LIMIT: Duration = Duration::from_secs(30);

/// A running gateway. Ends with its engine when dropped.
pub(crate) struct Gateway {
    child: Child,
    /// Its port on loopback.
    pub(crate) port: u16,
}

impl Drop for Gateway {
    fn drop(&mut self) {
        // The group holds the gateway and its engine. Both fail only when it has ended.
        let group = i32::try_from(self.child.id()).ok().and_then(rustix::process::Pid::from_raw);
        let _ = group.map(|pid| rustix::process::kill_process_group(pid, rustix::process::Signal::KILL));
        let _ = self.child.wait();
    }
}

/// The gateway's binary, which a build of its package leaves beside the tests.
pub(crate) fn tidegate() -> PathBuf {
    let own = std::env::current_exe().unwrap();
    let path = own.parent().unwrap().parent().unwrap().join("tidegate");
    assert!(path.is_file(), "{} is missing, build it with: cargo build --release -p tidegate", path.display());
    path
}

/// `tidegate up` without a configuration, on a free port, with everything it writes in `home`.
pub(crate) fn start(home: &Path) -> Gateway {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let log = std::fs::File::create(home.join("log")).unwrap();
    let mut command = Command::new(tidegate());
    command.args(["up", "--listen", &format!("127.0.0.1:{port}")]).env("XDG_STATE_HOME", home);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).process_group(0);
    let mut gateway = Gateway { child: command.spawn().unwrap(), port };
    let begin = Instant::now();
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        let ended = gateway.child.try_wait().unwrap();
        let log = std::fs::read_to_string(home.join("log")).unwrap();
        assert!(ended.is_none(), "the gateway ended: {ended:?}\n{log}");
        assert!(begin.elapsed() < START_LIMIT, "the door does not accept\n{log}");
        std::thread::sleep(Duration::from_millis(20));
    }
    gateway
}
