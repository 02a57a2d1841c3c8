//! The central broker of the configuration: addresses, who we are to it, what crosses by rule, and for how many bytes.

use super::reader::{Number, Section};
use crate::link::{
    Address, Broker, Class, Credentials, Delivery, Filter, Protocol, RULES_MAX, Rule, Rules, TlsPaths, Trust, Version,
};
use std::path::PathBuf;
use std::time::Duration;
use tidegate_schemas::Origin;
use toml::Table;

/// File of systemd's credentials directory with the bridge's password.
const CREDENTIAL_BRIDGE: &str = "bridge-password";
const URL: &str = "mqtt://HOST[:PORT] or mqtts://HOST[:PORT]";
/// Bytes per MiB.
const MIB: u64 = 1024 * 1024;

const KEEP_ALIVE: Number = Number {
    key: "keep_alive_s",
    min: 5,
    max: 600,
    unit: "s",
    why: "Time between two pings. A dead link is known after two and a half; a link of few bytes per second needs more.",
};
const CANARY: Number = Number {
    key: "canary_s",
    min: 5,
    max: 86_400,
    unit: "s",
    why: "How often a small publish goes through the central broker and back, to find a link that is up but dead.",
};
const BUDGET: Number = Number {
    key: "daily_mib_max",
    min: 0,
    max: 1_048_576,
    unit: "MiB",
    why: "Bytes of a day (UTC) over the link; 0 sets no limit. When they run short, bulk waits first, then normal, then alarms, then escalations.",
};
const TTL: Number = Number {
    key: "ttl_s",
    min: 0,
    max: 31_536_000,
    unit: "s",
    why: "How long an item may wait for the link; 0: as long as there is room.",
};

/// Time between two pings when nobody says it, in seconds.
const KEEP_ALIVE_S_DEFAULT: u64 = 5;
/// Time between two canaries when nobody says it, in seconds.
const CANARY_S_DEFAULT: u64 = 30;

/// The central broker, and what crosses to it.
#[derive(Debug, Clone)]
pub(crate) struct BridgeConfig {
    /// Who we are; its address is the first.
    pub(crate) broker: Broker,
    /// Where it is, in the order in which they are tried. At least one.
    pub(crate) addresses: Vec<Address>,
    /// The version.
    pub(crate) protocol: Protocol,
    /// Time between two pings.
    pub(crate) keep_alive: Duration,
    /// Time between two canaries.
    pub(crate) canary: Duration,
    /// Bytes per day; none: no limit.
    pub(crate) daily_bytes_max: Option<u64>,
    /// What crosses by rule.
    pub(crate) rules: Rules,
}

/// Reads `[bridge]` and `[[bridge.forward]]`.
pub(super) fn bridge(section: Section<'_>, present: bool, origin: &Origin) -> Option<BridgeConfig> {
    let addresses = addresses(&section, present);
    let broker = broker(&section, origin, addresses.first());
    let values = [
        ("\"auto\"", Protocol::Auto),
        ("\"5\"", Protocol::Only(Version::Five)),
        ("\"3.1.1\"", Protocol::Only(Version::Three)),
    ];
    let why = "Version of MQTT: 5 where the peer has it, or only this one.";
    let protocol = section.choice("protocol", &values, Some(0), why).unwrap_or(Protocol::Auto);
    let keep_alive = Duration::from_secs(section.number(&KEEP_ALIVE, KEEP_ALIVE_S_DEFAULT));
    let canary = Duration::from_secs(section.number(&CANARY, CANARY_S_DEFAULT));
    let daily_bytes_max = Some(section.number(&BUDGET, 0) * MIB).filter(|bytes| *bytes > 0);
    let rules = rules(&section);
    section.finish();
    Some(BridgeConfig { broker: broker?, addresses, protocol, keep_alive, canary, daily_bytes_max, rules })
}

