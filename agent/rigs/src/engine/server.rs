//! llama.cpp's llama-server, spoken to over HTTP as its clients do: a connection each that stays open.

use crate::engine::peers;
use crate::process::{Process, leashed, wait_until};
use anyhow::{Context as _, bail};
use serde_json::{Value, json};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Longest that a model may take to load.
const LOAD_MAX: Duration = Duration::from_secs(120);
/// Longest wait for an answer: sixteen clients on a slow machine.
const ANSWER_MAX: Duration = Duration::from_secs(300);
/// Largest answer, in bytes.
const BODY_BYTES_MAX: usize = 4 << 20;

/// How it is started.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) model: PathBuf,
    /// 0: its own default.
    pub(crate) threads: u32,
    /// Sequences at once.
    pub(crate) slots: u32,
    /// Window of one sequence, in tokens.
    pub(crate) context_tokens: u32,
}

/// A running server.
pub(crate) struct Server {
    process: Process,
    address: SocketAddr,
    _folder: tempfile::TempDir,
}

/// One answer.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    /// Seconds until it was whole.
    pub(crate) wall_s: f64,
    pub(crate) text: String,
    /// Tokens written.
    pub(crate) tokens: u64,
    /// Seconds that it decoded, as it says.
    pub(crate) decode_s: f64,
}

/// What an answer is held to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rule<'a> {
    /// Nothing.
    Free,
    /// A JSON Schema; llama-server lets white space stand between its tokens.
    Schema(&'a str),
    /// The same as a grammar of llama.cpp's without white space, for models of random weights, which write nothing else
    /// where they may.
    Grammar(&'a str),
}

/// What a chat asks; greedy, and the prompt's begin taken from the cache where it stands there.
pub(crate) fn question(system: &str, text: &str, rule: Rule<'_>, max_tokens: u32) -> anyhow::Result<Value> {
    let mut messages = Vec::new();
    if !system.is_empty() {
        messages.push(json!({ "role": "system", "content": system }));
    }
    messages.push(json!({ "role": "user", "content": text }));
    let mut body = json!({
        "messages": messages,
        "max_tokens": max_tokens,
        "temperature": 0.0,
        "cache_prompt": true,
    });
    match rule {
        Rule::Free => {}
        Rule::Schema(schema) => {
            let schema: Value = serde_json::from_str(schema).context("a schema is not JSON")?;
            let named = json!({ "name": "answer", "schema": schema });
            body["response_format"] = json!({ "type": "json_schema", "json_schema": named });
        }
        Rule::Grammar(grammar) => body["grammar"] = grammar.into(),
    }
    Ok(body)
}

impl Server {
    /// Starts one and waits until it is ready.
    pub(crate) fn start(program: Option<&Path>, settings: &Settings) -> anyhow::Result<Self> {
        let program = peers::need("llama-server", program)?;
        let port = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).context("no port is free")?.port();
        let mut command = leashed(&program)?;
        let context = settings.context_tokens * settings.slots;
        command.arg("-m").arg(&settings.model).args(["--host", "127.0.0.1", "--port", &port.to_string()]);
        command.args(["-c", &context.to_string(), "-np", &settings.slots.to_string(), "--no-webui"]);
        if settings.threads > 0 {
            command.args(["-t", &settings.threads.to_string(), "-tb", &settings.threads.to_string()]);
        }
        let folder = tempfile::tempdir().context("cannot make a folder")?;
        let process = Process::start("llama-server", command, &folder.path().join("log"))?;
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let mut server = Self { process, address, _folder: folder };
        let ready = || request(address, "GET", "/health", "").is_ok_and(|(status, _)| status == 200);
        wait_until("llama-server", LOAD_MAX, &mut server.process, ready)?;
        Ok(server)
    }

    /// One question.
    pub(crate) fn ask(&self, body: &Value) -> anyhow::Result<Answer> {
        self.crowd(std::slice::from_ref(body), 1)?.pop().context("a question without an answer")
    }

    /// Questions of so many clients, each of which asks again when it has its answer; answers stand in the questions'
    /// order.
    pub(crate) fn crowd(&self, bodies: &[Value], clients: usize) -> anyhow::Result<Vec<Answer>> {
        let next = Mutex::new(0..bodies.len());
        let take = || next.lock().ok().and_then(|mut next| next.next());
        let client = || -> anyhow::Result<Vec<(usize, Answer)>> {
            let mut connection = Connection::open(self.address)?;
            let mut answers = Vec::new();
            while let Some(index) = take() {
                let body = bodies[index].to_string();
                let began = Instant::now();
                let (status, body) = connection.request("POST", "/v1/chat/completions", &body)?;
                answers.push((index, answer(status, &body, began.elapsed())?));
            }
            Ok(answers)
        };
        let all = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..clients.min(bodies.len())).map(|_| scope.spawn(client)).collect();
            let joined = threads.into_iter().map(|thread| thread.join().expect("a client does not panic"));
            joined.collect::<anyhow::Result<Vec<_>>>()
        })?;
        let mut answers: Vec<(usize, Answer)> = all.into_iter().flatten().collect();
        answers.sort_by_key(|(index, _)| *index);
        Ok(answers.into_iter().map(|(_, answer)| answer).collect())
    }
}

