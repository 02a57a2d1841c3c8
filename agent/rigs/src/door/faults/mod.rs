//! The rig `door-faults`: everything that is known to stop rumqttd 0.20 or to make it lie, tried on rumqttd alone, which
//! has to show it, and through the door, which must not, with a bystander that must not miss a message.

mod packets;
mod promises;
mod sessions;
mod stalls;

use super::bystander::{Bystander, Seen};
use super::peers::{Peer, Sections};
use super::socket::{PATIENCE, Socket};
use super::wire::Version;
use crate::probe::disk_dir;
use crate::report::{Check, Common, finish, table};
use anyhow::Context as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use tokio::time::timeout;

/// How long rumqttd alone may take to show that it lives; it takes milliseconds when it does.
const BARE_PATIENCE: Duration = Duration::from_secs(4);
/// Connections that the brokers of the fault T1b allow, the bystander's among them.
const FEW: usize = 3;

/// Options of the rig.
#[derive(clap::Args, Debug)]
pub(crate) struct Options {
    #[command(flatten)]
    common: Common,
    /// Only the fault with this name.
    #[arg(long, value_name = "NAME")]
    only: Option<String>,
}

/// A known fault.
struct Fault {
    name: &'static str,
    what: &'static str,
}

const FAULTS: [Fault; 18] = [
    Fault { name: "T1", what: "a client id with wildcards comes twice: the listener refuses everyone" },
    Fault { name: "T1b", what: "a client comes again while all places are taken: the same" },
    Fault { name: "T2", what: "a topic starts outside ASCII: the router dies" },
    Fault { name: "T3", what: "a property of MQTT 5 reaches a 3.1.1 subscriber: it is cut off" },
    Fault { name: "T4", what: "the only member of a share leaves with something unacknowledged: the router dies" },
    Fault { name: "T5", what: "a client acknowledges out of order: it is cut off" },
    Fault { name: "T7", what: "the first packet is one that servers send: a task panics" },
    Fault { name: "T9", what: "topic aliases with a wildcard: messages come under another's name" },
    Fault { name: "T10", what: "a name with a wildcard, a filter with one in its midst: both are taken" },
    Fault { name: "T15", what: "an unknown filter is unsubscribed: no answer, ever" },
    Fault { name: "T17", what: "one share name on two filters: half of both is lost" },
    Fault { name: "T18", what: "a takeover with wills: the living client's will is published, the dead one's never" },
    Fault { name: "T20", what: "a stalled subscriber comes again, leaves, and its old socket drains: the router dies" },
    Fault { name: "T21", what: "the same, and the old socket dies: an innocent connection is cut off" },
    Fault { name: "keep-alive", what: "a keep-alive of 0, which the specification allows: refused" },
    Fault {
        name: "half-open",
        what: "a subscriber that is silent for longer than its keep-alive: stays while it is sent to",
    },
    Fault { name: "$SYS", what: "a subscription to $SYS/#: the connection ends" },
    Fault { name: "kept", what: "acknowledged at QoS 1 for a session that is away: dropped without a word" },
];

/// Where a fault is tried.
pub(super) struct Target {
    /// For 3.1.1.
    v4: SocketAddr,
    /// For 5.
    v5: SocketAddr,
    log: PathBuf,
    patience: Duration,
    /// Whether it is ours: then what rumqttd drops is tried on the topics that the door itself serves.
    ours: bool,
}

/// What became of a fault in one place: none when all is well, else what was seen.
type Harm = Option<String>;

impl Target {
    fn address(&self, version: Version) -> SocketAddr {
        match version {
            Version::V4 => self.v4,
            Version::V5 => self.v5,
        }
    }

    async fn client(&self, version: Version, id: &str) -> anyhow::Result<Socket> {
        Socket::client(self.address(version), version, id).await
    }

    /// Whether a newcomer is let in and hears its own word.
    async fn lives(&self) -> bool {
        let own_word = async {
            let mut socket = self.client(Version::V4, "newcomer").await?;
            socket.subscribe("newcomer/word", 1).await?;
            socket.publish("newcomer/word", 1, b"hello").await
        };
        matches!(timeout(self.patience, own_word).await, Ok(Ok(0)))
    }

    /// Harm, when nobody is let in any more.
    async fn dead(&self, seen: &str) -> Harm {
        if self.lives().await { None } else { Some(format!("{seen}, and nobody is served any more")) }
    }
}

/// Provokes a fault.
async fn provoke(fault: &Fault, at: &Target) -> anyhow::Result<Harm> {
    match fault.name {
        "T1" => sessions::t1(at).await,
        "T1b" => sessions::t1b(at).await,
        "T2" => packets::t2(at).await,
        "T3" => packets::t3(at).await,
        "T4" => sessions::t4(at).await,
        "T5" => packets::t5(at).await,
        "T7" => packets::t7(at).await,
        "T9" => packets::t9(at).await,
        "T10" => packets::t10(at).await,
        "T15" => packets::t15(at).await,
        "T17" => sessions::t17(at).await,
        "T18" => sessions::t18(at).await,
        "T20" => stalls::t20(at).await,
        "T21" => stalls::t21(at).await,
        "keep-alive" => promises::keep_alive(at).await,
        "half-open" => stalls::half_open(at).await,
        "$SYS" => packets::sys(at).await,
        _ => promises::kept(at).await,
    }
}

