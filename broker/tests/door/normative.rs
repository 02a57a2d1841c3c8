//! The table of `CONFORMANCE.md` is whole: it has every numbered statement of both specifications exactly once, and every
//! test that it names exists.

use std::collections::BTreeMap;
use std::path::Path;

/// Sections of 3.1.1 and how many statements each has (appendix B).
#[rustfmt::skip]
const V4: &[(&str, u32)] = &[
    ("1.5.3", 3), ("2.2.2", 2), ("2.3.1", 7), ("3.1.0", 2), ("3.1.2", 24), ("3.1.3", 11), ("3.1.4", 5), ("3.2.0", 1),
    ("3.2.2", 6), ("3.3.1", 12), ("3.3.2", 3), ("3.3.4", 1), ("3.3.5", 2), ("3.6.1", 1), ("3.8.1", 1), ("3.8.3", 4),
    ("3.8.4", 6), ("3.9.3", 2), ("3.10.1", 1), ("3.10.3", 2), ("3.10.4", 6), ("3.12.4", 1), ("3.14.1", 1),
    ("3.14.4", 3), ("4.1.0", 2), ("4.3.1", 1), ("4.3.2", 2), ("4.3.3", 2), ("4.4.0", 1), ("4.5.0", 2), ("4.6.0", 6),
    ("4.7.1", 3), ("4.7.2", 1), ("4.7.3", 4), ("4.8.0", 2), ("6.0.0", 4), ("7.0.0", 2), ("7.1.1", 1), ("7.1.2", 1),
];
/// The same of 5.0.
#[rustfmt::skip]
const V5: &[(&str, u32)] = &[
    ("1.5.4", 3), ("1.5.5", 1), ("1.5.7", 1), ("2.1.3", 1), ("2.2.1", 6), ("2.2.2", 1), ("3.1.0", 2), ("3.1.2", 30),
    ("3.1.3", 12), ("3.1.4", 6), ("3.2.0", 2), ("3.2.2", 22), ("3.3.1", 13), ("3.3.2", 20), ("3.3.4", 10),
    ("3.4.2", 3), ("3.5.2", 3), ("3.6.1", 1), ("3.6.2", 3), ("3.7.2", 3), ("3.8.1", 1), ("3.8.3", 5), ("3.8.4", 8),
    ("3.9.2", 2), ("3.9.3", 2), ("3.10.1", 1), ("3.10.3", 2), ("3.10.4", 6), ("3.11.2", 2), ("3.11.3", 2),
    ("3.12.4", 1), ("3.14.0", 1), ("3.14.1", 1), ("3.14.2", 4), ("3.14.4", 3), ("3.15.1", 1), ("3.15.2", 3),
    ("4.1.0", 2), ("4.2", 1), ("4.3.1", 1), ("4.3.2", 5), ("4.3.3", 13), ("4.4.0", 2), ("4.5.0", 2), ("4.6.0", 6),
    ("4.7.0", 1), ("4.7.1", 2), ("4.7.2", 1), ("4.7.3", 4), ("4.8.2", 6), ("4.9.0", 3), ("4.12.0", 7), ("4.12.1", 2),
    ("4.13.1", 1), ("4.13.2", 1), ("6.0.0", 4),
];
/// Numbers that 5.0 does not use.
const V5_UNUSED: [&str; 2] = ["2.2.1-1", "3.3.4-5"];

fn read(file: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The rows of all tables: cells without their frame.
fn rows(text: &str) -> Vec<Vec<String>> {
    let table = text.lines().filter(|line| line.starts_with('|') && !line.starts_with("|--"));
    let cells = |line: &str| line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect();
    table.map(cells).filter(|row: &Vec<String>| row[0] != "3.1.1").collect()
}

/// The statements of a cell: `A-1, A-3 to A-5`.
fn statements(cell: &str) -> Vec<String> {
    let mut all = Vec::new();
    for part in cell.split(", ").filter(|part| *part != "–") {
        let number = |id: &str| -> (String, u32) {
            let (section, number) = id.rsplit_once('-').unwrap_or_else(|| panic!("{id:?} in {cell:?}"));
            (section.to_owned(), number.parse().unwrap_or_else(|_| panic!("{id:?} in {cell:?}")))
        };
        let (first, last) = part.split_once(" to ").unwrap_or((part, part));
        let ((section, from), (_, to)) = (number(first), number(last));
        all.extend((from..=to).map(|n| format!("{section}-{n}")));
    }
    all
}

fn due(sections: &[(&str, u32)]) -> Vec<String> {
    sections.iter().flat_map(|(section, count)| (1..=*count).map(move |n| format!("{section}-{n}"))).collect()
}

#[test]
fn every_statement_stands_in_the_table_once() {
    let rows = rows(&read("CONFORMANCE.md"));
    for (column, sections, unused) in [(0, V4, &[][..]), (1, V5, &V5_UNUSED[..])] {
        let mut found: BTreeMap<String, u32> = BTreeMap::new();
        rows.iter().flat_map(|row| statements(&row[column])).for_each(|s| *found.entry(s).or_default() += 1);
        let due: Vec<String> = due(sections).into_iter().filter(|s| !unused.contains(&s.as_str())).collect();
        let missing: Vec<_> = due.iter().filter(|s| !found.contains_key(*s)).collect();
        let twice: Vec<_> = found.iter().filter(|(_, count)| **count > 1).collect();
        let invented: Vec<_> = found.keys().filter(|s| !due.contains(s)).collect();
        assert!(missing.is_empty() && twice.is_empty() && invented.is_empty(), "{missing:?} {twice:?} {invented:?}");
    }
}

/// What a row names between backticks.
fn named(cell: &str) -> impl Iterator<Item = &str> {
    cell.split('`').skip(1).step_by(2)
}

/// Whether a test of the table exists.
fn exists(name: &str) -> bool {
    let has = |file: &str, what: String| read(file).contains(&what);
    if let Some((module, test)) = name.split_once("::") {
        let function = format!("fn {test}(");
        return match module {
            "codec" => has("src/codec/tests.rs", function),
            "topic" | "session" => has(&format!("src/{module}.rs"), function),
            "replaced" => has("tests/replaced/main.rs", function),
            _ => has(&format!("tests/door/{module}.rs"), function),
        };
    }
    match name.split_once(": ") {
        Some(("paho", case)) => has("conformance/paho_client.py", format!("def {case}(")),
        Some(("js", case)) => has("conformance/mqttjs_client.mjs", format!("'{case}'")),
        Some(("mosquitto", case)) => has("conformance/mosquitto_clients", case.to_owned()),
        Some(("door-faults", case)) => has("../agent/rigs/src/door/faults/mod.rs", format!("name: \"{case}\"")),
        Some(("rig", "access")) => has("../agent/rigs/src/door/access/mod.rs", "fn run(".to_owned()),
        Some(("rig", "door-fuzz")) => has("../agent/rigs/src/door/fuzz.rs", "fn run(".to_owned()),
        _ => false,
    }
}

#[test]
fn every_test_that_the_table_names_exists() {
    let (mut names, mut without) = (0, Vec::new());
    let rows = rows(&read("CONFORMANCE.md"));
    for row in rows.iter().filter(|row| row.len() == 4) {
        let before = names;
        for name in named(&row[3]) {
            assert!(exists(name), "{name} is named in {row:?} and is nowhere");
            names += 1;
        }
        if names == before {
            without.push(row);
        }
    }
    assert!(without.is_empty(), "rows without a test: {without:?}");
    assert!(names > 80, "{names} tests are named");
    assert!(!exists("flows::there_is_no_such_test") && !exists("paho: nothing") && !exists("nothing"));
}