fn addresses(section: &Section<'_>, present: bool) -> Vec<Address> {
    let url = section.text("url", URL, "The central broker.");
    let why = "More addresses of it, tried in this order when the first is not there.";
    let others = section.texts("other_urls", &[], URL, why);
    if present && url.is_none() && !section.has("url") {
        section.missing("url", &URL);
    }
    let mut found = Vec::new();
    let keyed = url.into_iter().map(|url| ("url", url)).chain(others.into_iter().map(|url| ("other_urls", url)));
    for (key, url) in keyed {
        match url.parse::<Address>() {
            Ok(address) => found.push(address),
            Err(error) => section.wrong(key, &format!("{url:?}"), &error),
        }
    }
    found
}

fn broker(section: &Section<'_>, origin: &Origin, address: Option<&Address>) -> Option<Broker> {
    let client_id = section.text("client_id", "a text", "MQTT client id; else one made of site and gateway.");
    let client_id = client_id.unwrap_or_else(|| format!("tidegate-{}-{}", origin.site, origin.gateway));
    let (credentials, trust) = identity(section);
    Some(Broker { address: address?.clone(), client_id, credentials, trust })
}

/// User name, password file, certificates: the keys that `[bridge]` and `[intake]` share.
pub(super) fn identity(section: &Section<'_>) -> (Option<Credentials>, Trust) {
    let user = section.text("user", "a text", "User name at that broker.");
    let why = "File with the password in its first line; else systemd's credential bridge-password.";
    let password_file = section.path("password_file", "a file", why).or_else(credential);
    let ca = section.path("ca", "a PEM file", "CAs that the broker's certificate must lead to; else the system's.");
    let why = "Our certificate chain. A renewed file is used within half a minute.";
    let cert = section.path("cert", "a PEM file", why);
    let key = section.path("key", "a PEM file", "Our private key.");
    if cert.is_some() != key.is_some() {
        section.missing(if cert.is_some() { "key" } else { "cert" }, &"cert and key together, or neither");
    }
    if user.is_some() && password_file.is_none() {
        section.missing("password_file", &"the path of a file with the password of user");
    }
    let credentials = user.zip(password_file).map(|(user, password_file)| Credentials { user, password_file });
    let identity = cert.zip(key).map(|(cert, key)| TlsPaths { cert, key });
    (credentials, Trust { ca, identity })
}

fn credential() -> Option<PathBuf> {
    let file = PathBuf::from(std::env::var_os("CREDENTIALS_DIRECTORY")?).join(CREDENTIAL_BRIDGE);
    file.is_file().then_some(file)
}

fn rules(section: &Section<'_>) -> Rules {
    let tables = section.list("forward");
    if tables.is_empty() {
        // Nothing is read; only the example learns the keys.
        let example = Table::from_iter([("filter".to_owned(), toml::Value::from("sensors/#"))]);
        rule(&section.child("forward", example));
        return Rules::default();
    }
    if tables.len() > RULES_MAX {
        section.wrong("forward", &format!("{} rules", tables.len()), &format!("at most {RULES_MAX}"));
    }
    let mut found: Vec<Rule> = Vec::new();
    for table in tables {
        let rule = rule(&table);
        if let Some(rule) = rule {
            let earlier = found.iter().find(|earlier| earlier.filter.overlaps(&rule.filter));
            earlier.into_iter().for_each(|e| overlap(&table, &rule, e));
            found.push(rule);
        }
        table.finish();
    }
    Rules::new(found)
}

fn overlap(table: &Section<'_>, rule: &Rule, earlier: &Rule) {
    let allowed = format!("a filter that has no topic in common with {:?}", earlier.filter.to_string());
    table.wrong("filter", &format!("{:?}", rule.filter.to_string()), &allowed);
}

