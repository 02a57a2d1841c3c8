//! A trace from the device to the worker and back, in the logs of both.

use crate::support::{Central, Setup, Worker};

const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

#[test]
fn a_traceparent_is_in_the_logs_of_gateway_and_worker() {
    let central = Central::start();
    let worker = Worker::start(central.port, "info");
    let gateway = Setup::bridged(central.port).start_with(&["--log-json"]);
    gateway.until_status("the link", |s| s["health"]["link"] == "up");
    let mut device = gateway.device("local-1");
    device.prompt(format!(
        r#"{{"id":"t-1","task":"doubted","input":"seventeen grommets whistle at noon","traceparent":"{TRACE}"}}"#
    ));
    device.prompt(r#"{"id":"t-2","input":"turn on the light","traceparent":"nonsense"}"#);
    assert!(device.answer("t-1")["reason"].as_str().unwrap().starts_with("cloud_"));
    let refused = device.outcome("t-2");
    assert!(refused["message"].as_str().unwrap().contains("traceparent"), "{refused}");
    let log = gateway.process.log();
    for event in ["accepted", "escalated", "a resolution came", "ended"] {
        let told = log.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok()).any(|line| {
            line["fields"]["message"] == event && line["fields"]["trace"] == TRACE && line["fields"]["job"] == "1"
        });
        assert!(told, "{event} is not in the log with its trace:\n{log}");
    }
    let log = worker.process.log();
    assert!(log.lines().any(|line| line.contains("resolved") && line.contains(TRACE)), "{log}");
}
