//! From a file to a [`Config`], or to everything that is wrong with it.

use super::bounds;
use super::bridge::bridge;
use super::intake::intake;
use super::reader::{Asked, Reader, Section};
use super::shipped::SHIPPED;
use super::tasks::{self, Cloud};
use super::{Config, DEFAULT_FILE, EngineConfig, door, places};
use crate::failure::Failure;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tidegate_schemas::Origin;
use toml::Table;

/// Longest time that a stop takes when nobody says it, in milliseconds: systemd's own default is 90 s, a person's 10 s.
const DRAIN_MS_DEFAULT: u64 = 10_000;
/// Context window when nobody says it, in tokens: short commands and their answers.
const CONTEXT_DEFAULT: u32 = 1_024;

/// Longest silence of the model's process when nobody says it, in milliseconds: it beats each second, and one step of a
/// large model on a small processor takes a few.
const SILENCE_MS_DEFAULT: u64 = 20_000;
/// What `engine.canaries` is for.
const CANARIES: &str = "Prompts that another model must answer as they say before `tidegate model use` lets it serve: task, prompt, answer.";

/// Where a configuration comes from.
#[derive(Debug, Clone)]
pub(crate) enum Source {
    /// This file.
    File(PathBuf),
    /// The packaged file if it is there, else the defaults.
    Default,
}

/// `tidegate config check`: says nothing where nothing is wrong, but in JSON.
///
/// # Errors
/// Every mistake, with status 64.
pub(crate) fn check(file: PathBuf, json: bool) -> Result<(), Failure> {
    let config = load(&Source::File(file))?;
    let found = serde_json::json!({ "mistakes": [], "site": config.origin.site, "gateway": config.origin.gateway });
    if json { crate::terminal::print(&format!("{found}\n")) } else { Ok(()) }
}

/// Reads and checks a configuration.
///
/// # Errors
/// Every mistake, one line each, with status 64.
pub(crate) fn load(source: &Source) -> Result<Config, Failure> {
    let file = match source {
        Source::File(file) => file.clone(),
        Source::Default if Path::new(DEFAULT_FILE).exists() => DEFAULT_FILE.into(),
        Source::Default => return from_table(Table::new(), Path::new("."), "the defaults"),
    };
    let name = file.display().to_string();
    let text = std::fs::read_to_string(&file).map_err(|e| Failure::config(format!("cannot read {name}: {e}")))?;
    let table =
        text.parse::<Table>().map_err(|e| Failure::config(format!("{name} is no TOML: {}", plain(&e, &text))))?;
    from_table(table, file.parent().unwrap_or(Path::new(".")), &name)
}

/// A syntax error in one line, with its place.
fn plain(error: &toml::de::Error, text: &str) -> String {
    let before = error.span().map_or("", |span| text.get(..span.start).unwrap_or_default());
    format!("line {}: {}", before.matches('\n').count() + 1, error.message().replace('\n', ", "))
}

fn from_table(table: Table, folder: &Path, name: &str) -> Result<Config, Failure> {
    let (config, mistakes, _) = read(table, folder);
    match config {
        Some(config) if mistakes.is_empty() => Ok(config),
        _ => {
            let count = mistakes.len();
            let plural = if count == 1 { "mistake" } else { "mistakes" };
            let sentence = format!("{name} has {count} {plural}:\n  {}", mistakes.join("\n  "));
            Err(Failure::config(sentence).next("`tidegate config example` prints every key with what is allowed"))
        }
    }
}

/// Reads everything there is: the configuration if it is whole, what is wrong, and what can be said at all.
pub(super) fn read(table: Table, folder: &Path) -> (Option<Config>, Vec<String>, Vec<Asked>) {
    let reader = Reader::new(folder);
    let config = config(&reader, reader.root(table));
    let (mistakes, asked) = reader.into_parts();
    (config, mistakes, asked)
}

fn config(reader: &Reader, root: Section<'_>) -> Option<Config> {
    const NAME: &str = "1 to 64 of A-Z a-z 0-9 _ . -";
    let origin = Origin {
        site: root.parsed("site", "site", NAME, "Where the gateway stands; part of every topic."),
        gateway: root.parsed("gateway", "gateway", NAME, "Which gateway of the site; part of every topic."),
    };
    let data_dir = root.path("data_dir", "a directory", "Where accepted prompts and outcomes are kept.");
    let data_dir = data_dir.or_else(places::data_dir);
    if data_dir.is_none() {
        root.missing("data_dir", &"a path, since neither HOME nor XDG_STATE_HOME is set");
    }
    let data_dir = data_dir.unwrap_or_default();
    let why = "The Unix socket of status and other commands; else in the data directory.";
    let control = root.path("control_socket", "a socket", why).unwrap_or_else(|| places::control(&data_dir));
    let bridge = bridge(root.section("bridge"), root.has("bridge"), &origin);
    let cloud = if root.has("bridge") { Cloud::Reachable } else { Cloud::Absent };
    let tasks = tasks::tasks(&root, cloud);
    let why = "The task of a prompt that names none.";
    let default_task = root.parsed("default_task", SHIPPED[0].name, NAME, why);
    if !tasks.is_empty() && !tasks.contains_key(&default_task) {
        let known = tasks.keys().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        root.wrong("default_task", &format!("{:?}", default_task.as_str()), &format!("one of the tasks: {known}"));
    }
    if tasks.is_empty() && !root.has_children("tasks") {
        root.refuse("tasks", &"no task is there, at least one is needed");
    }
    let engine = engine(root.section("engine"));
    let limits_section = root.section("limits");
    let limits = bounds::limits(&limits_section, engine.slots);
    limits_section.finish();
    let spool_section = root.section("spool");
    let spool = bounds::spool(&spool_section, &limits);
    spool_section.finish();
    let drain_section = root.section("drain");
    let drain = Duration::from_millis(drain_section.number(&bounds::DRAIN, DRAIN_MS_DEFAULT));
    drain_section.finish();
    let intake = intake(root.section("intake"), root.has("intake"), &origin, &tasks);
    if root.has("intake") && root.has_children("door") {
        root.refuse("door", &"no door is opened where [intake] is configured");
    }
    let door = door::door(reader, root.section("door"));
    let page = super::page::page(root.section("page"));
    root.finish();
    Some(Config {
        origin,
        data_dir,
        control,
        default_task,
        tasks,
        door,
        engine,
        spool,
        limits,
        bridge,
        intake,
        page,
        drain,
    })
}

