//! Files that are read again while the door runs: certificates, revocation lists, users, rights. One thread looks at
//! them every two seconds and when it is asked to.
//!
//! Invariant: what cannot be read leaves the old in use, and is a fault until a later reading succeeds.

use crate::auth::Users;
use crate::config::TlsFiles;
use crate::error::DoorError;
use crate::rights::Rights;
use crate::tls;
use rustls::ServerConfig;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, SystemTime};
use tokio::sync::watch;

/// How often the files' times are looked at: a revoked device is out within this and a handshake.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// What tells one content of a file from another: when it was changed, its size, its number.
type Stamp = Option<(SystemTime, u64, u64)>;

fn stamp(path: &Path) -> Stamp {
    use std::os::unix::fs::MetadataExt;
    let metadata = fs::metadata(path).ok()?;
    Some((metadata.modified().ok()?, metadata.len(), metadata.ino()))
}

/// Files that belong together, and what becomes of them.
struct Watched {
    what: &'static str,
    files: Vec<PathBuf>,
    stamps: Vec<Stamp>,
    load: Box<dyn Fn() -> Result<(), DoorError> + Send>,
    fault: Option<String>,
}

impl Watched {
    fn new(what: &'static str, files: Vec<PathBuf>, load: impl Fn() -> Result<(), DoorError> + Send + 'static) -> Self {
        let stamps = files.iter().map(|file| stamp(file)).collect();
        Self { what, files, stamps, load: Box::new(load), fault: None }
    }

    /// Reads anew if a file changed, or if asked to.
    fn look(&mut self, force: Force) {
        let stamps: Vec<Stamp> = self.files.iter().map(|file| stamp(file)).collect();
        if force == Force::No && stamps == self.stamps {
            return;
        }
        self.stamps = stamps;
        match (self.load)() {
            Ok(()) => {
                tracing::info!(what = self.what, "read again");
                self.fault = None;
            }
            Err(error) => {
                tracing::warn!(what = self.what, %error, "cannot be read again, the old stay in use");
                self.fault = Some(format!("{} cannot be read again, the old stay in use: {error}", self.what));
            }
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Force {
    Yes,
    No,
}

/// Collects what is to be watched, then watches it.
pub(crate) struct Reload {
    watched: Vec<Watched>,
}

/// The running thread; it ends with this.
pub(crate) struct Reloading {
    orders: SyncSender<()>,
    pub(crate) faults: watch::Receiver<Vec<String>>,
}

impl Reload {
    pub(crate) fn new() -> Self {
        Self { watched: Vec::new() }
    }

    /// # Errors
    /// The first reading fails: then the door does not open.
    pub(crate) fn tls(&mut self, files: &TlsFiles) -> Result<watch::Receiver<Arc<ServerConfig>>, DoorError> {
        let (tx, rx) = watch::channel(tls::server(files)?);
        let all = [&files.cert, &files.key].into_iter().chain(&files.client_cas).chain(&files.crls).cloned().collect();
        let files = files.clone();
        let load = move || tls::server(&files).map(|config| drop(tx.send_replace(config)));
        self.watched.push(Watched::new("certificates", all, load));
        Ok(rx)
    }

    /// # Errors
    /// The first reading fails.
    pub(crate) fn users(&mut self, path: &Path) -> Result<watch::Receiver<Arc<Users>>, DoorError> {
        let (tx, rx) = watch::channel(Arc::new(Users::read(path)?));
        let file = path.to_owned();
        let load = move || Users::read(&file).map(|users| drop(tx.send_replace(Arc::new(users))));
        self.watched.push(Watched::new("users", vec![path.to_owned()], load));
        Ok(rx)
    }

    /// # Errors
    /// The first reading fails.
    pub(crate) fn rights(&mut self, path: Option<&Path>) -> Result<watch::Receiver<Arc<Rights>>, DoorError> {
        let Some(path) = path else { return Ok(watch::channel(Arc::new(Rights::open())).1) };
        let (tx, rx) = watch::channel(Arc::new(Rights::read(path)?));
        let file = path.to_owned();
        let load = move || Rights::read(&file).map(|rights| drop(tx.send_replace(Arc::new(rights))));
        self.watched.push(Watched::new("rights", vec![path.to_owned()], load));
        Ok(rx)
    }

    /// Starts the thread.
    ///
    /// # Errors
    /// The system refuses one.
    pub(crate) fn start(self) -> Result<Reloading, DoorError> {
        let (orders, asked) = sync_channel(1);
        let (told, faults) = watch::channel(Vec::new());
        thread::Builder::new()
            .name("reload".to_owned())
            .spawn(move || run(self.watched, &asked, &told))
            .map_err(|source| DoorError::System { what: "a thread for files", source })?;
        Ok(Reloading { orders, faults })
    }
}

impl Reloading {
    /// Reads all files again soon, changed or not.
    pub(crate) fn now(&self) {
        // A full queue means that it is about to.
        let _ = self.orders.try_send(());
    }
}

fn run(mut watched: Vec<Watched>, asked: &Receiver<()>, told: &watch::Sender<Vec<String>>) {
    loop {
        let force = match asked.recv_timeout(LOOK_EVERY) {
            Ok(()) => Force::Yes,
            Err(RecvTimeoutError::Timeout) => Force::No,
            Err(RecvTimeoutError::Disconnected) => return,
        };
        watched.iter_mut().for_each(|watched| watched.look(force));
        let faults: Vec<String> = watched.iter().filter_map(|watched| watched.fault.clone()).collect();
        told.send_if_modified(|old| {
            let changed = *old != faults;
            *old = faults;
            changed
        });
    }
}
