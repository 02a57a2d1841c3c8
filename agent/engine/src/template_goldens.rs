//! Templates of known families against what Python's jinja2 makes of them, set up as Hugging Face's transformers does
//! (`tests/templates/reference.py`). With `TIDEGATE_TEMPLATES=FOLDER`, where that script has written all templates of the
//! pinned sdist, all of them.

use super::*;
use serde_json::Value as Json;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The moment that the reference tells, 2026-03-07 09:05:04 UTC.
fn clock() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_772_874_304)
}

fn message(turn: &Json) -> Message {
    let role = match turn["role"].as_str().unwrap() {
        "system" => Role::System,
        "user" => Role::User,
        _ => Role::Assistant,
    };
    Message { role, content: turn["content"].as_str().unwrap().into() }
}

fn written(template: &Template, chat: &Json) -> Result<String, TemplateError> {
    let chat: Vec<Message> = chat.as_array().unwrap().iter().map(message).collect();
    let text = |part| match part {
        Part::Markup(text) | Part::Content { text, .. } => text,
    };
    Ok(template.parts(&chat)?.into_iter().map(text).collect())
}

/// Of a golden: chats that jinja2 writes, and what is wrong with ours.
fn compare(golden: &Path) -> (usize, Vec<String>) {
    let read = |path: &Path| std::fs::read_to_string(path).unwrap();
    let template = Template::at(&read(&golden.with_extension("jinja")), "<BOS>", "<EOS>", clock);
    let chats: Vec<Json> = serde_json::from_str(&read(golden)).unwrap();
    let expected = chats.iter().filter_map(|chat| Some((&chat["chat"], chat["text"].as_str()?)));
    let mut wrong = Vec::new();
    let mut all = 0;
    for (chat, expect) in expected {
        all += 1;
        let got = template.as_ref().map_err(Clone::clone).and_then(|template| written(template, chat));
        if got.as_deref() != Ok(expect) {
            wrong.push(format!("{}: {got:?}\ninstead of\n{expect:?}", golden.display()));
        }
    }
    (all, wrong)
}

fn goldens(folder: &Path) -> Vec<PathBuf> {
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    files.filter(|path| path.extension().is_some_and(|ending| ending == "json")).collect()
}

#[test]
fn chats_are_written_as_jinja2_writes_them() {
    let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/templates/kept");
    let folder = std::env::var_os("TIDEGATE_TEMPLATES").map_or(kept, PathBuf::from);
    let goldens = goldens(&folder);
    let (mut all, mut wrong) = (0, Vec::new());
    for golden in &goldens {
        let (chats, faults) = compare(golden);
        all += chats;
        wrong.extend(faults);
    }
    println!("{} templates, {all} chats that jinja2 writes, {} of them otherwise here", goldens.len(), wrong.len());
    assert!(goldens.len() >= 6 && all >= 5 * 6, "{} templates, {all} chats", goldens.len());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
