//! The page: where it is served, whether its token can be used, and whom it turned away.

use super::finding::Finding;
use crate::config::Config;
use serde_json::Value;
use std::net::TcpListener;

const PAGE: &str = "page";

/// `running` is what a running gateway says of itself.
pub(super) fn all(config: &Config, running: Option<&Value>) -> Vec<Finding> {
    let page = &config.page;
    if page.listen.is_empty() {
        return vec![Finding::ok(PAGE, "it is served nowhere")];
    }
    let mut findings: Vec<Finding> = page.listen.iter().map(|at| address(*at, running.is_some())).collect();
    if let Some(fault) = page.token_file.as_deref().and_then(crate::up::token_fault) {
        let next = "write a line of 16 characters or more into page.token_file: `openssl rand -hex 16`";
        findings.push(Finding::fault(PAGE, format!("the token cannot be used, nobody is served: {fault}"), next));
    }
    findings.extend(running.and_then(turned_away));
    findings
}

fn address(at: std::net::SocketAddr, runs: bool) -> Finding {
    match TcpListener::bind(at) {
        Ok(_) if runs && at.port() != 0 => {
            let next = "look for `page` in the faults of `tidegate status`, then `systemctl restart tidegate`";
            Finding::warning(
                PAGE,
                format!("address {at} is configured, the gateway that runs does not serve there"),
                next,
            )
        }
        Ok(_) => Finding::ok(PAGE, format!("address {at} is free")),
        Err(_) if runs => Finding::ok(PAGE, format!("address {at} is taken by the gateway that runs")),
        Err(error) => {
            let next = "stop what has it (`ss -ltnp` names it), or serve elsewhere with page.listen";
            Finding::fault(PAGE, format!("address {at}: {error}"), next)
        }
    }
}

/// Requests that were not served.
fn turned_away(running: &Value) -> Option<Finding> {
    let counts = running.pointer("/page/turned_away")?.as_object()?;
    if counts.is_empty() {
        return None;
    }
    let told: Vec<String> = counts.iter().map(|(why, count)| format!("{count} {why}")).collect();
    let next = "a name of ours belongs into page.hosts, the first line of page.token_file to whoever may look; the rest is \
                somebody else's, and costs the page only";
    Some(Finding::warning(PAGE, format!("requests turned away since the start: {}", told.join(", ")), next))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::finding::Level;
    use super::*;
    use serde_json::json;

    #[test]
    fn who_was_turned_away_is_a_warning_with_its_reasons() {
        let found = turned_away(&json!({ "page": { "turned_away": { "without the right token": 3, "too slow": 1 } } }));
        let found = found.unwrap();
        assert_eq!(found.level, Level::Warning);
        assert!(
            found.what.contains("3 without the right token") && found.what.contains("1 too slow"),
            "{}",
            found.what
        );
        assert_eq!(turned_away(&json!({ "page": { "turned_away": {} } })), None);
        assert_eq!(turned_away(&json!({})), None);
    }

    #[test]
    fn an_address_that_somebody_else_has_is_a_fault() {
        let held = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = held.local_addr().unwrap();
        assert_eq!(address(at, false).level, Level::Fault);
        assert_eq!(address(at, true).level, Level::Ok);
        drop(held);
        assert_eq!(address(at, true).level, Level::Warning);
    }
}
