//! Tasks of the configuration: templates with their policy, checked so far that no prompt can trip over them later.

use super::policy;
use super::reader::{Number, Section};
use super::shipped::{SHIPPED, shipped};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::sync::Arc;
use tidegate_core::{Consent, Provisional, Task};
use tidegate_schemas::{OUTCOME_BYTES_MAX, TASK_BYTES_MAX, TOKENS_MAX, TaskName, TaskSpec};
use toml::Table;

const MAX_TOKENS: Number = Number {
    key: "max_tokens",
    min: 1,
    max: TOKENS_MAX as u64,
    unit: "tokens",
    why: "Most tokens of an answer. An answer without a valid ending by then is an error.",
};
const MAX_BYTES: Number = Number {
    key: "max_bytes",
    min: 64,
    max: OUTCOME_BYTES_MAX as u64,
    unit: "bytes",
    why: "Largest outcome that a worker may send back: 256 tokens are about 1 KB, JSON has more around them.",
};
const EXPECTED: Number = Number {
    key: "expected_tokens",
    min: 1,
    max: TOKENS_MAX as u64,
    unit: "tokens",
    why: "Length of an answer until some were measured: what the first predictions of waiting time are made of.",
};

/// Most tokens of an answer of a task that says nothing: a short paragraph.
const MAX_TOKENS_DEFAULT: u32 = 256;
/// Largest outcome of a task that says nothing, in bytes.
const MAX_BYTES_DEFAULT: u32 = 16 * 1024;

/// Whether a bridge makes consent a matter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cloud {
    /// There is a bridge: each task must say.
    Reachable,
    /// There is none.
    Absent,
}

/// All tasks of `[tasks]`; the shipped ones where the section is absent.
pub(super) fn tasks(root: &Section<'_>, cloud: Cloud) -> BTreeMap<TaskName, Task> {
    let section = root.section("tasks");
    let mut children = section.children();
    if !root.has("tasks") {
        children = SHIPPED.iter().map(|s| (s.name.to_owned(), section.child(s.name, Table::new()))).collect();
    }
    let mut found = BTreeMap::new();
    for (name, child) in children {
        match name.parse::<TaskName>() {
            Ok(task_name) => {
                let task = task(&task_name, &child, cloud);
                child.finish();
                found.insert(task_name, task);
            }
            Err(error) => section.refuse(&name, &error),
        }
    }
    found
}

fn task(name: &TaskName, section: &Section<'_>, cloud: Cloud) -> Task {
    let shipped = shipped(name.as_str());
    let max_tokens = section.number_u32(&MAX_TOKENS, shipped.map_or(MAX_TOKENS_DEFAULT, |s| s.max_tokens));
    let expected = shipped.map_or(MAX_TOKENS_DEFAULT / 4, |s| s.expected_tokens);
    let system = section
        .text("system", "a text", "What the model is told before the prompt; the shipped tasks have theirs.")
        .or_else(|| shipped.map(|s| s.system.to_owned()))
        .unwrap_or_default();
    let schema = schema(section).or_else(|| shipped.and_then(|s| s.schema).map(str::to_owned));
    check_size(section, &system, schema.as_deref());
    let spec = TaskSpec {
        name: name.clone(),
        sha256: spec_hash(&system, schema.as_deref()),
        system,
        schema,
        max_tokens,
        max_bytes: section.number_u32(&MAX_BYTES, MAX_BYTES_DEFAULT),
    };
    let consent = consent(section, cloud);
    let keep = policy::keep(section, consent);
    let learning = policy::learning(section);
    Task {
        spec: Arc::new(spec),
        consent,
        keep,
        learning,
        value: policy::value(section),
        provisional: provisional(section),
        expected_tokens: section.number_u32(&EXPECTED, expected),
    }
}

fn consent(section: &Section<'_>, cloud: Cloud) -> Consent {
    let values = [("\"never\"", Consent::Never), ("\"allowed\"", Consent::Allowed)];
    let why = "Whether prompts of this task may leave the host. No default once a bridge is configured.";
    let default = (cloud == Cloud::Absent).then_some(0);
    if cloud == Cloud::Reachable && !section.has("cloud") {
        section.missing("cloud", &"\"never\" or \"allowed\", since a bridge is configured");
    }
    section.choice("cloud", &values, default, why).unwrap_or(Consent::Never)
}

fn provisional(section: &Section<'_>) -> Provisional {
    let values = [("true", Provisional::Give), ("false", Provisional::Withhold)];
    let why = "Whether a device sees the local answer, marked provisional, while the cloud is asked.";
    section.choice("provisional", &values, Some(0), why).unwrap_or(Provisional::Give)
}

/// The output schema: inline or from a file, and one that can be used.
fn schema(section: &Section<'_>) -> Option<String> {
    let why = "JSON Schema of the answer: the answer is JSON that fits it.";
    let inline = section.text("schema", "a JSON Schema as text", why);
    let file = section.path("schema_file", "a JSON Schema", "The same from a file.");
    let (key, text) = match (inline, file) {
        (Some(_), Some(file)) => {
            section.wrong("schema_file", &file.display(), &"one of schema and schema_file, not both");
            return None;
        }
        (Some(text), None) => ("schema", text),
        (None, Some(file)) => match std::fs::read_to_string(&file) {
            Ok(text) => ("schema_file", text),
            Err(error) => {
                section.wrong("schema_file", &file.display(), &format!("a readable file ({error})"));
                return None;
            }
        },
        (None, None) => return None,
    };
    if let Err(error) = crate::schema::Checker::new(&text) {
        section.wrong(key, &"(the schema)", &format!("a JSON Schema ({error})"));
        return None;
    }
    Some(text)
}

/// An escalation carries the task whole, and has room for so much.
fn check_size(section: &Section<'_>, system: &str, schema: Option<&str>) {
    /// Bytes of names, numbers and keys of a task in an escalation.
    const FRAMING_BYTES: usize = 512;
    let bytes = system.len() + schema.map_or(0, str::len) + FRAMING_BYTES;
    if bytes > TASK_BYTES_MAX {
        let size = format!("({bytes} bytes with the schema)");
        section.wrong("system", &size, &format!("at most {TASK_BYTES_MAX} bytes with the schema"));
    }
}

/// SHA-256 over system prompt and schema, hexadecimal.
fn spec_hash(system: &str, schema: Option<&str>) -> String {
    let mut hash = Sha256::new();
    // The length keeps ("ab", "c") apart from ("a", "bc").
    hash.update(u64::try_from(system.len()).unwrap_or(u64::MAX).to_le_bytes());
    hash.update(system);
    hash.update(schema.unwrap_or_default());
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}
