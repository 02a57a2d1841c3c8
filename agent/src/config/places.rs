//! Where things lie when nobody says it: the data directory, the control socket, the shipped models.

use crate::failure::Failure;
use std::env;
use std::path::{Path, PathBuf};

/// Data of a gateway that runs as root (FHS 3.0, 5.8).
const DATA_OF_ROOT: &str = "/var/lib/tidegate";
/// Control socket of a gateway that runs as root or under systemd.
const CONTROL_OF_ROOT: &str = "/run/tidegate/control.sock";
/// Name of the control socket in the data directory of anyone else.
const CONTROL_NAME: &str = "control.sock";
/// Directories above the executable that are searched for a checkout's models: `target/release/deps` is three deep.
const CHECKOUT_DEPTH_MAX: usize = 5;

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn from_env(name: &str) -> Option<PathBuf> {
    env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute())
}

/// A directory of the XDG base directory specification, 0.8.
fn xdg(variable: &str, below_home: &str) -> Option<PathBuf> {
    from_env(variable).or_else(|| Some(from_env("HOME")?.join(below_home)))
}

/// Where the store lives.
pub(super) fn data_dir() -> Option<PathBuf> {
    if let Some(state) = from_env("XDG_STATE_HOME") {
        return Some(state.join("tidegate"));
    }
    if is_root() { Some(DATA_OF_ROOT.into()) } else { Some(xdg("XDG_STATE_HOME", ".local/state")?.join("tidegate")) }
}

/// Where the control socket is: beside the data, so that two gateways of one user never share it; the packaged place
/// for the packaged data directory.
pub(super) fn control(data_dir: &Path) -> PathBuf {
    if data_dir == Path::new(DATA_OF_ROOT) { CONTROL_OF_ROOT.into() } else { data_dir.join(CONTROL_NAME) }
}

/// Where `status` looks for a gateway.
pub(crate) fn control_candidates() -> Vec<PathBuf> {
    let own = data_dir().map(|dir| control(&dir));
    let mut found: Vec<PathBuf> = own.into_iter().chain([PathBuf::from(CONTROL_OF_ROOT)]).collect();
    found.dedup();
    found
}

/// Finds a shipped model.
///
/// # Errors
/// Says where it was looked for.
pub(crate) fn find_model(file: &str) -> Result<PathBuf, Failure> {
    let folders = model_folders();
    let found = folders.iter().map(|folder| folder.join(file)).find(|path| path.is_file());
    found.ok_or_else(|| {
        let list = folders.iter().map(|f| f.display().to_string()).collect::<Vec<_>>().join(", ");
        Failure::other(format!("no model: {file} is in none of {list}; name one with engine.model or --model"))
    })
}

/// Where shipped models may lie, first come first served.
fn model_folders() -> Vec<PathBuf> {
    let mut folders: Vec<PathBuf> = from_env("TIDEGATE_MODELS").into_iter().collect();
    if let Some(bin) = env::current_exe().ok().as_deref().and_then(Path::parent) {
        folders.push(bin.join("../share/tidegate/models"));
        folders.push(bin.join("models"));
        folders.extend(bin.ancestors().take(CHECKOUT_DEPTH_MAX).map(|up| up.join("agent/models")));
    }
    folders.extend(xdg("XDG_DATA_HOME", ".local/share").map(|share| share.join("tidegate/models")));
    folders.push("/usr/local/share/tidegate/models".into());
    folders.push("/usr/share/tidegate/models".into());
    folders
}
