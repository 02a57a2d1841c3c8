//! `tidegate doctor`: looks at what a gateway needs on this machine, says of each part whether it is well, and what to do
//! about what is not.
//!
//! Invariants: it changes nothing that outlives it but a canary prompt of a running gateway; every warning and fault has
//! a next step; with any fault the exit status is 1.

mod canary;
mod finding;
mod machine;
mod model;
mod network;
mod page;
mod papers;
mod speed;
mod storage;

pub(crate) use canary::PROMPT;

use crate::cli::DoctorArgs;
use crate::config::{self, Config, Source};
use crate::failure::Failure;
use crate::terminal::print;
use crate::{status, trusted_time};
use finding::{Finding, Level};
use serde_json::{Value, json};

/// Runs the command; exit status 1 with any fault.
pub(crate) fn run(args: &DoctorArgs) -> Result<(), Failure> {
    let source = args.config.clone().map_or(Source::Default, Source::File);
    let findings = match config::load(&source) {
        Err(failure) => {
            let next = "mend the configuration; what depends on it was not looked at";
            let mut findings = vec![Finding::fault("configuration", failure.sentence(), next)];
            findings.extend(machine::all());
            findings
        }
        Ok(config) => all(&config, args),
    };
    print(&if args.json { format!("{}\n", json(&findings)) } else { findings.iter().map(Finding::line).collect() })?;
    match findings.iter().filter(|finding| finding.level == Level::Fault).count() {
        0 => Ok(()),
        faults => {
            let plural = if faults == 1 { "fault" } else { "faults" };
            Err(Failure::other(format!("{faults} {plural}")).next("begin with the first: others may follow from it"))
        }
    }
}

fn all(config: &Config, args: &DoctorArgs) -> Vec<Finding> {
    trusted_time::remember(&config.data_dir);
    trusted_time::look();
    // What a running gateway says of itself; none: it does not run.
    let running: Option<Value> = status::ask_one(Some(&config.control), status::STATUS).ok();
    let mut findings = vec![
        Finding::ok("configuration", format!("configuration of {}/{}", config.origin.site, config.origin.gateway)),
        match &running {
            Some(status) => Finding::ok("gateway", format!("it runs, version {}", status::word(&status["version"]))),
            None => Finding::ok("gateway", "it does not run; parts are looked at by themselves"),
        },
    ];
    findings.extend(machine::all());
    let model = model::all(config, &mut findings);
    findings.extend(storage::all(config, running.is_some()));
    findings.extend(papers::all(config));
    findings.extend(network::all(config, running.is_some(), args.quick));
    findings.extend(page::all(config, running.as_ref()));
    if !args.quick {
        findings.extend(canary::all(config, model.as_deref(), running.is_some()));
    }
    findings
}

fn json(findings: &[Finding]) -> Value {
    let count = |level| findings.iter().filter(|finding| finding.level == level).count();
    json!({ "faults": count(Level::Fault), "warnings": count(Level::Warning),
        "findings": findings.iter().map(Finding::json).collect::<Vec<_>>() })
}
