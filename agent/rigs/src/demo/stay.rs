//! `--stay`: tells a person what to try, and waits.

use super::interrupt::Interrupts;
use super::stage::Stage;
use crate::process::tidegate_binary;
use std::time::Duration;

/// How often the gateway is looked at while a person plays.
const LOOK: Duration = Duration::from_secs(1);

/// Prints addresses and commands, and waits for ctrl-C.
pub(super) fn wait(stage: &Stage, interrupts: &Interrupts) -> anyhow::Result<()> {
    println!("\n{}", text(stage)?);
    while !interrupts.within(LOOK) {}
    Ok(())
}

fn text(stage: &Stage) -> anyhow::Result<String> {
    let (door, origin) = (stage.gateway.door.address, &stage.gateway.door.origin);
    let tidegate = tidegate_binary()?;
    let client = format!("-h {} -p {}", door.ip(), door.port());
    let central = stage.central.address;
    let control = stage.proxy.control;
    Ok(format!(
        "Everything runs on. Gateway mqtt://{door}, central broker mqtt://{central}, link control {control}.\n\
         Try in another terminal:\n  \
         {tidegate} ask --url mqtt://{door} \"turn on the bilge pump\"\n  \
         {tidegate} status --control {socket}\n  \
         mosquitto_sub {client} -q 1 -t tg/v1/{origin}/answer/local-9 -v\n  \
         mosquitto_pub {client} -q 1 -t tg/v1/{origin}/prompt/local-9 -m 'lights on in the ice house'\n  \
         mosquitto_pub {client} -q 1 -t tg/v1/{origin}/prompt/local-9 \\\n    \
         -m '{{\"id\":\"b3f1-7\",\"task\":\"intent\",\"input\":\"tell me a joke\",\"stream\":true}}'\n  \
         mosquitto_sub -h {host} -p {port} -t 'tg/v1/{origin}/state/#' -v\n  \
         exec 3<>/dev/tcp/{cip}/{cport}; echo silence >&3; head -1 <&3   # then reset, heal, stats\n\
         Ctrl-C ends it.",
        tidegate = tidegate.display(),
        socket = stage.gateway.control.display(),
        host = central.ip(),
        port = central.port(),
        cip = control.ip(),
        cport = control.port(),
    ))
}
