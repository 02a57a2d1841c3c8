//! Holds the sizes that keep the code readable: functions of at most 60 lines, files of at most 400, in Rust and in
//! the recipe's Python. Measured by indentation, which the formatter's check makes reliable.
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};

/// Most lines of a function, signature and closing brace included.
const FUNCTION_LINES_MAX: usize = 60;
/// Most lines of a file.
const FILE_LINES_MAX: usize = 400;
/// Where code lives.
const FOLDERS: [&str; 5] = ["schemas", "broker", "agent", "firmware-examples", "deploy"];

fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

#[derive(Clone, Copy, PartialEq)]
enum Language {
    Rust,
    Python,
}

fn language(path: &Path) -> Option<Language> {
    match path.extension()?.to_str()? {
        "rs" => Some(Language::Rust),
        "py" => Some(Language::Python),
        _ => None,
    }
}

/// All sources below a folder; build output and hidden folders are none.
fn sources(folder: &Path, found: &mut Vec<(PathBuf, Language)>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() && !name.starts_with('.') && name != "target" && !path.is_symlink() {
            sources(&path, found);
        } else if let Some(language) = language(&path) {
            found.push((path, language));
        }
    }
}

fn indent(line: &str) -> usize {
    line.len() - line.trim_start().len()
}

/// Whether a line of Rust opens a function.
fn opens_rust(line: &str) -> bool {
    let mut rest = line.trim_start();
    if let Some(after) = rest.strip_prefix("pub") {
        rest = after.strip_prefix('(').and_then(|r| r.split_once(')')).map_or(after, |(_, r)| r).trim_start();
    }
    for word in ["default ", "const ", "async ", "unsafe ", "extern \"C\" "] {
        rest = rest.strip_prefix(word).unwrap_or(rest);
    }
    rest.starts_with("fn ")
}

/// The last line of the function that opens at `first`, none for a signature without a body.
fn end_of_rust(lines: &[&str], first: usize) -> Option<usize> {
    let depth = indent(lines[first]);
    for (number, line) in lines.iter().enumerate().skip(first) {
        let here = indent(line) == depth;
        // Signatures end in a semicolon before any body, bodies on one line in a brace.
        if number == first && (line.trim_end().ends_with('}') || line.trim_end().ends_with(';')) {
            return Some(number);
        }
        if here && number > first && (line.trim() == "}" || line.trim_end().ends_with(';')) {
            return Some(number);
        }
    }
    None
}

fn opens_python(line: &str) -> bool {
    let rest = line.trim_start();
    rest.starts_with("def ") || rest.starts_with("async def ")
}

fn end_of_python(lines: &[&str], first: usize) -> usize {
    let depth = indent(lines[first]);
    let mut last = first;
    for (number, line) in lines.iter().enumerate().skip(first + 1) {
        let closes_signature = line.trim_start().starts_with(')');
        if !line.trim().is_empty() {
            if indent(line) <= depth && !closes_signature {
                break;
            }
            last = number;
        }
    }
    last
}

/// Every function over the limit: its first line, counted from 1, and its length.
fn long_functions(text: &str, language: Language) -> Vec<(usize, usize)> {
    let lines: Vec<&str> = text.lines().collect();
    let mut long = Vec::new();
    for first in 0..lines.len() {
        let last = match language {
            Language::Rust if opens_rust(lines[first]) => end_of_rust(&lines, first),
            Language::Python if opens_python(lines[first]) => Some(end_of_python(&lines, first)),
            Language::Rust | Language::Python => None,
        };
        let length = last.map_or(0, |last| last - first + 1);
        if length > FUNCTION_LINES_MAX {
            long.push((first + 1, length));
        }
    }
    long
}

#[test]
fn functions_and_files_are_short() {
    let top = top();
    let mut found = Vec::new();
    for folder in FOLDERS.map(|folder| top.join(folder)) {
        sources(&folder, &mut found);
    }
    assert!(found.len() > 20, "only {} sources were found below {}", found.len(), top.display());
    let mut faults = Vec::new();
    for (path, language) in found {
        let text = std::fs::read_to_string(&path).unwrap();
        let name = path.strip_prefix(&top).unwrap().display().to_string();
        let lines = text.lines().count();
        if lines > FILE_LINES_MAX {
            faults.push(format!("{name}: {lines} lines, at most {FILE_LINES_MAX}"));
        }
        for (line, length) in long_functions(&text, language) {
            faults.push(format!("{name}:{line}: a function of {length} lines, at most {FUNCTION_LINES_MAX}"));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn a_long_function_is_found_in_both_languages() {
    let body = "    x;\n".repeat(FUNCTION_LINES_MAX - 2);
    let at_limit = format!("pub(crate) async fn f() {{\n{body}}}\n\nfn g() {{}}\n");
    assert_eq!(long_functions(&at_limit, Language::Rust), []);
    let over = format!("fn g() {{}}\n\npub(crate) async fn f(\n    a: u8,\n) {{\n{body}}}\n");
    assert_eq!(long_functions(&over, Language::Rust), [(3, 62)]);
    let nested =
        format!("impl X {{\n    pub const fn f() {{\n{}    }}\n}}\n", "        x;\n".repeat(FUNCTION_LINES_MAX));
    assert_eq!(long_functions(&nested, Language::Rust).len(), 1);
    let signature = format!("trait X {{\n    fn f();\n}}\n{body}");
    assert_eq!(long_functions(&signature, Language::Rust), []);
    let python = format!("def f(\n    a,\n) -> int:\n{body}    x\n\ndef g():\n    pass\n");
    assert_eq!(long_functions(&python, Language::Python), [(1, 62)]);
    assert_eq!(long_functions("def f():\n    pass\n", Language::Python), []);
}
