//! `tidegate doctor`: looks at what a gateway needs on this machine, and says what to do about what is wrong.

use crate::cli::DoctorArgs;
use crate::config::{self, Config, Source, find_model};
use crate::failure::Failure;
use crate::terminal::print;
use crate::{calibration, status};
use std::fs::{self, File};
use std::io::Write;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tidegate_engine::confine::{Confinement, Part, confine_to};
use tidegate_engine::model_file::inspect;

/// Writes whose median is told.
const SYNCS: usize = 16;
/// A sync that takes longer makes every acknowledgement slow: a card that is worn, or a disk on a network.
const SYNC_SLOW: Duration = Duration::from_millis(50);

enum Finding {
    Ok(String),
    Warning(String, &'static str),
    Fault(String, &'static str),
}

/// Runs the command; exit status 1 with any fault.
pub(crate) fn run(args: &DoctorArgs) -> Result<(), Failure> {
    let source = args.config.clone().map_or(Source::Default, Source::File);
    let mut findings = Vec::new();
    match config::load(&source) {
        Err(failure) => findings.push(Finding::Fault(failure.to_string(), "mend the configuration")),
        Ok(config) => {
            findings.push(Finding::Ok("configuration".to_owned()));
            findings.extend([model(&config), data_dir(&config), sync_time(&config), confinement()]);
            match &config.intake {
                None => findings.extend(ports(&config)),
                Some(broker) => findings.extend(intake(broker)),
            }
        }
    }
    let faults = findings.iter().filter(|f| matches!(f, Finding::Fault(..))).count();
    print(&findings.iter().map(line).collect::<String>())?;
    if faults == 0 { Ok(()) } else { Err(Failure::other(format!("{faults} faults"))) }
}

fn line(finding: &Finding) -> String {
    match finding {
        Finding::Ok(what) => format!("ok       {what}\n"),
        Finding::Warning(what, next) => format!("warning  {what}: {next}\n"),
        Finding::Fault(what, next) => format!("fault    {what}: {next}\n"),
    }
}

fn model(config: &Config) -> Finding {
    const NEXT: &str = "install the models, or name a GGUF file with engine.model";
    let path = match config.engine.model.clone().map_or_else(|| find_model("tide-edge.gguf"), Ok) {
        Ok(path) => path,
        Err(failure) => return Finding::Fault(failure.to_string(), NEXT),
    };
    let file = match inspect(&path) {
        Ok(file) => file,
        Err(error) => return Finding::Fault(error.to_string(), NEXT),
    };
    let what = format!("model {} ({})", file.name, path.display());
    match card_hash(&path) {
        Some(hash) if hash != file.sha256 => {
            let what = format!("{what} has sha256 {}, its card says {hash}", file.sha256);
            Finding::Fault(what, "copy the model file again")
        }
        None => Finding::Warning(format!("{what} has no card with a sha256"), "nothing says whether the file is whole"),
        Some(_) if calibration::read(&calibration::path_of(&path), &file.sha256).is_err() => {
            Finding::Warning(format!("{what} has no calibration"), "confidence is raw; thresholds mean little")
        }
        Some(_) => Finding::Ok(what),
    }
}

/// The line `sha256: …` of the card beside the model.
fn card_hash(model: &Path) -> Option<String> {
    let text = fs::read_to_string(model.with_extension("md")).ok()?;
    let line = text.lines().find_map(|line| line.split_once("sha256:"))?.1;
    let hash: String = line.chars().filter(char::is_ascii_hexdigit).collect();
    (hash.len() == 64).then_some(hash)
}

fn data_dir(config: &Config) -> Finding {
    let dir = &config.data_dir;
    let what = format!("data directory {}", dir.display());
    match fs::metadata(dir) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Finding::Ok(format!("{what} (made at the start)"))
        }
        Err(error) => Finding::Fault(format!("{what}: {error}"), "give it to the user that runs the gateway"),
        Ok(found) if !found.is_dir() => Finding::Fault(format!("{what} is a file"), "choose another data_dir"),
        Ok(_) => match File::create(dir.join(".doctor")).and_then(|_| fs::remove_file(dir.join(".doctor"))) {
            Ok(()) => Finding::Ok(what),
            Err(error) => Finding::Fault(format!("{what}: {error}"), "give it to the user that runs the gateway"),
        },
    }
}

/// How long a small write with its sync takes where the store lives.
fn sync_time(config: &Config) -> Finding {
    let there = config.data_dir.ancestors().find(|dir| dir.is_dir()).map_or(PathBuf::from("."), Path::to_path_buf);
    match median_sync(&there) {
        Err(error) => Finding::Warning(format!("{}: {error}", there.display()), "the disk could not be measured"),
        Ok(time) if time > SYNC_SLOW => {
            let what = format!("a synced write takes {:.1} ms", time.as_secs_f64() * 1000.0);
            Finding::Warning(what, "every acknowledgement waits for one; use faster storage")
        }
        Ok(time) => Finding::Ok(format!("a synced write takes {:.1} ms", time.as_secs_f64() * 1000.0)),
    }
}

fn median_sync(dir: &Path) -> std::io::Result<Duration> {
    let path = dir.join(format!(".tidegate-doctor-{}", std::process::id()));
    let mut file = File::create(&path)?;
    let mut times = Vec::with_capacity(SYNCS);
    let measured = (0..SYNCS).try_for_each(|_| {
        let start = Instant::now();
        file.write_all(&[0; 512])?;
        file.sync_data()?;
        times.push(start.elapsed());
        std::io::Result::Ok(())
    });
    fs::remove_file(&path)?;
    measured?;
    times.sort_unstable();
    Ok(times[SYNCS / 2])
}

/// Without a door: what the broker in its place weakens. A health topic says the same.
fn intake(broker: &crate::link::Broker) -> Vec<Finding> {
    const NEXT: &str = "it is the price of an intake; a door of the gateway's own keeps the promise";
    crate::intake::weakened(&broker.address).into_iter().map(|what| Finding::Warning(what, NEXT)).collect()
}

/// What this kernel can hold the engine to, tried in a thread that ends with it.
fn confinement() -> Finding {
    let tried = std::thread::spawn(|| confine_to(Path::new("/proc/self"))).join();
    let lacks = match tried {
        Err(_) => "tells nothing of Landlock and seccomp",
        Ok(Confinement { files: Part::Whole, calls: Part::Whole }) => {
            return Finding::Ok("the engine is confined to its model (Landlock, seccomp)".to_owned());
        }
        Ok(Confinement { files: Part::Absent, calls: Part::Absent }) => "has neither Landlock nor seccomp",
        Ok(Confinement { calls: Part::Absent, .. }) => "has no seccomp for this processor",
        Ok(Confinement { files: Part::Absent, .. }) => "has no Landlock",
        Ok(_) => "knows only some of Landlock (all of it since Linux 6.12)",
    };
    Finding::Warning(format!("this kernel {lacks}"), "only run model files that you trust, or use a newer kernel")
}

fn ports(config: &Config) -> Vec<Finding> {
    let running = status::ask_one(Some(&config.control), status::STATUS).is_ok();
    let check = |listener: &tidegate_broker::Listener| match TcpListener::bind(listener.addr) {
        Ok(_) => Finding::Ok(format!("address {} is free", listener.addr)),
        Err(_) if running => Finding::Ok(format!("address {} is taken by the gateway that runs", listener.addr)),
        Err(error) => {
            Finding::Fault(format!("address {}: {error}", listener.addr), "stop what has it, or listen elsewhere")
        }
    };
    config.door.listeners.iter().map(check).collect()
}
