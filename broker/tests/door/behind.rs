//! Debian's mosquitto as the backend: started, stopped, started again.

use crate::support::*;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use tidegate_broker::{BackendConfig, Door};

pub(crate) struct Mosquitto {
    child: Option<Child>,
    pub(crate) addr: SocketAddr,
    dir: tempfile::TempDir,
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Mosquitto {
    pub(crate) async fn start() -> Self {
        Self::start_with("").await
    }

    /// With more lines of configuration.
    pub(crate) async fn start_with(more: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let addr = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let place = dir.path().display();
        let lines = format!(
            "listener {} 127.0.0.1\nallow_anonymous true\npersistence true\npersistence_location {place}/\n{more}",
            addr.port()
        );
        std::fs::write(dir.path().join("config"), lines).unwrap();
        // Started as root, mosquitto becomes another user and still has to write there.
        std::fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
        let mut broker = Self { child: None, addr, dir };
        broker.again().await;
        broker
    }

    /// Starts it where it was.
    pub(crate) async fn again(&mut self) {
        let config = self.dir.path().join("config");
        let mut command = Command::new("/usr/sbin/mosquitto");
        let child = command.arg("-c").arg(config).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        self.child = Some(child.expect("mosquitto is there (Debian package mosquitto)"));
        until(|| TcpStream::connect(self.addr).is_ok()).await;
    }

    /// SIGTERM, which makes it save its sessions. Again until it ends: one that comes between its listening and its loop
    /// is forgotten.
    pub(crate) fn stop(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        let pid = rustix::process::Pid::from_child(&child);
        while matches!(child.try_wait(), Ok(None)) {
            // It fails only when the process has ended.
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }
}

/// A door in front of a mosquitto of its own.
pub(crate) async fn whole_door() -> (Door, Arc<FakeKeeper>, Mosquitto) {
    let broker = Mosquitto::start().await;
    let mut config = config();
    config.backend = BackendConfig::Mqtt { addr: broker.addr, user: None, password_file: None };
    let (door, keeper) = door_with(config).await;
    (door, keeper, broker)
}
