//! The rigs: they start the real programs, try to break the promises, and measure the figures.
//!
//! Invariants: a rig ends with one line `NAME: FIGURE UNIT (bar BAR) pass` or `… FAIL` and an exit status that agrees
//! (the demo ends with its two counts); what a rig starts dies with it.
// A rig's report on stdout is its product, not a log.
#![allow(clippy::print_stdout)]

mod alone;
mod bridge;
mod clock;
mod confidence;
mod demo;
mod device;
mod door;
mod draw;
mod engine;
mod figures;
mod footprint;
mod ledger;
mod link;
mod models;
mod overhead;
mod probe;
mod process;
mod prompts;
mod proxy;
mod report;
mod store;
mod world;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

#[derive(Parser)]
#[command(name = "tidegate-rigs", version, about = "Tries to break Tidegate's promises and measures its figures")]
struct Cli {
    #[command(subcommand)]
    rig: Rig,
}

#[derive(Subcommand)]
enum Rig {
    /// The main job on loopback: gateway, broker, worker and eight devices, with the link cut on the way.
    Demo(demo::Options),
    /// What the gateway adds to the disk's and the engine's own time.
    Overhead(overhead::Options),
    /// Memory, start time and size of the gateway.
    Footprint(footprint::Options),
    /// The link to the central broker: an outage with a backlog, cuts, and mosquitto's own bridge beside it.
    Link(bridge::link::Options),
    /// Workers and the central broker killed, resolutions lost: exactly one outcome each.
    WorkerLoss(bridge::worker_loss::Options),
    /// The same general traffic through the door, rumqttd alone and mosquitto.
    DoorVsMosquitto(door::versus::Options),
    /// Durable acknowledgements per second, and how long a lone one takes.
    DoorAcks(door::acks::Options),
    /// What stops rumqttd alone, tried on it and through the door.
    DoorFaults(door::faults::Options),
    /// Mutated packets and cut handshakes.
    DoorFuzz(door::fuzz::Options),
    /// Two thousand devices over TLS: how fast they come in, what they cost while idle.
    DoorCrowd(door::crowd::Options),
    /// One greedy device beside nine polite ones.
    Fair(door::fair::Options),
    /// Clients that we did not write, in both protocol versions, in the clear and through TLS.
    Conformance(door::conformance::Options),
    /// Identities, actions and topics, tried from outside.
    Access(door::access::Options),
    /// Runs prompts through a model once and keeps what the logits said, for the rigs about confidence.
    Signals(confidence::signals::Options),
    /// Whether a stated confidence is true, and ranks better than each single signal.
    Confidence(confidence::calibrated::Options),
    /// How often a promised share of wrong answers is broken.
    Guarantee(confidence::guarantee::Options),
    /// Gateway and cloud together, against the cloud alone and other routers.
    Cascade(confidence::cascade::Options),
    /// Whether an escalated share is held.
    Budget(confidence::budget::Options),
    /// What stopping a hopeless answer saves.
    Early(confidence::early::Options),
    /// Learning while running, against the best threshold in hindsight.
    Learning(confidence::learning::Options),
    /// How far predicted times are off, under load and speed changes.
    Predict(confidence::predict::Options),
    /// How many deadlines are met, against policies that do not weigh slack.
    Deadline(confidence::deadline::Options),
    /// Gateway and cloud against the cloud alone, over longer and longer links.
    Wan(confidence::wan::Options),
    /// Accuracy, speed and size of model files.
    Models(models::Options),
    /// Power cuts: every state that one may leave of a recorded store, and of the gateway under load.
    PowerCut(store::power_cut::Options),
    /// The engine killed, stopped, starved and poisoned under load.
    EngineChaos(store::engine_chaos::Options),
    /// Gateway and engine killed at random moments.
    Kill(store::kill::Options),
    /// The disk filled to its last byte and freed, under load.
    DiskFull(store::disk_full::Options),
    /// Bits flipped and files cut short in every file of a store.
    Corrupt(store::corrupt::Options),
    /// Reboots and jumps of the wall clock.
    Clock(store::clock_jumps::Options),
    /// Bytes that the store writes per prompt, journal included.
    Wear(store::wear::Options),
    /// Prefill and decode beside llama-bench.
    EngineRaw(engine::raw::Options),
    /// Answers under a schema beside llama-server: valid, in what time, at what cost of the mask.
    EngineJson(engine::json::Options),
    /// Time to the first token under templates that are kept, beside llama-server.
    EnginePrefix(engine::prefix::Options),
    /// Short JSON prompts from 1 to 16 clients, beside llama-server.
    EngineCrowd(engine::crowds::Options),
    /// The shipped tide-edge and 16 clients, beside llama-server.
    EngineTiny(engine::crowds::Options),
    /// Decode beside a busy process.
    EngineContention(engine::contention::Options),
    /// Memory that a model is predicted to take, beside what its process took.
    EngineMemory(engine::memory::Options),
    /// llama.cpp's llama-server and llama-bench, for the rigs that measure beside them.
    Peers(engine::peers::Options),
    /// One side of engine-raw (a part of it).
    #[command(hide = true)]
    RawSide(engine::side::Options),
    /// Writes a model of random weights in the shape of a real one.
    MakeGguf(engine::make::Options),
    /// One MQTT device, driven over stdin and stdout (a part of the demo).
    #[command(hide = true)]
    Device(device::Options),
    /// A TCP proxy that can go silent and reset (a part of the demo).
    Proxy(proxy::Options),
    /// One model over the prompts on stdin (a part of demo and models).
    #[command(hide = true)]
    Alone(alone::Options),
    /// Runs a program that dies when its parent dies (a part of every rig).
    #[command(hide = true)]
    Leash(process::LeashOptions),
}

