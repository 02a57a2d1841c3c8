//! Who may see and do what here: pure, asked before anything else of a request is looked at.
//!
//! A browser is made to speak for others: a foreign page can send it here (Origin), a foreign name can be pointed here
//! (DNS rebinding: Host), a form can post here (no header of ours). So: Host and Origin must be ours, no CORS answer is
//! ever given, what acts needs a header that a form cannot send, and what tells needs the token where there is one.

use super::Why;
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE, HOST, ORIGIN};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, Method, StatusCode};
use sha2::{Digest, Sha256};
use std::net::SocketAddr;
use std::path::Path;

/// What acting requests carry: a form cannot, and a script of a foreign page would have to ask us first, in vain.
pub(super) const ACT: HeaderName = HeaderName::from_static("tidegate-act");
/// Shortest token, in bytes: 128 bits in any alphabet that people use for them.
const TOKEN_BYTES_MIN: usize = 16;
/// Where a browser says who sent it (Fetch Metadata).
const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// The secret of whoever may look; only its hash is kept.
#[derive(Clone)]
pub(super) struct Token([u8; 32]);

impl Token {
    /// Reads the first line of a file.
    ///
    /// # Errors
    /// In words: unreadable, or too short.
    pub(super) fn read(file: &Path) -> Result<Self, String> {
        let text = std::fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
        let line = text.lines().next().unwrap_or_default().trim();
        if line.len() < TOKEN_BYTES_MIN {
            let (file, len) = (file.display(), line.len());
            return Err(format!("{file}: the token is {len} bytes, at least {TOKEN_BYTES_MIN} are needed"));
        }
        Ok(Self(Sha256::digest(line).into()))
    }

    /// Equal hashes are equal tokens; how far two differ tells nothing about the token.
    fn is(&self, shown: &str) -> bool {
        <[u8; 32]>::from(Sha256::digest(shown)) == self.0
    }
}

/// Why a request is turned away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    pub(super) why: &'static str,
}

fn refuse(status: StatusCode, why: &'static str) -> Result<(), Refusal> {
    Err(Refusal { status, why })
}

impl Refusal {
    /// What it is counted as.
    pub(super) fn kind(self) -> Why {
        match self.status {
            StatusCode::UNAUTHORIZED => Why::Token,
            StatusCode::FORBIDDEN => Why::Foreign,
            StatusCode::UNSUPPORTED_MEDIA_TYPE => Why::Body,
            _ => Why::Host,
        }
    }
}

/// What a path gives away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// The page's own files: the same for everybody.
    File,
    /// Whether it works; without the token only that.
    Probe,
    /// How it is, and everything that acts.
    Inside,
}

fn kind(path: &str) -> Kind {
    match path {
        "/" | "/page.css" | "/page.js" | "/icon.svg" => Kind::File,
        "/healthz" | "/readyz" => Kind::Probe,
        _ => Kind::Inside,
    }
}

/// The rules of one address.
pub(super) struct Gate {
    hosts: Vec<String>,
    origins: Vec<String>,
    token: Option<Token>,
}

impl Gate {
    /// What is allowed at an address: its own names, and those that the configuration adds.
    pub(super) fn new(scheme: &str, at: SocketAddr, more: &[String], token: Option<Token>) -> Self {
        let mut hosts = vec![at.to_string()];
        if at.ip().is_loopback() {
            hosts.extend(["localhost", "127.0.0.1", "[::1]"].map(|name| format!("{name}:{}", at.port())));
        }
        hosts.extend(more.iter().map(|host| host.to_ascii_lowercase()));
        let origins = hosts.iter().map(|host| format!("{scheme}://{host}")).collect();
        Self { hosts, origins, token }
    }

    /// Whether a request may go on.
    ///
    /// # Errors
    /// Why not.
    pub(super) fn check(&self, request: &Parts) -> Result<(), Refusal> {
        self.check_host(request)?;
        self.check_origin(&request.headers)?;
        let kind = kind(request.uri.path());
        if kind == Kind::Inside {
            if !self.knows(&request.headers) {
                return refuse(StatusCode::UNAUTHORIZED, "the token is missing or wrong");
            }
            let site = one(&request.headers, &FETCH_SITE).unwrap_or("none");
            if !matches!(site, "none" | "same-origin") {
                return refuse(StatusCode::FORBIDDEN, "another site asks");
            }
        }
        if !matches!(request.method, Method::GET | Method::HEAD) {
            self.check_act(&request.headers)?;
        }
        Ok(())
    }

    /// Whether the caller showed the token, where there is one.
    pub(super) fn knows(&self, headers: &HeaderMap) -> bool {
        let Some(token) = &self.token else { return true };
        let shown = one(headers, &AUTHORIZATION).and_then(|value| value.strip_prefix("Bearer "));
        shown.is_some_and(|shown| token.is(shown.trim()))
    }

    fn check_host(&self, request: &Parts) -> Result<(), Refusal> {
        let Some(host) = one(&request.headers, &HOST) else {
            return refuse(StatusCode::BAD_REQUEST, "one Host is needed");
        };
        let ours = |host: &str| self.hosts.iter().any(|own| own.eq_ignore_ascii_case(host));
        let authority = request.uri.authority().is_none_or(|authority| ours(authority.as_str()));
        if !authority || !ours(host) {
            return refuse(StatusCode::MISDIRECTED_REQUEST, "this host is not in page.hosts");
        }
        Ok(())
    }

