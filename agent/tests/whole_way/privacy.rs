//! No text of a prompt or an answer reaches a log, at any level.

use crate::support::{Central, Setup, Worker};

/// A word that no program says by itself.
const MARK: &str = "xyloquartz";

#[test]
fn no_log_holds_a_word_of_a_prompt() {
    let central = Central::start();
    let worker = Worker::start(central.port, "trace");
    let mut setup = Setup::bridged(central.port);
    setup.log = "trace";
    let gateway = setup.start();
    gateway.until_status("the link", |s| s["health"]["link"] == "up");
    let mut device = gateway.device("local-1");
    device.prompt(format!(r#"{{"id":"v-1","input":"turn on the {MARK} light","stream":true}}"#));
    device.prompt(format!(r#"{{"id":"v-2","task":"doubted","input":"seventeen {MARK} grommets whistle"}}"#));
    device.prompt(format!(r#"{{"id":"v-3","input":"{MARK}","priority":"{MARK}"}}"#));
    device.prompt(format!("turn on the {MARK} heater"));
    for id in ["v-1", "v-2", "v-3"] {
        device.outcome(id);
    }
    device.fence("f-1");
    for (name, log) in [("gateway and engine", gateway.process.log()), ("worker and engine", worker.process.log())] {
        assert!(log.len() > 100, "{name} logs");
        assert!(!log.to_lowercase().contains(MARK), "{name} logged a word of a prompt");
    }
}
