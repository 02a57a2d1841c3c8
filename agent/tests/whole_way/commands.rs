//! The command line against a running gateway, and what it says where it cannot work.

use crate::support::{Setup, edge_model, run, slow_model, tidegate};
use std::fs;
use std::net::TcpListener;

#[test]
fn ask_prints_the_answer_and_how_it_came() {
    let setup = Setup::new();
    let gateway = setup.start();
    let url = format!("mqtt://127.0.0.1:{}", gateway.port);
    let (status, out, err) = run(tidegate().args(["ask", "turn off the lights in the packing hall", "--url", &url]));
    assert_eq!(status, 0, "{err}");
    assert!(out.starts_with('{') && out.contains("intent"), "{out}");
    assert!(out.contains("[local, ") && out.contains("confidence ") && out.contains(" ms: "), "{out}");
    let (status, out, err) = run(tidegate().args(["ask", "hello", "--task", "intent", "--json", "--url", &url]));
    assert_eq!(status, 0, "{err}");
    assert!(out.lines().all(|line| line.starts_with('{')) && out.contains(r#""kind":"answer""#), "{out}");
    let (status, _, err) = run(tidegate().args(["ask", "hello", "--task", "nothing", "--url", &url]));
    assert_eq!(status, 1);
    assert!(err.contains("unknown_task"), "{err}");
    let (status, out, _) = run(tidegate().args(["status", "--control"]).arg(&gateway.control));
    assert_eq!(status, 0);
    assert!(out.contains("gateway   site/gateway") && out.contains("2 local"), "{out}");
}

#[test]
fn what_became_of_a_prompt_is_looked_up_without_its_text() {
    let mut setup = Setup::new();
    setup.model = slow_model(setup.folder.path());
    setup.more = "default_task = \"spell\"\n[tasks.spell]\nsystem = \"spell\"\n\
        schema = '{\"type\":\"string\",\"pattern\":\"^[ab]{60}$\"}'\n"
        .to_owned();
    let gateway = setup.start();
    gateway.until_ready();
    let look = |id: &str, more: &[&str]| {
        let mut command = tidegate();
        command.args(["ask", "--device", "local-1", "--id", id, "--control"]).arg(&gateway.control).args(more);
        run(&mut command)
    };
    let mut device = gateway.device("local-1");
    device.prompt(r#"{"id":"x-1","input":"a secret word","stream":true}"#);
    device.until_frame("a token", |f| f["kind"] == "token");
    let (status, out, err) = look("x-1", &[]);
    assert_eq!(status, 1, "{out}");
    assert!(out.contains("state       running") && out.contains("task        spell"), "{out}");
    assert!(!out.contains("secret") && err.contains("there is no answer: the prompt is running"), "{out}{err}");
    let (_, out, _) = look("x-1", &["--reveal"]);
    assert!(out.contains("prompt      a secret word"), "{out}");
    let answer = device.answer("x-1");
    let letters = answer["json"].as_str().unwrap();
    let (status, out, err) = look("x-1", &["--json"]);
    assert_eq!(status, 0, "{err}");
    let found: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(
        (&found["state"], &found["route"], &found["reason"]),
        (&"answered".into(), &"local".into(), &answer["reason"])
    );
    assert_eq!(found["timing"], answer["timing"]);
    assert!(!out.contains(letters), "{out}");
    let (_, out, _) = look("x-1", &["--reveal"]);
    assert!(out.contains(letters), "{out}");
    let (status, _, err) = look("x-9", &[]);
    assert_eq!(status, 1);
    assert!(err.contains("id x-9 of device local-1 is not known"), "{err}");
    // The same id and text again is the same prompt: it is not computed twice.
    let url = format!("mqtt://127.0.0.1:{}", gateway.port);
    let again = ["ask", "a secret word", "--device", "local-1", "--id", "x-1", "--json", "--url", &url];
    let (status, out, err) = run(tidegate().args(again));
    assert_eq!(status, 0, "{err}");
    assert!(out.contains(r#""route":"stored""#) && out.contains(letters), "{out}");
}

#[test]
fn what_cannot_start_says_one_clear_sentence() {
    let setup = Setup::new();
    let gateway = setup.start();
    let config = setup.config();
    let folder = setup.folder.path();
    let up = |more: &[&str]| {
        let (status, out, err) = run(tidegate().arg("up").args(more));
        assert_eq!(out, "");
        let sentences: Vec<_> = err.lines().filter(|line| line.starts_with("tidegate: ")).collect();
        assert_eq!(sentences.len(), 1, "one sentence for a person: {err}");
        (status, sentences[0].to_owned())
    };
    let (status, err) = up(&["--config", config.to_str().unwrap()]);
    assert_eq!(status, 74, "{err}");
    assert!(err.contains("in use by another process"), "{err}");

    let other = folder.join("other").display().to_string();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let holder = TcpListener::bind(taken).unwrap();
    let model = edge_model().display().to_string();
    let base = ["--data-dir", &other, "--model", &model, "--listen"];
    let (status, err) = up(&[&base[..], &[&taken.to_string()]].concat());
    assert_eq!(status, 1, "{err}");
    assert!(err.contains(&format!("cannot listen on {taken}")), "{err}");
    drop(holder);

    let (status, err) = up(&["--data-dir", &other, "--model", "nowhere.gguf"]);
    assert_eq!(status, 1, "{err}");
    assert!(err.contains("nowhere.gguf"), "{err}");

    let half = folder.join("half.gguf");
    let whole = fs::read(edge_model()).unwrap();
    fs::write(&half, &whole[..whole.len() / 2]).unwrap();
    let (status, err) = up(&["--data-dir", &other, "--model", half.to_str().unwrap()]);
    assert_eq!(status, 1, "{err}");
    assert!(err.contains("half.gguf"), "{err}");

    let foreign = folder.join("foreign");
    fs::create_dir(&foreign).unwrap();
    std::os::unix::fs::chown(&foreign, Some(12_345), None).unwrap();
    let (status, err) = up(&["--data-dir", foreign.to_str().unwrap(), "--model", &model, "--listen", "127.0.0.1:0"]);
    assert_eq!(status, 74, "{err}");
    assert!(err.contains("12345"), "{err}");
    drop(gateway);
}

#[test]
fn three_mistakes_in_a_file_are_three_lines() {
    let setup = Setup::new();
    let path = setup.folder.path().join("bad.toml");
    fs::write(&path, "gatway = \"g\"\n[engine]\nslots = 1000\n[drain]\ntimeout_ms = \"soon\"\n").unwrap();
    for arguments in [["config", "check"], ["up", "--config"]] {
        let (status, _, err) = run(tidegate().args(arguments).arg(&path));
        assert_eq!(status, 64, "{err}");
        for expect in
            ["3 mistakes", "did you mean gateway?", "engine.slots = 1000: allowed is 1 to 64", "drain.timeout_ms"]
        {
            assert!(err.contains(expect), "{err} lacks {expect}");
        }
    }
    let (status, out, _) = run(tidegate().args(["config", "example"]));
    assert_eq!(status, 0);
    fs::write(&path, out).unwrap();
    let (status, _, err) = run(tidegate().args(["config", "check"]).arg(&path));
    assert_eq!(status, 0, "{err}");
}

/// Shares of one and QoS have no unit.
#[test]
fn every_number_of_the_example_has_its_unit_and_a_reason() {
    let (status, out, err) = run(tidegate().args(["config", "example"]));
    assert_eq!(status, 0, "{err}");
    let lines: Vec<&str> = out.lines().collect();
    let mut numbers = 0;
    for pair in lines.windows(2) {
        let Some((key, value)) = pair[1].split_once(" = ").filter(|(_, value)| value.parse::<f64>().is_ok()) else {
            continue;
        };
        numbers += 1;
        let said = pair[0].strip_prefix("# ").and_then(|said| said.split_once(" Allowed: "));
        let (why, allowed) = said.unwrap_or_else(|| panic!("{key} says nothing: {}", pair[0]));
        assert!(why.split(' ').count() >= 4, "{key} = {value} has no reason: {why}");
        let unit = allowed.trim_end_matches('.').split(' ').nth(3);
        let named = unit.is_some_and(|unit| unit.chars().all(char::is_alphabetic));
        assert!(named || ["0.0 to 1.0.", "1 or 0."].contains(&allowed), "{key} = {value} has no unit: {allowed}");
    }
    assert!(numbers >= 20, "only {numbers} numbers were found");
}
