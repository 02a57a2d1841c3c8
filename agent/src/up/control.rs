//! The control socket: JSON lines, one answer per line, for those who may open the socket (mode 0660). Text of prompts
//! and answers is shown on demand only, and only to the user that the gateway runs as, and to root: they could read the
//! store itself.

use super::message::{Input, Query, Text};
use crate::config::Config;
use crate::failure::Failure;
use crate::queue::{self, Reaches};
use serde::Deserialize;
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixStream as BlockingStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tidegate_schemas::{DeviceId, JobId, PromptId};
use tidegate_spool::Spool;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::timeout;
use tracing::{info, warn};

/// Connections at once: a person, a page and a monitor.
const CONNECTIONS_MAX: usize = 16;
/// Longest line, in bytes.
const LINE_BYTES_MAX: u64 = 4096;
/// Longest that a connection may say nothing.
const IDLE_MAX: Duration = Duration::from_secs(30);
/// Owner and group may speak.
const MODE: u32 = 0o660;

/// What can be asked.
#[derive(Debug, Deserialize)]
#[serde(tag = "op", rename_all = "lowercase")]
enum Request {
    /// How is the gateway?
    Status,
    /// What became of a job?
    Record {
        /// Its number.
        job: JobId,
    },
    /// What became of a device's prompt?
    Fetch {
        /// The device.
        device: DeviceId,
        /// The id that it gave.
        id: PromptId,
        /// With the text of prompt and answer.
        #[serde(default)]
        reveal: bool,
    },
    /// Does a prompt come through?
    Canary,
    /// Why did a job take its way?
    Explain {
        /// Its number.
        job: JobId,
    },
    /// Let another model serve: this one, or the configured one.
    Model {
        /// The file, absolute; none: the configured one.
        file: Option<PathBuf>,
    },
    /// Stop.
    Drain,
    /// Look at what is kept, or change it.
    Queue(queue::Request),
}

/// What answers need.
#[derive(Clone)]
pub(super) struct Desk {
    /// The way to the hub.
    pub(super) inputs: mpsc::Sender<Input>,
    /// For what is only read.
    pub(super) spool: Spool,
    /// Which texts may leave the host.
    pub(super) reaches: Reaches,
    /// What the gateway was told.
    pub(super) config: Arc<Config>,
    /// One place: for whoever tries another model.
    pub(super) succession: Arc<Semaphore>,
}

/// The listening socket; its file goes with it.
pub(super) struct Control {
    listener: UnixListener,
    path: PathBuf,
}

impl Control {
    /// Takes the place at `path`. A socket that nobody answers at is left over from a crash.
    pub(super) fn bind(path: &Path) -> Result<Self, Failure> {
        let refuse = |what: &str| Failure::other(format!("control socket {}: {what}", path.display()));
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(|e| refuse(&e.to_string()))?;
        }
        if let Ok(found) = fs::symlink_metadata(path) {
            if !found.file_type().is_socket() {
                return Err(refuse("there is a file that is no socket"));
            }
            if BlockingStream::connect(path).is_ok() {
                return Err(refuse("in use by another process"));
            }
            fs::remove_file(path).map_err(|e| refuse(&e.to_string()))?;
        }
        let listener = UnixListener::bind(path).map_err(|e| refuse(&e.to_string()))?;
        fs::set_permissions(path, fs::Permissions::from_mode(MODE)).map_err(|e| refuse(&e.to_string()))?;
        Ok(Self { listener, path: path.to_path_buf() })
    }

    /// Answers until the hub is gone.
    pub(super) async fn serve(self, desk: Desk) {
        let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        while !desk.inputs.is_closed() {
            let accepted = tokio::select! {
                accepted = self.listener.accept() => accepted,
                () = desk.inputs.closed() => return,
            };
            let Ok((stream, _)) = accepted else { continue };
            // One too many is closed at once.
            let Ok(place) = places.clone().try_acquire_owned() else { continue };
            let desk = desk.clone();
            tokio::spawn(async move {
                if let Err(error) = converse(stream, desk).await {
                    warn!(%error, "a control connection broke");
                }
                drop(place);
            });
        }
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

async fn converse(stream: UnixStream, desk: Desk) -> std::io::Result<()> {
    let uid = stream.peer_cred()?.uid();
    let mut stream = BufReader::new(stream);
    loop {
        let mut line = String::new();
        let mut limited = (&mut stream).take(LINE_BYTES_MAX);
        let Ok(read) = timeout(IDLE_MAX, limited.read_line(&mut line)).await else { return Ok(()) };
        if read? == 0 {
            return Ok(());
        }
        let mut answer = answer(&line, uid, &desk).await.to_string();
        answer.push('\n');
        timeout(IDLE_MAX, stream.write_all(answer.as_bytes())).await??;
    }
}

/// What is shown to that user; none if the wish is refused.
fn text(reveal: bool, uid: u32) -> Option<Text> {
    let own = rustix::process::geteuid();
    match reveal {
        false => Some(Text::Hidden),
        true if uid == 0 || uid == own.as_raw() => Some(Text::Shown),
        true => None,
    }
}

fn may_not_read(uid: u32) -> Value {
    json!({ "error": format!("user {uid} may not read text, only the gateway's user and root") })
}

async fn answer(line: &str, uid: u32, desk: &Desk) -> Value {
    let query = match serde_json::from_str(line) {
        Ok(Request::Status) => Query::Status,
        Ok(Request::Record { job }) => Query::Record(job),
        Ok(Request::Fetch { device, id, reveal }) => match text(reveal, uid) {
            Some(text) => Query::Outcome(device, id, text),
            None => return may_not_read(uid),
        },
        Ok(Request::Explain { job }) => Query::Explain(job),
        Ok(Request::Drain) => {
            info!(uid, "asked to stop through the control socket");
            Query::Drain
        }
        Ok(Request::Model { file }) => {
            info!(uid, "asked for another model through the control socket");
            return super::succession::answer(file, desk).await;
        }
        Ok(Request::Canary) => return super::canary::answer(desk).await,
        Ok(Request::Queue(request)) if text(request.reveals(), uid).is_none() => return may_not_read(uid),
        Ok(Request::Queue(request)) => {
            if request.changes() {
                info!(uid, ?request, "asked through the control socket");
            }
            return super::queue::answer(request, desk).await;
        }
        Err(error) => return json!({ "error": format!("no request that is known: {error}") }),
    };
    let (reply, answer) = oneshot::channel();
    let _ = desk.inputs.send(Input::Query(query, reply)).await;
    answer.await.unwrap_or_else(|_| json!({ "error": "the gateway is stopping" }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_shown_to_the_gateways_user_and_root_only() {
        let own = rustix::process::geteuid().as_raw();
        let stranger = own.wrapping_add(4_711);
        assert_eq!(text(true, own), Some(Text::Shown));
        assert_eq!(text(true, 0), Some(Text::Shown));
        assert_eq!(text(true, stranger), None);
        assert_eq!(text(false, stranger), Some(Text::Hidden));
    }
}