    fn check_origin(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        if !headers.contains_key(ORIGIN) {
            return Ok(());
        }
        let ours = |origin: &str| self.origins.iter().any(|own| own.eq_ignore_ascii_case(origin));
        match one(headers, &ORIGIN) {
            Some(origin) if ours(origin) => Ok(()),
            _ => refuse(StatusCode::FORBIDDEN, "another origin asks"),
        }
    }

    fn check_act(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        if one(headers, &ACT) != Some("1") {
            return refuse(StatusCode::FORBIDDEN, "acting needs the header tidegate-act: 1");
        }
        let json = one(headers, &CONTENT_TYPE).is_some_and(|of| of.split(';').next() == Some("application/json"));
        if json { Ok(()) } else { refuse(StatusCode::UNSUPPORTED_MEDIA_TYPE, "the body must be application/json") }
    }
}

/// The value of a header that is there exactly once.
fn one<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?.to_str().ok()?;
    values.next().is_none().then_some(value)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use axum::http::Request;

    fn gate(token: Option<&str>) -> Gate {
        let token = token.map(|token| Token(Sha256::digest(token).into()));
        Gate::new("http", "127.0.0.1:8833".parse().unwrap(), &["gw-3.plant".to_owned()], token)
    }

    /// Status of a request with these headers, 200 where it may go on.
    fn status(gate: &Gate, method: &str, path: &str, headers: &[(&str, &str)]) -> u16 {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (parts, ()) = request.body(()).unwrap().into_parts();
        gate.check(&parts).map_or_else(|refusal| refusal.status.as_u16(), |()| 200)
    }

    #[test]
    fn only_our_own_names_are_answered() {
        let gate = gate(None);
        for host in ["127.0.0.1:8833", "localhost:8833", "LOCALHOST:8833", "[::1]:8833", "gw-3.plant"] {
            assert_eq!(status(&gate, "GET", "/", &[("host", host)]), 200, "{host}");
        }
        for host in ["evil.example", "127.0.0.1", "localhost:80", "127.0.0.1:8833.evil.example", ""] {
            assert_eq!(status(&gate, "GET", "/", &[("host", host)]), 421, "{host}");
        }
        assert_eq!(status(&gate, "GET", "/", &[]), 400);
        assert_eq!(status(&gate, "GET", "/", &[("host", "localhost:8833"), ("host", "evil.example")]), 400);
        assert_eq!(status(&gate, "GET", "http://evil.example/", &[("host", "localhost:8833")]), 421);
    }

    #[test]
    fn only_our_own_pages_may_send_a_browser_here() {
        let gate = gate(None);
        let asked =
            |origin: &str| status(&gate, "GET", "/api/state", &[("host", "localhost:8833"), ("origin", origin)]);
        assert_eq!(asked("http://localhost:8833"), 200);
        for origin in ["http://evil.example", "https://localhost:8833", "null", "http://localhost"] {
            assert_eq!(asked(origin), 403, "{origin}");
        }
        let from = |path: &str, site: &str| {
            status(&gate, "GET", path, &[("host", "localhost:8833"), ("sec-fetch-site", site)])
        };
        assert_eq!((from("/", "cross-site"), from("/metrics", "cross-site")), (200, 403), "a link is no question");
        assert_eq!((from("/metrics", "none"), from("/api/state", "same-origin")), (200, 200));
    }

    #[test]
    fn acting_takes_what_a_form_cannot_send() {
        let gate = gate(None);
        let host = ("host", "localhost:8833");
        let (act, json) = (("tidegate-act", "1"), ("content-type", "application/json"));
        assert_eq!(status(&gate, "POST", "/api/retry", &[host, act, json]), 200);
        assert_eq!(status(&gate, "POST", "/api/retry", &[host, json]), 403);
        assert_eq!(status(&gate, "POST", "/api/retry", &[host, act, ("content-type", "text/plain")]), 415);
        assert_eq!(status(&gate, "OPTIONS", "/api/retry", &[host]), 403);
    }

    #[test]
    fn where_there_is_a_token_it_must_be_shown() {
        let gate = gate(Some("0123456789abcdef"));
        let asked = |path: &str, token: &str| {
            status(&gate, "GET", path, &[("host", "localhost:8833"), ("authorization", token)])
        };
        for path in ["/api/state", "/metrics", "/anything"] {
            assert_eq!(asked(path, "Bearer 0123456789abcdef"), 200);
            for wrong in ["Bearer 0123456789abcdeF", "0123456789abcdef", "Basic x", "Bearer "] {
                assert_eq!(asked(path, wrong), 401, "{path} {wrong}");
            }
        }
        assert_eq!((asked("/", ""), asked("/healthz", "")), (200, 200), "files and probes tell nothing");
    }

    #[test]
    fn a_token_is_a_line_of_sixteen_bytes_or_more() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "short\n").unwrap();
        assert!(Token::read(file.path()).err().unwrap().contains("5 bytes"));
        std::fs::write(file.path(), "0123456789abcdef\nrest").unwrap();
        assert!(Token::read(file.path()).unwrap().is("0123456789abcdef"));
    }
}