/// What a fault did.
#[derive(Debug, serde::Serialize)]
struct Verdict {
    name: &'static str,
    what: &'static str,
    /// On rumqttd alone.
    bare: Harm,
    /// Through the door, to the client or to the bystander.
    door: Harm,
}

/// Runs the rig.
pub(crate) fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start tokio")?;
    let chosen: Vec<&Fault> =
        FAULTS.iter().filter(|fault| options.only.as_deref().is_none_or(|only| only == fault.name)).collect();
    let mut verdicts = Vec::new();
    let mut seen = Seen::default();
    // A gateway with few places for the one, and one for all others.
    for few in [false, true] {
        let faults: Vec<&Fault> = chosen.iter().copied().filter(|fault| (fault.name == "T1b") == few).collect();
        if !faults.is_empty() {
            let more = behind_the_door(&runtime, &faults, few, &mut verdicts)?;
            seen.rounds += more.rounds;
            seen.slowest_ms = seen.slowest_ms.max(more.slowest_ms);
        }
    }
    println!(
        "{}",
        table(&["fault", "rumqttd alone", "through the door"], &verdicts.iter().map(row).collect::<Vec<_>>())
    );
    println!("bystander: {} rounds, the slowest took {:.1} ms", seen.rounds, seen.slowest_ms);
    let count = |shown: fn(&Verdict) -> bool| verdicts.iter().filter(|verdict| shown(verdict)).count() as f64;
    let checks = [
        Check::at_least("faults shown on rumqttd alone", count(|v| v.bare.is_some()), verdicts.len() as f64, "faults"),
        Check::at_most("faults that came through the door", count(|v| v.door.is_some()), 0.0, "faults"),
    ];
    finish("door-faults", &options.common, &checks, &serde_json::json!({ "faults": verdicts, "bystander": seen }))
}

fn row(verdict: &Verdict) -> Vec<String> {
    let said = |harm: &Harm, none: &str| harm.clone().unwrap_or_else(|| none.to_owned());
    vec![format!("{}: {}", verdict.name, verdict.what), said(&verdict.bare, "not shown"), said(&verdict.door, "gone")]
}

/// Tries faults on one gateway, each on a fresh rumqttd before.
fn behind_the_door(
    runtime: &tokio::runtime::Runtime,
    faults: &[&Fault],
    few: bool,
    verdicts: &mut Vec<Verdict>,
) -> anyhow::Result<Seen> {
    let dir = disk_dir("faults")?;
    let connections_max = few.then_some(FEW);
    let peer = Peer::door(dir.path(), None, &Sections { connections_max, ..Sections::default() })?;
    let (v4, log) = (peer.address, peer.log.clone());
    let target = Target { v4, v5: v4, log, patience: 2 * PATIENCE, ours: true };
    let bystander = Bystander::start(peer.address);
    bystander.look()?;
    for fault in faults {
        let bare = bare(runtime, fault)?;
        let tried = runtime.block_on(provoke(fault, &target));
        let mut door = tried.unwrap_or_else(|error| Some(format!("{error:#}")));
        if door.is_none() && bystander.look().is_err() {
            door = Some("the bystander is harmed".to_owned());
        }
        println!("{}: {}", fault.name, if door.is_none() { "gone" } else { "NOT GONE" });
        verdicts.push(Verdict { name: fault.name, what: fault.what, bare, door });
    }
    let seen = bystander.end();
    if peer.panicked()? {
        anyhow::bail!("something panicked behind the door");
    }
    seen
}

/// Shows a fault on rumqttd alone. An error is a symptom, too: nothing that is tried is against the specification, but
/// where that is the point.
fn bare(runtime: &tokio::runtime::Runtime, fault: &Fault) -> anyhow::Result<Harm> {
    /// As small as in the notes' measurement: four segments of 1 MiB.
    const SEGMENTS: [usize; 3] = [10_010, 1024 * 1024, 4];
    let dir = disk_dir("faults")?;
    let few = [FEW - 1];
    let numbers: &[usize] = match fault.name {
        "T1b" => &few,
        "kept" => &SEGMENTS,
        _ => &[],
    };
    let peer = Peer::rumqttd(dir.path(), numbers)?;
    let target =
        Target { v4: peer.address, v5: peer.second, log: peer.log.clone(), patience: BARE_PATIENCE, ours: false };
    Ok(runtime.block_on(provoke(fault, &target)).unwrap_or_else(|error| Some(format!("{error:#}"))))
}
