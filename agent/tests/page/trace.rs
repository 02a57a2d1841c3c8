//! A trace from the device to the worker and back: each hop logs what came and what it sent on.

use crate::support::{Central, Setup, Worker};
use serde_json::Value;

const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

/// The trace of an event in a log of JSON lines, and the parent where the line names one.
fn told(log: &str, event: &str) -> (String, Option<String>) {
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let of = |line: Value| {
        let fields = &line["fields"];
        let trace = fields["trace"].as_str()?.to_owned();
        (fields["message"] == event).then(|| (trace, fields["parent"].as_str().map(str::to_owned)))
    };
    lines.filter_map(of).next().unwrap_or_else(|| panic!("{event} is not in the log with a trace:\n{log}"))
}

/// Trace id and span of a traceparent; flags are as they came.
fn split(trace: &str) -> (&str, &str) {
    assert!(trace.len() == TRACE.len() && trace.ends_with("-01"), "{trace}");
    (&trace[3..35], &trace[36..52])
}

#[test]
fn every_hop_from_device_to_worker_and_back_logs_its_span_under_its_parent() {
    let central = Central::start();
    let worker = Worker::start_with(central.port, "info", &["--log-json"]);
    let gateway = Setup::bridged(central.port).start_with(&["--json"]);
    gateway.until_status("the link", |s| s["health"]["link"] == "up");
    let mut device = gateway.device("local-1");
    device.prompt(format!(
        r#"{{"id":"t-1","task":"doubted","input":"seventeen grommets whistle at noon","traceparent":"{TRACE}"}}"#
    ));
    device.prompt(r#"{"id":"t-2","input":"turn on the light","traceparent":"nonsense"}"#);
    assert!(device.answer("t-1")["reason"].as_str().unwrap().starts_with("cloud_"));
    let refused = device.outcome("t-2");
    assert!(refused["message"].as_str().unwrap().contains("traceparent"), "{refused}");
    let (here, there) = (gateway.process.log(), worker.process.log());
    let mut parent = split(TRACE).1.to_owned();
    let mut spans = vec![parent.clone()];
    for (log, event) in
        [(&here, "a prompt came"), (&here, "an escalation goes over the link"), (&there, "an escalation came")]
    {
        let (trace, under) = told(log, event);
        let (id, span) = split(&trace);
        assert_eq!((id, under), (split(TRACE).0, Some(parent)), "{event} belongs to the span before it");
        assert!(!spans.contains(&span.to_owned()), "{event} has a span of its own: {span} in {spans:?}");
        parent = span.to_owned();
        spans.push(parent.clone());
    }
    // What happens within a hop is told under its span; the way back names the worker's.
    for (log, event, hop) in [
        (&here, "accepted", 1),
        (&here, "escalated", 1),
        (&here, "ended", 1),
        (&there, "resolved", 3),
        (&here, "a resolution came", 3),
    ] {
        assert_eq!(split(&told(log, event).0).1, spans[hop], "{event}");
    }
}
