//! The intake of the configuration: an existing broker whose prompt topics the gateway subscribes, in place of a door.

use super::bridge::identity;
use super::reader::Section;
use crate::link::{Address, Broker};
use std::collections::BTreeMap;
use tidegate_core::{Consent, Task};
use tidegate_schemas::{Origin, TaskName};

const URL: &str = "mqtt://HOST[:PORT] or mqtts://HOST[:PORT]";

/// Reads `[intake]`; none if the section is not there.
pub(super) fn intake(
    section: Section<'_>,
    present: bool,
    origin: &Origin,
    tasks: &BTreeMap<TaskName, Task>,
) -> Option<Broker> {
    let why = "An existing broker of the devices: its prompt topics are subscribed, and no door is opened.";
    let url = section.text("url", URL, why);
    let client_id = section.text("client_id", "a text", "MQTT client id; else one made of site and gateway.");
    let (credentials, trust) = identity(&section);
    if present && url.is_none() && !section.has("url") {
        section.missing("url", &URL);
    }
    let address = url.and_then(|url| {
        let read = url.parse::<Address>();
        read.map_err(|e| section.wrong("url", &format!("{url:?}"), &e)).ok()
    });
    if let Some(address) = &address
        && !address.is_loopback()
        && let Some((name, _)) = tasks.iter().find(|(_, task)| task.consent == Consent::Never)
    {
        let allowed = format!("a broker on loopback, since prompts of the task {name} may not leave the host");
        section.wrong("url", &format!("{:?}", address.to_string()), &allowed);
    }
    section.finish();
    let client_id = client_id.unwrap_or_else(|| format!("tidegate-{}-{}-intake", origin.site, origin.gateway));
    Some(Broker { address: address?, client_id, credentials, trust })
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
    fn an_intake_off_loopback_is_refused_while_a_task_is_local_only() {
        let found = mistakes("[intake]\nurl = \"mqtt://broker.site\"\n");
        assert!(found.iter().any(|m| m.contains("intake.url") && m.contains("task action")), "{found:?}");
        for url in ["mqtt://127.0.0.1:1884", "mqtt://localhost", "mqtt://[::1]"] {
            assert_eq!(mistakes(&format!("[intake]\nurl = \"{url}\"\n")), Vec::<String>::new());
        }
        let open =
            "[bridge]\nurl = \"mqtt://central\"\n[tasks.action]\ncloud = \"allowed\"\n[intake]\nurl = \"mqtt://b\"\n";
        assert_eq!(mistakes(open), Vec::<String>::new());
    }

    #[test]
    fn an_intake_leaves_no_door() {
        let found = mistakes("[intake]\nurl = \"mqtt://127.0.0.1\"\n[door]\nlisten = [\"127.0.0.1:1883\"]\n");
        assert!(found.iter().any(|m| m.contains("door")), "{found:?}");
        assert!(mistakes("[intake]\n").iter().any(|m| m.contains("intake.url is missing")));
    }
}
