//! Debian's mosquitto as the rigs of the link need it: killed and started again empty, and as a bridge of its own.

use crate::process::{Process, leashed, wait_until};
use crate::world::{free_address, mosquitto_binary};
use anyhow::Context as _;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long it may take to accept.
const START_LIMIT: Duration = Duration::from_secs(30);

/// A mosquitto that can be killed and started again with nothing of what it knew.
pub(super) struct Peer {
    process: Option<Process>,
    dir: PathBuf,
    name: &'static str,
    /// Where it listens.
    pub(super) address: SocketAddr,
}

impl Peer {
    /// Starts it with these lines besides the usual ones.
    pub(super) fn start(dir: &Path, name: &'static str, lines: &str) -> anyhow::Result<Self> {
        let address = free_address()?;
        let text = format!(
            "listener {} {}\nallow_anonymous true\npersistence false\nuser root\nset_tcp_nodelay true\n{lines}\n",
            address.port(),
            address.ip()
        );
        std::fs::write(dir.join(format!("{name}.conf")), text).context("cannot write mosquitto's configuration")?;
        let mut peer = Self { process: None, dir: dir.to_owned(), name, address };
        peer.revive()?;
        Ok(peer)
    }

    /// Kills it.
    pub(super) fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill();
        }
    }

    /// Starts it again, empty.
    pub(super) fn revive(&mut self) -> anyhow::Result<()> {
        self.kill();
        let mut command = leashed(mosquitto_binary()?)?;
        command.arg("-c").arg(self.dir.join(format!("{}.conf", self.name)));
        let mut process = Process::start(self.name, command, &self.dir.join(format!("{}.log", self.name)))?;
        let accepts = || TcpStream::connect_timeout(&self.address, Duration::from_millis(200)).is_ok();
        wait_until("mosquitto", START_LIMIT, &mut process, accepts)?;
        self.process = Some(process);
        Ok(())
    }
}

/// The lines that make a mosquitto a bridge to `to`, for the topics of the load.
pub(super) fn bridge_lines(to: SocketAddr, filter: &str) -> String {
    format!(
        "connection load\naddress {to}\nbridge_protocol_version mqttv50\ncleansession false\nnotifications false\n\
         restart_timeout 1 5\nkeepalive_interval 5\ntopic {filter} out 1\n"
    )
}
