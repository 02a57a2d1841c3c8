//! A gateway for tests that speak to one from outside.

use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long the gateway may take until its door listens.
const START_LIMIT: Duration = Duration::from_secs(30);

/// A running gateway. Ends with its engine when dropped.
pub(crate) struct Gateway {
    child: Child,
    log: PathBuf,
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

/// `tidegate up` without a configuration, on a port that it chooses, with everything it writes in `home`.
pub(crate) fn start(home: &Path) -> Gateway {
    let path = home.join("log");
    let mut command = Command::new(tidegate());
    command.args(["up", "--listen", "127.0.0.1:0"]).env("XDG_STATE_HOME", home).env("NO_COLOR", "1");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(std::fs::File::create(&path).unwrap()).process_group(0);
    let mut gateway = Gateway { child: command.spawn().unwrap(), log: path, port: 0 };
    let begin = Instant::now();
    while gateway.port == 0 {
        let ended = gateway.child.try_wait().unwrap();
        assert!(ended.is_none(), "the gateway ended: {ended:?}\n{}", gateway.said());
        assert!(begin.elapsed() < START_LIMIT, "the door does not listen\n{}", gateway.said());
        gateway.port = listening(&gateway.said()).unwrap_or(0);
        std::thread::sleep(Duration::from_millis(20));
    }
    gateway
}

/// The port in the log's line `… listening address=127.0.0.1:PORT …`.
fn listening(log: &str) -> Option<u16> {
    let (_, rest) = log.split_once(" listening address=127.0.0.1:")?;
    rest.split_once(' ')?.0.parse().ok()
}

impl Gateway {
    /// Its log so far.
    pub(crate) fn said(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }
}