fn rule(table: &Section<'_>) -> Option<Rule> {
    const FILTER: &str = "a topic filter outside tg and $";
    let filter = table.text("filter", FILTER, "Which topics cross to the central broker. Rules may not overlap.");
    let why = "Taken off the front of a topic, whole levels.";
    let strip = table.text("strip", "a prefix of filter", why).unwrap_or_default();
    let why = "Put in front of a topic instead.";
    let add = table.text("add", "a topic prefix", why).unwrap_or_default();
    let values = [("1", Delivery::Acknowledged), ("0", Delivery::Once)];
    let why = "QoS at the central broker; at 0 an item leaves the disk when it is sent, not when it arrived.";
    let delivery = table.choice("qos", &values, Some(0), why).unwrap_or(Delivery::Acknowledged);
    let values = [Class::Normal, Class::Alarm, Class::Bulk];
    let words = values.map(|class| format!("{:?}", class.word()));
    let values: Vec<(&str, Class)> = words.iter().map(String::as_str).zip(values).collect();
    let why = "What waits and what is dropped first when not all can cross: bulk, then normal, then alarm.";
    let class = table.choice("class", &values, Some(0), why).unwrap_or(Class::Normal);
    let ttl = Some(Duration::from_secs(table.number(&TTL, 0))).filter(|ttl| !ttl.is_zero());
    if filter.is_none() && !table.has("filter") {
        table.missing("filter", &FILTER);
    }
    let text = filter?;
    let read = text.parse::<Filter>();
    let filter = read.map_err(|e| table.wrong("filter", &format!("{text:?}"), &format!("{FILTER} ({e})"))).ok()?;
    let rule = Rule { filter, strip, add, delivery, class, ttl };
    if let Err(allowed) = rule.check() {
        table.wrong("strip and add", &format!("{:?} and {:?}", rule.strip, rule.add), &allowed);
    }
    Some(rule)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::check::read;
    use super::*;
    use crate::link::Taken;
    use std::path::Path;

    const HEAD: &str = "[tasks.action]\ncloud = \"never\"\n[bridge]\nurl = \"mqtt://central\"\n";

    fn mistakes(more: &str) -> Vec<String> {
        read(format!("{HEAD}{more}").parse().unwrap(), Path::new(".")).1
    }

    #[test]
    fn rules_are_read_with_their_defaults() {
        let more = "other_urls = [\"mqtt://b\", \"mqtts://c:9\"]\n[[bridge.forward]]\nfilter = \"sensors/#\"\n\
                    strip = \"sensors/\"\nadd = \"quay/\"\n[[bridge.forward]]\nfilter = \"alarms/+\"\nclass = \"alarm\"\nttl_s = 60\nqos = 0\n";
        let (config, mistakes, _) = read(format!("{HEAD}{more}").parse().unwrap(), Path::new("."));
        assert_eq!(mistakes, Vec::<String>::new());
        let bridge = config.unwrap().bridge.unwrap();
        let shown: Vec<String> = bridge.addresses.iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["mqtt://central:1883", "mqtt://b:1883", "mqtts://c:9"]);
        let Taken::Crosses(_, crossing) = bridge.rules.take("sensors/a") else { panic!("stays") };
        assert_eq!((crossing.topic.as_str(), crossing.delivery), ("quay/a", Delivery::Acknowledged));
        let Taken::Crosses(_, crossing) = bridge.rules.take("alarms/a") else { panic!("stays") };
        assert_eq!((crossing.class, crossing.ttl), (Class::Alarm, Some(Duration::from_secs(60))));
        assert_eq!(crossing.delivery, Delivery::Once);
    }

    #[test]
    fn mistakes_in_rules_are_named() {
        let rule = |text: &str| format!("[[bridge.forward]]\n{text}\n");
        let cases = [
            (rule("filter = \"a/#\"") + &rule("filter = \"a/b\""), "no topic in common with \"a/#\""),
            (rule("filter = \"tg/#\""), "topics below tg and $ never cross"),
            (rule("filter = \"a/#/b\""), "'#' alone in the last"),
            (rule("strip = \"a/\""), "bridge.forward.filter is missing"),
            (rule("filter = \"a/#\"\nstrip = \"b/\""), "bridge.forward.strip and add"),
            (rule("filter = \"a/#\"\nclas = \"bulk\""), "did you mean class?"),
            (rule("filter = \"a/#\"\nqos = 2"), "bridge.forward.qos = 2: allowed is 1 or 0"),
            ("forward = 3\n".to_owned(), "bridge.forward"),
            ("other_urls = [\"http://x\"]\n".to_owned(), "bridge.other_urls"),
        ];
        for (text, expect) in cases {
            let found = mistakes(&text);
            assert!(found.iter().any(|m| m.contains(expect)), "{text}: {found:?} lacks {expect}");
        }
    }
}
