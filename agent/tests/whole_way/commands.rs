//! The command line against a running gateway, and what it says where it cannot work.

use crate::support::{Setup, edge_model, run, tidegate};
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
fn what_cannot_start_says_one_clear_sentence() {
    let setup = Setup::new();
    let gateway = setup.start();
    let config = setup.config();
    let folder = setup.folder.path();
    let up = |more: &[&str]| {
        let (status, _, err) = run(tidegate().arg("up").args(more));
        (status, err)
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
