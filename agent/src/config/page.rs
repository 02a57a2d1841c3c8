//! The page of the configuration: where it is served, by which names, and what it takes beyond loopback.

use super::reader::Section;
use crate::queue::Reveal;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Where the page is when nobody says it.
const LISTEN_DEFAULT: &str = "127.0.0.1:8833";

/// The page.
#[derive(Debug, Clone)]
pub(crate) struct PageConfig {
    /// Where it is served; nowhere where this is empty.
    pub(crate) listen: Vec<SocketAddr>,
    /// Names, with ports where they are not the scheme's own, that it is asked under besides its addresses.
    pub(crate) hosts: Vec<String>,
    /// Certificate and key; without them it speaks plain HTTP, and only on loopback.
    pub(crate) tls: Option<PageTls>,
    /// File with the token that whoever looks must show.
    pub(crate) token_file: Option<PathBuf>,
    /// Whether it shows text of other devices' prompts.
    pub(crate) reveal: Reveal,
}

/// PEM files of the page.
#[derive(Debug, Clone)]
pub(crate) struct PageTls {
    /// Certificate chain.
    pub(crate) cert: PathBuf,
    /// Private key.
    pub(crate) key: PathBuf,
}

/// Reads `[page]`.
pub(super) fn page(section: Section<'_>) -> PageConfig {
    let why = "Where page, /metrics, /healthz and /readyz are served; [] serves them nowhere. Off loopback it needs cert, key and token_file.";
    let mut listen = Vec::new();
    for text in section.texts("listen", &[LISTEN_DEFAULT], "ADDRESS:PORT", why) {
        match text.parse::<SocketAddr>() {
            Ok(address) => listen.push(address),
            Err(_) => section.wrong("listen", &format!("{text:?}"), &"ADDRESS:PORT such as 127.0.0.1:8833"),
        }
    }
    let why = "Names under which it is asked besides its addresses; requests for other hosts are turned away.";
    let hosts = section.texts("hosts", &[], "HOST or HOST:PORT", why);
    for host in hosts.iter().filter(|host| !is_host(host)) {
        section.wrong("hosts", &format!("{host:?}"), &"HOST or HOST:PORT, without scheme and path");
    }
    let cert =
        section.path("cert", "a PEM file", "Its certificate chain. A renewed file is used with the next connection.");
    let key = section.path("key", "a PEM file", "Private key of the certificate.");
    let why = "File with a token of at least 16 characters in its first line, to be shown as `Authorization: Bearer`.";
    let token_file = section.path("token_file", "a file", why);
    if cert.is_some() != key.is_some() {
        section.missing(if cert.is_some() { "key" } else { "cert" }, &"cert and key together, or neither");
    }
    let tls = cert.zip(key).map(|(cert, key)| PageTls { cert, key });
    if let Some(open) = listen.iter().find(|at| !at.ip().is_loopback())
        && (tls.is_none() || token_file.is_none())
    {
        let allowed = "an address on loopback, or page.cert, page.key and page.token_file with it";
        section.wrong("listen", &format!("{:?}", open.to_string()), &allowed);
    }
    section.finish();
    PageConfig { listen, hosts, tls, token_file, reveal: Reveal::Sizes }
}

fn is_host(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._:[]".contains(&b))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::check::read;
    use std::path::Path;

    fn mistakes(text: &str) -> Vec<String> {
        read(text.parse().unwrap(), Path::new(".")).1
    }

    #[test]
    fn off_loopback_it_needs_tls_and_a_token() {
        for more in ["", "cert = \"c\"\nkey = \"k\"\n", "token_file = \"t\"\n"] {
            let found = mistakes(&format!("[page]\nlisten = [\"192.0.2.1:8833\"]\n{more}"));
            assert!(found.iter().any(|m| m.contains("page.listen") && m.contains("page.token_file")), "{found:?}");
        }
        let whole = "[page]\nlisten = [\"192.0.2.1:8833\"]\ncert = \"c\"\nkey = \"k\"\ntoken_file = \"t\"\n";
        assert_eq!(mistakes(whole), Vec::<String>::new());
        for fine in ["[page]\nlisten = []\n", "[page]\nlisten = [\"[::1]:8833\"]\nhosts = [\"gw-3.plant:8833\"]\n"] {
            assert_eq!(mistakes(fine), Vec::<String>::new());
        }
    }

    #[test]
    fn what_is_no_address_and_no_host_is_said() {
        assert!(mistakes("[page]\nlisten = [\"x\"]\n")[0].contains("page.listen = \"x\""));
        assert!(mistakes("[page]\nhosts = [\"http://x/\"]\n")[0].contains("page.hosts"));
        assert!(mistakes("[page]\ncert = \"c\"\n")[0].contains("page.key is missing"));
    }
}
