//! Holds the arrows of the design: who may depend on whom, what may stand at the top, and one crypto provider.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use toml::{Table, Value};

/// Packages by folder.
const CRATES: [(&str, &str); 7] = [
    ("schemas", "tidegate-schemas"),
    ("broker", "tidegate-broker"),
    ("agent", "tidegate"),
    ("agent/core", "tidegate-core"),
    ("agent/spool", "tidegate-spool"),
    ("agent/engine", "tidegate-engine"),
    ("agent/rigs", "tidegate-rigs"),
];
/// Dependencies that one folder only may name.
const ONLY_IN: [(&str, &str); 5] = [
    ("sled", "agent/spool"),
    ("llama-cpp-2", "agent/engine"),
    ("llama-cpp-sys-2", "agent/engine"),
    ("rumqttd", "broker"),
    ("serde_cbor", "schemas"),
];
/// Packages of ours that a folder may depend on; all others know the schemas only.
const MAY_KNOW: [(&str, &[&str]); 3] = [
    ("schemas", &[]),
    ("agent", &["tidegate-schemas", "tidegate-broker", "tidegate-core", "tidegate-spool", "tidegate-engine"]),
    ("agent/rigs", &["tidegate-schemas", "tidegate-core", "tidegate-spool", "tidegate-engine"]),
];
/// What may stand at the top, besides dot-files and what git ignores.
const TOP: [&str; 12] = [
    "schemas",
    "broker",
    "agent",
    "firmware-examples",
    "deploy",
    "Cargo.toml",
    "Cargo.lock",
    "README.md",
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "LICENSE",
    "NOTICE",
];

fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

fn manifest(folder: &str) -> Table {
    let path = top().join(folder).join("Cargo.toml");
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    text.parse().unwrap()
}

/// Packages that a manifest's tables of these names ask for, also per target, under their real names.
fn asks_for(manifest: &Table, tables: &[&str]) -> BTreeSet<String> {
    let targets = manifest.get("target").and_then(Value::as_table).into_iter().flat_map(Table::values);
    let roots = std::iter::once(manifest).chain(targets.filter_map(Value::as_table));
    let wanted = roots.flat_map(|root| tables.iter().filter_map(|name| root.get(*name)).filter_map(Value::as_table));
    let real = |(name, value): (&String, &Value)| {
        value.get("package").and_then(Value::as_str).map_or_else(|| name.clone(), str::to_owned)
    };
    wanted.flat_map(|table| table.iter().map(real).collect::<Vec<_>>()).collect()
}

const ALL: [&str; 3] = ["dependencies", "dev-dependencies", "build-dependencies"];

#[test]
fn each_heavy_dependency_has_one_home() {
    for (folder, _) in CRATES {
        let asked = asks_for(&manifest(folder), &ALL);
        for (dependency, home) in ONLY_IN {
            assert!(folder == home || !asked.contains(dependency), "{folder} names {dependency}, only {home} may");
        }
    }
    for (dependency, home) in ONLY_IN {
        assert!(asks_for(&manifest(home), &ALL).contains(dependency), "{home} no longer names {dependency}");
    }
}

#[test]
fn our_crates_know_only_whom_they_may() {
    let ours: BTreeSet<&str> = CRATES.iter().map(|(_, package)| *package).collect();
    for (folder, _) in CRATES {
        let may = MAY_KNOW.iter().find(|(f, _)| *f == folder).map_or(&["tidegate-schemas"][..], |(_, known)| *known);
        let asked = asks_for(&manifest(folder), &["dependencies", "build-dependencies"]);
        for known in asked.iter().filter(|name| ours.contains(name.as_str())) {
            assert!(may.contains(&known.as_str()), "{folder} depends on {known}, allowed are {may:?}");
        }
    }
}

#[test]
fn the_core_decides_and_nothing_else() {
    let asked = asks_for(&manifest("agent/core"), &["dependencies", "build-dependencies"]);
    let allowed: BTreeSet<String> = ["thiserror", "tidegate-schemas"].map(str::to_owned).into();
    assert!(asked.is_subset(&allowed), "agent/core depends on {asked:?}, allowed are {allowed:?}");
}

#[test]
fn every_member_of_the_workspace_is_guarded() {
    let members = manifest(".")["workspace"]["members"].as_array().unwrap().clone();
    let members: BTreeSet<&str> = members.iter().map(|m| m.as_str().unwrap()).collect::<Vec<_>>().into_iter().collect();
    let guarded: BTreeSet<&str> = CRATES.iter().map(|(folder, _)| *folder).collect();
    assert_eq!(members, guarded);
    for (folder, package) in CRATES {
        assert_eq!(manifest(folder)["package"]["name"].as_str(), Some(package));
    }
}

#[test]
fn there_is_one_crypto_provider() {
    for provider in ["aws-lc-rs", "aws-lc-sys", "openssl-sys"] {
        let mut command = Command::new(env!("CARGO"));
        command.current_dir(top()).args(["tree", "--workspace", "--locked", "--offline", "-e", "all", "-i", provider]);
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "{provider} is used:\n{}", String::from_utf8_lossy(&output.stdout));
        assert!(said.contains("did not match any packages"), "cargo tree failed for another reason:\n{said}");
    }
}

#[test]
fn only_the_agreed_names_stand_at_the_top() {
    let mut ignored = vec!["target".to_owned()];
    let rules = std::fs::read_to_string(top().join(".gitignore")).unwrap();
    ignored.extend(rules.lines().filter_map(|rule| rule.strip_prefix('/')).map(str::to_owned));
    for entry in std::fs::read_dir(top()).unwrap() {
        let name = entry.unwrap().file_name().to_string_lossy().into_owned();
        let fine = name.starts_with('.') || TOP.contains(&name.as_str()) || ignored.contains(&name);
        assert!(fine, "{name} stands at the top, allowed are {}", TOP.join(", "));
    }
}

#[test]
fn renamed_and_per_target_dependencies_are_seen() {
    let text = "[dependencies]\nstore = { package = \"sled\", version = \"1\" }\n\
                [target.'cfg(unix)'.dev-dependencies]\nrumqttd = \"0.20\"\n";
    let asked = asks_for(&text.parse().unwrap(), &ALL);
    assert_eq!(asked, ["rumqttd", "sled"].map(str::to_owned).into());
}
