//! `tidegate bridge inspect` and `bridge test`, and what `config check` says of rules.

use crate::brokers::only_three;
use crate::support::{Central, Setup, free_port, run, tidegate};
use serde_json::Value;

fn setup(central: u16, more: &str) -> Setup {
    let mut setup = Setup::bridged(central);
    setup.more = setup.more.replacen("[tasks.action]", &format!("{more}[tasks.action]"), 1);
    setup.more.push_str("\n[[bridge.forward]]\nfilter = \"sensors/#\"\nstrip = \"sensors/\"\nadd = \"quay/\"\n");
    setup
}

#[test]
fn inspect_follows_a_topic() {
    let setup = setup(free_port(), "");
    let inspect = |topic: &str| run(tidegate().args(["bridge", "inspect", topic, "--config"]).arg(setup.config()));
    let (status, out, err) = inspect("sensors/7/t");
    assert_eq!(status, 0, "{err}");
    assert!(out.contains("to       quay/7/t"), "{out}");
    let (status, out, _) = inspect("tg/v1/site/gateway/prompt/local-1");
    assert_eq!(status, 1);
    assert!(out.contains("never cross by a rule"), "{out}");
}

#[test]
fn test_goes_there_and_back_at_every_address() {
    let central = Central::start();
    let (dead, old) = (free_port(), only_three(central.port));
    let more = format!("other_urls = [\"mqtt://127.0.0.1:{dead}\", \"mqtt://127.0.0.1:{old}\"]\n");
    let setup = setup(central.port, &more);
    let (status, out, err) = run(tidegate().args(["bridge", "test", "--json", "--config"]).arg(setup.config()));
    assert_eq!(status, 0, "{err}");
    let trips: Value = serde_json::from_str(&out).unwrap();
    let word = |n: usize, key: &str| trips[n][key].clone();
    assert_eq!((word(0, "mqtt"), word(0, "fault")), ("5".into(), Value::Null), "{out}");
    assert!(word(0, "back_ms").as_f64().is_some_and(|ms| ms > 0.0), "{out}");
    assert!(word(1, "fault").is_string(), "{out}");
    assert_eq!((word(2, "mqtt"), word(2, "fault")), ("3.1.1".into(), Value::Null), "{out}");
    drop(central);
    let (status, out, err) = run(tidegate().args(["bridge", "test", "--timeout", "2", "--config"]).arg(setup.config()));
    assert_eq!(status, 1, "{out}");
    assert!(err.contains("no address of the central broker works"), "{err}");
}

#[test]
fn rules_that_overlap_are_refused() {
    let mut setup = setup(free_port(), "");
    setup.more.push_str("[[bridge.forward]]\nfilter = \"sensors/+/t\"\n");
    let (status, _, err) = run(tidegate().args(["config", "check"]).arg(setup.config()));
    assert_eq!(status, 64);
    assert!(err.contains("no topic in common with \"sensors/#\""), "{err}");
}
