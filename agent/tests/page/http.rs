//! HTTP/1.1 by hand: what a browser would never send has to be sent, too.

use crate::support::LONG;
use serde_json::Value;
use std::io::{Read, Write};
use std::net::TcpStream;

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The value of a header.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }
}

/// Sends a head and a body, and reads until the other end closes.
pub(crate) fn exchange(mut stream: impl Read + Write, head: &str, body: &[u8]) -> Answer {
    let mut said = format!("{head}\r\n\r\n").into_bytes();
    said.extend_from_slice(body);
    // Whoever turns a large body away need not read it.
    let _ = stream.write_all(&said);
    let (mut answer, mut piece) = (Vec::new(), [0; 4096]);
    while !whole(&answer) {
        match stream.read(&mut piece) {
            Ok(read) if read > 0 => answer.extend_from_slice(&piece[..read]),
            _ => break,
        }
    }
    read(&answer)
}

/// Whether an answer that says its length is there.
fn whole(answer: &[u8]) -> bool {
    let Some(at) = answer.windows(4).position(|w| w == b"\r\n\r\n") else { return false };
    let head = String::from_utf8_lossy(&answer[..at]).to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse::<usize>().ok());
    length.is_some_and(|length| answer.len() >= at + 4 + length)
}

/// Reads an answer.
pub(crate) fn read(bytes: &[u8]) -> Answer {
    let text = String::from_utf8_lossy(bytes).into_owned();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    let chunked = head.to_ascii_lowercase().contains("transfer-encoding: chunked");
    let body = if chunked { unchunked(body) } else { body.to_owned() };
    Answer { status, head: head.to_owned(), body }
}

fn unchunked(mut body: &str) -> String {
    let mut whole = String::new();
    while let Some((size, rest)) = body.split_once("\r\n") {
        let size = usize::from_str_radix(size.trim(), 16).unwrap_or(0);
        let Some(chunk) = rest.get(..size).filter(|chunk| !chunk.is_empty()) else { break };
        whole.push_str(chunk);
        body = rest.get(size + 2..).unwrap_or("");
    }
    whole
}

pub(crate) fn connect(port: u16) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(LONG)).unwrap();
    stream.set_write_timeout(Some(LONG)).unwrap();
    stream
}

/// A request with headers, each on a line of its own.
pub(crate) fn request(port: u16, line: &str, headers: &[&str], body: &[u8]) -> Answer {
    let mut head = format!("{line} HTTP/1.1");
    if !headers.iter().any(|header| header.to_ascii_lowercase().starts_with("host:")) {
        head += &format!("\r\nHost: 127.0.0.1:{port}");
    }
    headers.iter().for_each(|header| head += &format!("\r\n{header}"));
    if !body.is_empty() {
        head += &format!("\r\nContent-Length: {}", body.len());
    }
    exchange(connect(port), &head, body)
}

pub(crate) fn get(port: u16, path: &str) -> Answer {
    request(port, &format!("GET {path}"), &[], b"")
}

/// As the page acts.
pub(crate) fn act(port: u16, path: &str, body: &Value) -> Answer {
    let headers = ["Tidegate-Act: 1", "Content-Type: application/json"];
    request(port, &format!("POST {path}"), &headers, body.to_string().as_bytes())
}
