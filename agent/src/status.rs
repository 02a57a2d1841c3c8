//! `tidegate status`: asks the control socket, for a person or as JSON.

use crate::cli::StatusArgs;
use crate::config::control_candidates;
use crate::failure::Failure;
use crate::terminal::{Colour, painted, print};
use serde_json::Value;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The question how a gateway is.
pub(crate) const STATUS: &str = r#"{"op":"status"}"#;
/// Longest wait for an answer.
const ANSWER_MAX: Duration = Duration::from_secs(5);
/// Between two words about how long it takes.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Runs the command.
pub(crate) fn run(args: &StatusArgs) -> Result<(), Failure> {
    let status = ask_one(args.control.as_deref(), STATUS)?;
    let text = if args.json { format!("{status}\n") } else { human(&status) };
    print(&text)
}

/// The answer of the gateway at this socket, else of the first that answers where gateways have theirs.
pub(crate) fn ask_one(control: Option<&Path>, request: &str) -> Result<Value, Failure> {
    let places = control.map_or_else(control_candidates, |path| vec![path.to_path_buf()]);
    ask_any(&places, request)
}

/// The answer of the first gateway that answers at one of these sockets.
fn ask_any(places: &[PathBuf], request: &str) -> Result<Value, Failure> {
    let mut tried = Vec::new();
    for place in places {
        match ask(place, request) {
            Ok(status) => return Ok(status),
            Err(error) => tried.push(format!("{}: {error}", place.display())),
        }
    }
    let sentence = format!("no gateway answers at its control socket ({})", tried.join("; "));
    Err(Failure::other(sentence).next("start it with `tidegate up`, or name its socket with --control"))
}

/// The answer of the gateway at this socket to something that takes its time; `waits` is told the latest end.
pub(crate) fn ask_patiently(
    place: &Path,
    request: &str,
    patience: Duration,
    waits: &mut dyn FnMut(Instant),
) -> Result<Value, Failure> {
    let failed = |error: std::io::Error| Failure::other(format!("{}: {error}", place.display()));
    let deadline = Instant::now() + patience;
    let mut stream = UnixStream::connect(place).map_err(failed)?;
    stream.set_read_timeout(Some(LOOK_EVERY)).map_err(failed)?;
    stream.write_all(format!("{request}\n").as_bytes()).map_err(failed)?;
    let (mut reader, mut line) = (BufReader::new(stream), String::new());
    loop {
        // What was read before the timeout stays in the line.
        match reader.read_line(&mut line) {
            Ok(0) => return Err(Failure::other(format!("{}: the gateway ended before it answered", place.display()))),
            Ok(_) => return serde_json::from_str(&line).map_err(|e| failed(e.into())),
            Err(error) if !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                return Err(failed(error));
            }
            Err(error) if Instant::now() >= deadline => return Err(failed(error)),
            Err(_) => waits(deadline),
        }
    }
}

fn ask(place: &Path, request: &str) -> std::io::Result<Value> {
    let mut stream = UnixStream::connect(place)?;
    stream.set_read_timeout(Some(ANSWER_MAX))?;
    stream.set_write_timeout(Some(ANSWER_MAX))?;
    stream.write_all(format!("{request}\n").as_bytes())?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line)?;
    Ok(serde_json::from_str(&line)?)
}

/// A value at a path.
pub(crate) fn at<'v>(value: &'v Value, path: &str) -> &'v Value {
    value.pointer(path).unwrap_or(&Value::Null)
}

/// A value as a person reads it.
pub(crate) fn word(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "-".to_owned(),
        other => other.to_string(),
    }
}

fn human(status: &Value) -> String {
    let get = |path: &str| word(at(status, path));
    let mut text = String::new();
    let uptime = at(status, "/uptime_ms").as_u64().unwrap_or(0) / 1000;
    let _ =
        writeln!(text, "gateway   {}/{}, tidegate {}, up {uptime} s", get("/site"), get("/gateway"), get("/version"));
    let engine = if at(status, "/engine/ready").as_bool() == Some(true) {
        painted("ready", Colour::Green)
    } else {
        painted("not ready", Colour::Red)
    };
    let _ =
        writeln!(text, "engine    {engine}, model {}, {} restarts", get("/engine/model/name"), get("/engine/restarts"));
    if at(status, "/engine/named_by").as_str() == Some("model_use") {
        let _ = writeln!(text, "model     {}, chosen with `tidegate model use`", get("/engine/file"));
    }
    let link = get("/health/link");
    let link = if link == "down" { painted(&link, Colour::Yellow) } else { link };
    let _ = writeln!(text, "link      {link}");
    let _ = writeln!(
        text,
        "now       {} queued, {} running, {} escalated",
        get("/queued"),
        get("/running"),
        get("/escalated")
    );
    for queue in ["inbox", "outbox", "outcomes"] {
        let part = |name: &str| get(&format!("/load/{queue}/{name}"));
        let _ = writeln!(
            text,
            "{queue:<10}{} of {} entries, {} bytes",
            part("entries"),
            part("entries_max"),
            part("bytes")
        );
    }
    let answered = |name: &str| get(&format!("/answered/{name}"));
    let _ = writeln!(
        text,
        "answered  {} local, {} cloud, {} errors; {} provisional, {} refused",
        answered("local"),
        answered("cloud"),
        answered("errors"),
        answered("provisional"),
        answered("refused")
    );
    let _ = writeln!(text, "door      {} connections, {} publishes", get("/door/connections"), get("/door/publishes"));
    for fault in at(status, "/health/faults").as_array().into_iter().flatten() {
        let _ = writeln!(text, "{}     {}", painted("fault", Colour::Red), word(fault));
    }
    text
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_person_sees_what_is_wrong() {
        let text = human(&json!({"site":"s","gateway":"g","engine":{"ready":false,"restarts":3},
            "health":{"link":"down","faults":["engine: killed"]}}));
        for expect in ["gateway   s/g", "not ready", "3 restarts", "link      down", "fault     engine: killed"] {
            assert!(text.contains(expect), "{text} lacks {expect}");
        }
    }
}
