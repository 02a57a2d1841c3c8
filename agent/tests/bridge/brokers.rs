//! Brokers that are not as they should be: mosquitto with more configuration, one that speaks 3.1.1 only, one that
//! answers pings and nothing else.

use crate::support::{Process, free_port};
use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use tempfile::TempDir;

/// Debian's mosquitto with lines of its configuration.
pub(crate) struct Mosquitto {
    pub(crate) process: Process,
    pub(crate) port: u16,
    pub(crate) folder: TempDir,
}

impl Mosquitto {
    /// `{dir}` in the lines is its folder.
    pub(crate) fn start(lines: &str) -> Self {
        Self::start_with(lines, "")
    }

    /// The same with a file `acl` in its folder.
    pub(crate) fn start_with(lines: &str, acl: &str) -> Self {
        let (folder, port) = (tempfile::tempdir().unwrap(), free_port());
        fs::write(folder.path().join("acl"), acl).unwrap();
        let dir = folder.path().display().to_string();
        let text = format!(
            "listener {port} 127.0.0.1\nallow_anonymous true\nlog_dest stderr\nset_tcp_nodelay true\nuser root\n{}\n",
            lines.replace("{dir}", &dir)
        );
        fs::write(folder.path().join("mosquitto.conf"), text).unwrap();
        let process = Self::spawn(&folder);
        Self { process, port, folder }
    }

    /// Killed, and started again with what it has on disk.
    pub(crate) fn restart(&mut self) {
        self.process.kill();
        self.process = Self::spawn(&self.folder);
    }

    fn spawn(folder: &TempDir) -> Process {
        let mut command = std::process::Command::new("/usr/sbin/mosquitto");
        let mut process = Process::start(command.arg("-c").arg(folder.path().join("mosquitto.conf")));
        process.wait_for_log("running");
        process
    }
}

/// What a proxy does with a client's bytes before the broker gets them.
type Filter = Arc<dyn Fn(&[u8], &mut TcpStream) -> bool + Send + Sync>;

fn proxy(target: u16, filter: Filter) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for near in listener.incoming().flatten() {
            let Ok(far) = TcpStream::connect(("127.0.0.1", target)) else { continue };
            let (mut from, mut to) = (far.try_clone().unwrap(), near.try_clone().unwrap());
            thread::spawn(move || {
                let _ = std::io::copy(&mut from, &mut to);
                let _ = to.shutdown(Shutdown::Both);
            });
            let filter = filter.clone();
            thread::spawn(move || up(near, far, &filter));
        }
    });
    port
}

/// Carries whole packets, so that the filter sees each once.
fn up(mut near: TcpStream, mut far: TcpStream, filter: &Filter) {
    while let Some(packet) = packet(&mut near) {
        if filter(&packet, &mut near) && far.write_all(&packet).is_err() {
            break;
        }
    }
    let _ = (near.shutdown(Shutdown::Both), far.shutdown(Shutdown::Both));
}

/// One MQTT packet, header included.
pub(crate) fn packet(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let mut bytes = vec![0; 1];
    stream.read_exact(&mut bytes).ok()?;
    let (mut length, mut shift) = (0_usize, 0);
    loop {
        let mut byte = [0];
        stream.read_exact(&mut byte).ok()?;
        bytes.push(byte[0]);
        length |= usize::from(byte[0] & 0x7f) << shift;
        shift += 7;
        if byte[0] & 0x80 == 0 {
            break;
        }
    }
    let start = bytes.len();
    bytes.resize(start + length, 0);
    stream.read_exact(&mut bytes[start..]).ok()?;
    Some(bytes)
}

/// A broker of 3.1.1 before `target`: answers the CONNECT of MQTT 5 as the older specification says, with return code 1.
pub(crate) fn only_three(target: u16) -> u16 {
    let filter = |packet: &[u8], near: &mut TcpStream| {
        let level = packet.windows(5).find(|w| w.starts_with(b"MQTT")).map(|w| w[4]);
        if packet[0] == 0x10 && level == Some(5) {
            let _ = near.write_all(&[0x20, 2, 0, 1]);
            let _ = near.shutdown(Shutdown::Both);
            return false;
        }
        true
    };
    proxy(target, Arc::new(filter))
}
