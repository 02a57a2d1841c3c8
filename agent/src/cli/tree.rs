//! What holds for every command, whichever is added.

use super::Cli;
use clap::CommandFactory;

/// Paths of all commands that do something, `queue ls` and the like, and whether they take `--json`.
fn leaves(command: &clap::Command, above: &str, found: &mut Vec<(String, bool)>) {
    let path = format!("{above} {}", command.get_name()).trim().to_owned();
    let json = command.get_arguments().any(|arg| arg.get_long() == Some("json"));
    if command.has_subcommands() {
        command.get_subcommands().for_each(|below| leaves(below, &path, found));
    } else if !command.is_hide_set() {
        found.push((path, json));
    }
}

#[test]
fn every_command_speaks_json() {
    let mut tree = Cli::command().disable_help_subcommand(true);
    // Options that hold for everything below are passed on by this.
    tree.build();
    let mut found = Vec::new();
    leaves(&tree, "", &mut found);
    let mute: Vec<_> = found.iter().filter(|(_, json)| !json).map(|(path, _)| path).collect();
    assert!(mute.is_empty(), "without --json: {mute:?}");
    assert!(found.len() >= 20 && found.iter().any(|(path, _)| path == "tidegate queue ls"), "{found:?}");
}
