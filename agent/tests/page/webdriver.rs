//! Debian's Chromium, led by its chromedriver over W3C WebDriver (<https://www.w3.org/TR/webdriver2/>): as much of it as
//! the page's test needs.

use crate::http;
use crate::support::{Process, free_port, until};
use serde_json::{Value, json};
use std::process::Command;
use tempfile::TempDir;

/// A browser with one window.
pub(crate) struct Browser {
    port: u16,
    session: String,
    _driver: Process,
    _folder: TempDir,
}

impl Browser {
    /// Starts one that shows nothing on a screen.
    pub(crate) fn start() -> Self {
        let (port, folder) = (free_port(), tempfile::tempdir().unwrap());
        let mut command = Command::new("chromedriver");
        command.arg(format!("--port={port}")).arg("--log-level=SEVERE").env("HOME", folder.path());
        let driver = Process::start(&mut command);
        until("chromedriver", || std::net::TcpStream::connect(("127.0.0.1", port)).ok());
        // Root, containers without user namespaces, and small /dev/shm are what tests run in.
        let profile = format!("--user-data-dir={}", folder.path().join("profile").display());
        let args = [
            "--headless=new",
            "--no-sandbox",
            "--disable-dev-shm-usage",
            "--disable-gpu",
            "--window-size=1180,1250",
            // A foreign name that is pointed here, as an attacker's DNS does.
            "--host-resolver-rules=MAP evil.example 127.0.0.1",
            &profile,
        ];
        let wanted = json!({ "capabilities": { "alwaysMatch": { "goog:chromeOptions": { "args": args } } } });
        let made = call(port, "POST", "/session", &wanted);
        let session = made["sessionId"].as_str().unwrap_or_else(|| panic!("no browser: {made}")).to_owned();
        Self { port, session, _driver: driver, _folder: folder }
    }

    fn command(&self, method: &str, path: &str, body: &Value) -> Value {
        call(self.port, method, &format!("/session/{}{path}", self.session), body)
    }

    pub(crate) fn open(&self, url: &str) {
        self.command("POST", "/url", &json!({ "url": url }));
    }

    /// What a script returns; our own eyes, not the page's.
    pub(crate) fn look(&self, script: &str) -> Value {
        self.command("POST", "/execute/sync", &json!({ "script": script, "args": [] }))
    }

    /// The text that a person sees in the first element of a selector.
    pub(crate) fn text(&self, selector: &str) -> String {
        let script = format!("const e = document.querySelector({}); return e ? e.innerText : ''", json!(selector));
        self.look(&script).as_str().unwrap_or_default().to_owned()
    }

    pub(crate) fn until_text(&self, selector: &str, look: impl Fn(&str) -> bool) -> String {
        until(&format!("what is awaited in {selector}"), || Some(self.text(selector)).filter(|text| look(text)))
    }

    fn element(&self, selector: &str) -> String {
        let found = self.command("POST", "/element", &json!({ "using": "css selector", "value": selector }));
        let id = found.as_object().and_then(|found| found.values().next()).and_then(Value::as_str);
        id.unwrap_or_else(|| panic!("no {selector}: {found}")).to_owned()
    }

    /// A person's click: fails where something else covers the element.
    pub(crate) fn click(&self, selector: &str) {
        let element = self.element(selector);
        let clicked = self.command("POST", &format!("/element/{element}/click"), &json!({}));
        assert!(clicked.is_null(), "{selector}: {clicked}");
    }

    /// Types keys into an element.
    pub(crate) fn keys(&self, selector: &str, text: &str) {
        let element = self.element(selector);
        let typed = self.command("POST", &format!("/element/{element}/value"), &json!({ "text": text }));
        assert!(typed.is_null(), "{selector}: {typed}");
    }

    /// A command of the DevTools protocol (<https://chromedevtools.github.io/devtools-protocol/>), as chromedriver passes
    /// it on: for what WebDriver cannot make a browser believe.
    pub(crate) fn devtools(&self, cmd: &str, params: &Value) {
        let done = self.command("POST", "/goog/cdp/execute", &json!({ "cmd": cmd, "params": params }));
        assert!(done.get("error").is_none(), "{cmd}: {done}");
    }

    /// Presses and releases a key, wherever the focus is (W3C WebDriver 2, 15.4.2: U+E004 is Tab).
    pub(crate) fn press(&self, key: char) {
        let key = key.to_string();
        let strokes = json!([{ "type": "keyDown", "value": key }, { "type": "keyUp", "value": key }]);
        let pressed =
            self.command("POST", "/actions", &json!({ "actions": [{ "type": "key", "id": "k", "actions": strokes }] }));
        assert!(pressed.is_null(), "{pressed}");
    }

    /// A PNG of the window, in base64.
    pub(crate) fn screenshot(&self) -> String {
        self.command("GET", "/screenshot", &Value::Null).as_str().unwrap_or_default().to_owned()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        self.command("DELETE", "", &Value::Null);
    }
}

/// The value that a command returns.
fn call(port: u16, method: &str, path: &str, body: &Value) -> Value {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\nContent-Type: application/json\r\n\
         Content-Length: {}",
        body.len()
    );
    let answer = http::exchange(http::connect(port), &head, body.as_bytes());
    serde_json::from_str::<Value>(&answer.body)
        .map_or_else(|_| json!({ "unreadable": answer.body }), |v| v["value"].clone())
}
