//! The queue of a running gateway: requests through its control socket, one line each.

use super::{Keeper, Request};
use crate::failure::Failure;
use serde_json::Value;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

/// Longest wait for an answer: a retry waits for the disk.
const ANSWER_MAX: Duration = Duration::from_secs(20);

/// A gateway that answers.
pub(super) struct Running {
    stream: BufReader<UnixStream>,
}

/// The first gateway that listens at one of these sockets.
pub(super) fn find(sockets: &[PathBuf]) -> Option<Running> {
    let connected = sockets.iter().find_map(|socket| UnixStream::connect(socket).ok())?;
    connected.set_read_timeout(Some(ANSWER_MAX)).ok()?;
    connected.set_write_timeout(Some(ANSWER_MAX)).ok()?;
    Some(Running { stream: BufReader::new(connected) })
}

impl Running {
    fn exchange(&mut self, line: &str) -> std::io::Result<Value> {
        self.stream.get_mut().write_all(format!("{line}\n").as_bytes())?;
        let mut answer = String::new();
        self.stream.read_line(&mut answer)?;
        Ok(serde_json::from_str(&answer)?)
    }
}

impl Keeper for Running {
    fn ask(&mut self, request: Request) -> Result<Value, Failure> {
        let mut line = serde_json::to_value(request).map_err(Failure::other)?;
        line["op"] = "queue".into();
        self.exchange(&line.to_string()).map_err(|error| Failure::other(format!("the gateway did not answer: {error}")))
    }
}