fn engine(section: Section<'_>) -> EngineConfig {
    let engine = EngineConfig {
        model: section.path("model", "a GGUF file", "The model; else the shipped tide-edge.gguf."),
        slots: section.number_u32(&bounds::SLOTS, tidegate_core::Limits::default().slots),
        threads: section.number_u32(&bounds::THREADS, 0),
        context_tokens: section.number_u32(&bounds::CONTEXT, CONTEXT_DEFAULT),
        cache: bounds::engine_cache(&section),
        prefix_bytes_max: bounds::engine_prefixes(&section),
        memory_bytes_max: bounds::engine_memory(&section),
        gpu_layers: section.number_u32(&bounds::GPU_LAYERS, tidegate_engine::protocol::GPU_LAYERS_ALL),
        canaries: section.path("canaries", "a file of JSON lines", CANARIES),
        silence: Duration::from_millis(section.number(&bounds::SILENCE, SILENCE_MS_DEFAULT)),
    };
    section.finish();
    engine
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn mistakes(text: &str) -> Vec<String> {
        read(text.parse().unwrap(), Path::new(".")).1
    }

    #[test]
    fn no_file_is_a_whole_configuration() {
        let (config, mistakes, _) = read(Table::new(), Path::new("."));
        assert_eq!(mistakes, Vec::<String>::new());
        let config = config.unwrap();
        assert_eq!(config.tasks.keys().map(|t| t.as_str()).collect::<Vec<_>>(), ["action", "intent"]);
        assert_eq!(config.default_task.as_str(), "action");
        assert_eq!(config.door.listeners[0].addr.to_string(), door::LISTEN_DEFAULT);
        assert!(config.bridge.is_none());
    }

    #[test]
    fn three_mistakes_are_three_lines() {
        let found = mistakes("site = \"a/b\"\n[engine]\nslots = 0\nthread = 4\n");
        assert_eq!(found.len(), 3, "{found:?}");
        assert!(found[0].contains("site = \"a/b\": site has '/'"), "{found:?}");
        assert!(found[1].contains("engine.slots = 0: allowed is 1 to 64 prompts"), "{found:?}");
        assert!(found[2].contains("engine.thread = 4: unknown key, did you mean threads?"), "{found:?}");
    }

    #[test]
    fn a_bridge_makes_every_task_say_whether_the_cloud_may_see_it() {
        let found = mistakes("[bridge]\nurl = \"mqtt://central\"\n");
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].contains("tasks.action.cloud is missing"), "{found:?}");
        let said = "[bridge]\nurl = \"mqtt://central\"\n[tasks.action]\ncloud = \"allowed\"\n";
        assert_eq!(mistakes(said), Vec::<String>::new());
    }

    #[test]
    fn table_of_mistakes() {
        let cases = [
            ("x = 1", "x = 1: unknown key"),
            ("[bridge]", "bridge.url is missing"),
            ("[bridge]\nurl = \"http://x\"\n[tasks.action]\ncloud = \"never\"", "bridge.url = \"http://x\""),
            (
                "[bridge]\nurl = \"mqtt://x\"\npassword = \"s3cret\"\n[tasks.action]\ncloud = \"never\"",
                "password_file?",
            ),
            ("[tasks.other]\nsystem = \"hi\"", "default_task = \"action\": allowed is one of the tasks: other"),
            ("[tasks.action]\nschema = \"{\"", "tasks.action.schema = (the schema): allowed is a JSON Schema"),
            ("[tasks.action]\nthreshold = 1.5", "tasks.action.threshold = 1.5: allowed is 0.0 to 1.0"),
            ("[tasks.\"a b\"]", "tasks.a b: task has ' '"),
            ("[door]\nlisten = [\"x\"]", "door.listen = \"x\": allowed is ADDRESS:PORT"),
            ("[door]\nlisten_tls = [\"127.0.0.1:8883\"]", "door.listen_tls needs both"),
            ("[door]\nbackend = \"mqtt://192.0.2.1:1883\"", "door.backend = \"mqtt://192.0.2.1:1883\": allowed is"),
            ("[door]\nreply_topics = [\"+/v1/#\"]", "door.reply_topics: \"+/v1/#\" overlaps \"tg/#\""),
            ("[door]\nclient_ca = [1]", "door.client_ca = a list: allowed is"),
            ("[door.limits]\nreceive_max = 0", "door.limits.receive_max = 0: allowed is 1 to 65535 publishes"),
            ("engine = 3", "engine = 3: allowed is a section [engine]"),
        ];
        for (text, expect) in cases {
            let found = mistakes(text);
            assert!(found.iter().any(|m| m.contains(expect)), "{text}: {found:?} lacks {expect}");
            assert!(!found.iter().any(|m| m.contains("s3cret")), "a secret is shown: {found:?}");
        }
    }
}
