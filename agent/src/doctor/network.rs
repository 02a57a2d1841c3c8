//! Ports of the door, the broker of an intake, and the central broker with what its limits mean for the promises.

use super::finding::Finding;
use crate::bridge_tools::{Trip, trips};
use crate::config::{BridgeConfig, Config};
use crate::link::{Address, Version};
use crate::terminal::Progress;
use std::net::TcpListener;
use std::sync::mpsc;
use std::time::{Duration, Instant};
use tidegate_schemas::ESCALATION_BYTES_MAX;

const PORT: &str = "port";
const INTAKE: &str = "intake";
const CENTRAL: &str = "central broker";
/// Longest wait for a name server: its own patience is 5 s for each of two tries.
const NAME_MAX: Duration = Duration::from_secs(12);
/// Longest wait for each address of the central broker.
const TRIP_MAX: Duration = Duration::from_secs(10);
/// Room for topic and properties of a packet, in bytes: as the bridge leaves.
const FRAMING_BYTES: usize = 4 * 1024;

pub(super) fn all(config: &Config, runs: bool, quick: bool) -> Vec<Finding> {
    let mut findings = match &config.intake {
        None => ports(config, runs),
        Some(broker) => intake(&broker.address),
    };
    match &config.bridge {
        None => findings.push(Finding::ok(CENTRAL, "none is configured: every prompt is answered here")),
        Some(bridge) if quick => findings.extend(bridge.addresses.iter().filter_map(name)),
        Some(bridge) => findings.extend(central(config, bridge)),
    }
    findings
}

fn ports(config: &Config, runs: bool) -> Vec<Finding> {
    let check = |listener: &tidegate_broker::Listener| match TcpListener::bind(listener.addr) {
        Ok(_) if runs => {
            let next = "restart the gateway: `systemctl restart tidegate`";
            Finding::warning(
                PORT,
                format!("address {} is configured, the gateway that runs has another", listener.addr),
                next,
            )
        }
        Ok(_) => Finding::ok(PORT, format!("address {} is free", listener.addr)),
        Err(_) if runs => Finding::ok(PORT, format!("address {} is taken by the gateway that runs", listener.addr)),
        Err(error) => {
            let next = "stop what has it (`ss -ltnp` names it), or listen elsewhere with door.listen";
            Finding::fault(PORT, format!("address {}: {error}", listener.addr), next)
        }
    };
    config.door.listeners.iter().map(check).collect()
}

/// Without a door: what the broker in its place weakens. A health topic says the same.
fn intake(address: &Address) -> Vec<Finding> {
    const NEXT: &str = "it is the price of an intake; a door of the gateway's own keeps the promise";
    let weak = crate::intake::weakened(address).into_iter().map(|what| Finding::warning(INTAKE, what, NEXT));
    name(address).into_iter().chain(weak).collect()
}

/// What is wrong with the host's name, if anything is.
fn name(address: &Address) -> Option<Finding> {
    let (sender, told) = mpsc::channel();
    let asked = address.clone();
    // Nothing ends a question to a name server: a thread that is late ends with this process.
    std::thread::spawn(move || drop(sender.send(asked.resolve())));
    let mut progress = Progress::new(format!("asking for the address of {}", address.host()));
    let deadline = Instant::now() + NAME_MAX;
    let told = loop {
        match told.recv_timeout(Duration::from_millis(250)) {
            Err(mpsc::RecvTimeoutError::Timeout) if Instant::now() < deadline => progress.until(deadline),
            told => break told.ok(),
        }
    };
    let why = match told {
        Some(Ok(())) => return None,
        Some(Err(error)) => error.to_string(),
        None => format!("no answer within {} s", NAME_MAX.as_secs()),
    };
    let next = "look at /etc/resolv.conf and whether a link is up, or give the host in /etc/hosts; until then prompts are \
                answered here";
    Some(Finding::fault(CENTRAL, format!("the name {} does not resolve: {why}", address.host()), next))
}

fn central(config: &Config, bridge: &BridgeConfig) -> Vec<Finding> {
    let unknown: Vec<Finding> = bridge.addresses.iter().filter_map(name).collect();
    if unknown.len() == bridge.addresses.len() {
        return unknown;
    }
    let runtime = match crate::runtime::start() {
        Ok(runtime) => runtime,
        Err(failure) => return vec![Finding::fault(CENTRAL, failure.sentence(), "free some threads or memory")],
    };
    let trips = runtime.block_on(trips(config, bridge, TRIP_MAX));
    let some = trips.iter().any(|trip| trip.fault.is_none());
    let window = config.limits.escalations_in_flight_max;
    let mut findings = unknown;
    for trip in &trips {
        match &trip.fault {
            Some(fault) => findings.push(unreachable(trip, fault, some)),
            None => findings.extend(reached(trip, window)),
        }
    }
    findings
}

fn unreachable(trip: &Trip, fault: &str, another: bool) -> Finding {
    let what = format!("{}: {fault}", trip.address);
    let next = "see that it runs, that this host may reach it, and that user, certificate and rights are right; until then \
                prompts are answered here and escalations wait on disk";
    match another {
        true => Finding::warning(CENTRAL, format!("{what}; another address works"), next),
        false => Finding::fault(CENTRAL, what, next),
    }
}

/// What a broker that works allows.
fn reached(trip: &Trip, window: u32) -> Vec<Finding> {
    let mut findings = vec![Finding::ok(CENTRAL, format!("{} works, MQTT {}", trip.address, trip.version.word()))];
    let mut weak = |what: String, next: &str| findings.push(Finding::warning(CENTRAL, what, next));
    if trip.version == Version::Three {
        weak(
            format!(
                "{} speaks no MQTT 5: it says neither its limits nor whether anybody takes an escalation",
                trip.address
            ),
            "promise 4 then rests on silence: an escalation is published again after its lease; use a broker with MQTT 5",
        );
    }
    if let Some(max) = trip.packet_bytes_max.filter(|max| (*max as usize) < ESCALATION_BYTES_MAX + FRAMING_BYTES) {
        weak(
            format!(
                "{} takes packets of {max} bytes at most, the largest escalation has {}: larger ones keep the local answer",
                trip.address,
                ESCALATION_BYTES_MAX + FRAMING_BYTES
            ),
            "raise its Maximum Packet Size (Mosquitto: max_packet_size)",
        );
    }
    if let Some(max) = trip.receive_max.filter(|max| u32::from(*max) < window) {
        weak(
            format!(
                "{} takes {max} publishes at once, limits.escalations_in_flight_max is {window}: its limit holds",
                trip.address
            ),
            "after an outage the outbox drains slower; raise it there (Mosquitto: max_inflight_messages)",
        );
    }
    if trip.back.is_none() {
        weak(
            format!(
                "{} lets us not hear our own event/canary: a link that is dead but up is found later",
                trip.address
            ),
            "grant it, as deploy/mosquitto/acl and deploy/emqx/acl.conf do",
        );
    }
    findings
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::finding::Level;
    use super::*;

    #[test]
    fn a_name_that_nobody_knows_is_said() {
        let found = name(&"mqtt://nowhere.invalid".parse().unwrap()).unwrap();
        assert_eq!(found.level, Level::Fault);
        assert!(found.what.starts_with("the name nowhere.invalid does not resolve: "), "{}", found.what);
        assert_eq!(name(&"mqtt://127.0.0.1".parse().unwrap()), None);
        assert_eq!(name(&"mqtt://[::1]:1".parse().unwrap()), None);
    }
}