fn main() -> ExitCode {
    let result = match Cli::parse().rig {
        Rig::Demo(options) => demo::run(options),
        Rig::Overhead(options) => overhead::run(&options),
        Rig::Footprint(options) => footprint::run(&options),
        Rig::Link(options) => bridge::link::run(&options),
        Rig::WorkerLoss(options) => bridge::worker_loss::run(&options),
        Rig::DoorVsMosquitto(options) => door::versus::run(&options),
        Rig::DoorAcks(options) => door::acks::run(&options),
        Rig::DoorFaults(options) => door::faults::run(&options),
        Rig::DoorFuzz(options) => door::fuzz::run(&options),
        Rig::DoorCrowd(options) => door::crowd::run(&options),
        Rig::Fair(options) => door::fair::run(&options),
        Rig::Conformance(options) => door::conformance::run(&options),
        Rig::Access(options) => door::access::run(&options),
        Rig::Signals(options) => confidence::signals::run(&options),
        Rig::Confidence(options) => confidence::calibrated::run(&options),
        Rig::Guarantee(options) => confidence::guarantee::run(&options),
        Rig::Cascade(options) => confidence::cascade::run(&options),
        Rig::Budget(options) => confidence::budget::run(&options),
        Rig::Early(options) => confidence::early::run(&options),
        Rig::Learning(options) => confidence::learning::run(&options),
        Rig::Predict(options) => confidence::predict::run(&options),
        Rig::Deadline(options) => confidence::deadline::run(&options),
        Rig::Wan(options) => confidence::wan::run(&options),
        Rig::Models(options) => models::run(&options),
        Rig::PowerCut(options) => store::power_cut::run(&options),
        Rig::EngineChaos(options) => store::engine_chaos::run(&options),
        Rig::Kill(options) => store::kill::run(&options),
        Rig::DiskFull(options) => store::disk_full::run(&options),
        Rig::Corrupt(options) => store::corrupt::run(&options),
        Rig::Clock(options) => store::clock_jumps::run(&options),
        Rig::Wear(options) => store::wear::run(&options),
        Rig::EngineRaw(options) => engine::raw::run(&options),
        Rig::EngineJson(options) => engine::json::run(&options),
        Rig::EnginePrefix(options) => engine::prefix::run(&options),
        Rig::EngineCrowd(options) => engine::crowds::run(&options),
        Rig::EngineTiny(options) => engine::crowds::tiny(&options),
        Rig::EngineContention(options) => engine::contention::run(&options),
        Rig::EngineMemory(options) => engine::memory::run(&options),
        Rig::Peers(options) => engine::peers::run(&options),
        Rig::RawSide(options) => engine::side::run(&options),
        Rig::MakeGguf(options) => engine::make::run(&options),
        Rig::Device(options) => device::run(options),
        Rig::Proxy(options) => proxy::run(&options),
        Rig::Alone(options) => alone::run(&options),
        Rig::Leash(options) => process::leash(&options),
    };
    result.unwrap_or_else(|error| {
        eprintln!("tidegate-rigs: {error:#}");
        ExitCode::FAILURE
    })
}