fn answer(status: u16, body: &str, took: Duration) -> anyhow::Result<Answer> {
    if status != 200 {
        bail!("llama-server answered {status}: {}", body.chars().take(300).collect::<String>());
    }
    let body: Value = serde_json::from_str(body).context("llama-server's answer is not JSON")?;
    let text = body["choices"][0]["message"]["content"].as_str().context("llama-server's answer has no text")?;
    Ok(Answer {
        wall_s: took.as_secs_f64(),
        text: text.to_owned(),
        tokens: body["usage"]["completion_tokens"].as_u64().unwrap_or(0),
        decode_s: body["timings"]["predicted_ms"].as_f64().unwrap_or(f64::NAN) / 1e3,
    })
}

fn request(address: SocketAddr, method: &str, path: &str, body: &str) -> anyhow::Result<(u16, String)> {
    Connection::open(address)?.request(method, path, body)
}

/// HTTP/1.1, as much of it as llama-server speaks.
struct Connection {
    stream: BufReader<TcpStream>,
}

impl Connection {
    fn open(address: SocketAddr) -> anyhow::Result<Self> {
        let stream =
            TcpStream::connect_timeout(&address, Duration::from_secs(5)).context("cannot reach llama-server")?;
        stream.set_nodelay(true).context("cannot set TCP_NODELAY")?;
        stream.set_read_timeout(Some(ANSWER_MAX)).context("cannot set a time limit")?;
        Ok(Self { stream: BufReader::new(stream) })
    }

    fn request(&mut self, method: &str, path: &str, body: &str) -> anyhow::Result<(u16, String)> {
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        // In one piece: two would wait for each other's acknowledgement.
        self.stream.get_mut().write_all((head + body).as_bytes()).context("cannot ask llama-server")?;
        response(&mut self.stream)
    }
}

/// Status and body of a response with a stated length or in chunks.
fn response(stream: &mut impl std::io::BufRead) -> anyhow::Result<(u16, String)> {
    let first = line(stream)?;
    let status = first.split(' ').nth(1).and_then(|code| code.parse().ok()).context("no status in a response")?;
    let (mut length, mut chunked) = (0, false);
    loop {
        let header = line(stream)?.to_ascii_lowercase();
        match header.split_once(':').map(|(name, value)| (name, value.trim())) {
            Some(("content-length", value)) => length = value.parse().context("no number in content-length")?,
            Some(("transfer-encoding", "chunked")) => chunked = true,
            Some(_) => {}
            None => break,
        }
    }
    let mut body = Vec::new();
    if !chunked {
        take(stream, length, &mut body)?;
    }
    while chunked {
        let size = usize::from_str_radix(line(stream)?.trim(), 16).context("no size of a chunk")?;
        take(stream, size, &mut body)?;
        line(stream)?;
        chunked = size > 0;
    }
    Ok((status, String::from_utf8(body).context("a response is not UTF-8")?))
}

fn take(stream: &mut impl std::io::BufRead, length: usize, body: &mut Vec<u8>) -> anyhow::Result<()> {
    if body.len() + length > BODY_BYTES_MAX {
        bail!("a response has over {BODY_BYTES_MAX} bytes");
    }
    let begin = body.len();
    body.resize(begin + length, 0);
    stream.read_exact(&mut body[begin..]).context("a response ends early")
}

fn line(stream: &mut impl std::io::BufRead) -> anyhow::Result<String> {
    /// Longest line of a head, in bytes.
    const LINE_MAX: u64 = 16 * 1024;
    let mut text = String::new();
    stream.take(LINE_MAX).read_line(&mut text).context("cannot read a response")?;
    if !text.ends_with('\n') {
        bail!("a response ends early");
    }
    Ok(text.trim_end().to_owned())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn responses_are_read_by_length_and_in_chunks() {
        let mut whole = &b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello HTTP"[..];
        assert_eq!(response(&mut whole).unwrap(), (200, "hello".to_owned()));
        assert_eq!(whole, b" HTTP");
        let mut parts = &b"HTTP/1.1 503 Busy\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"[..];
        assert_eq!(response(&mut parts).unwrap(), (503, "abcde".to_owned()));
        assert!(response(&mut &b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort"[..]).is_err());
        assert!(response(&mut &b""[..]).is_err());
    }

    #[test]
    fn an_answer_is_its_text_tokens_and_time() {
        let body = r#"{"choices":[{"message":{"content":"{}"}}],"usage":{"completion_tokens":7},
            "timings":{"predicted_ms":250.0}}"#;
        let answer = answer(200, body, Duration::from_secs(1)).unwrap();
        assert_eq!((answer.text.as_str(), answer.tokens, answer.decode_s, answer.wall_s), ("{}", 7, 0.25, 1.0));
        assert!(super::answer(500, "{}", Duration::ZERO).is_err());
    }

    #[test]
    fn a_question_has_its_schema() {
        let body = question("intent", "on", Rule::Schema(r#"{"type":"object"}"#), 9).unwrap();
        assert_eq!(body["response_format"]["json_schema"]["schema"]["type"], "object");
        assert_eq!(body["messages"][0]["role"], "system");
        let ruled = question("", "on", Rule::Grammar("root ::= [a]"), 9).unwrap();
        assert_eq!(ruled["grammar"], "root ::= [a]");
        assert_eq!(question("", "on", Rule::Free, 9).unwrap()["messages"][0]["role"], "user");
    }
}
