//! Reads a TOML table key by key: collects every mistake instead of stopping at the first, and remembers every key
//! that was asked for, so that unknown keys get a suggestion and the commented example cannot go stale.

use std::cell::RefCell;
use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use toml::{Table, Value};

/// How alike two keys must be (Jaro-Winkler, 0 to 1) for a suggestion: below it a guess confuses more than it helps.
const ALIKE_MIN: f64 = 0.75;

/// A key that the program understands, for the example.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Asked {
    /// Dotted path of its section.
    pub(super) section: String,
    /// The key.
    pub(super) key: &'static str,
    /// Its default as TOML, none if there is no default.
    pub(super) default: Option<String>,
    /// What is allowed, with the unit.
    pub(super) allowed: String,
    /// Why it is there and why the default is what it is.
    pub(super) why: &'static str,
}

/// A number's meaning: range, unit and reason stand in one place.
#[derive(Debug, Clone, Copy)]
pub(super) struct Number {
    /// The key.
    pub(super) key: &'static str,
    /// Least value.
    pub(super) min: u64,
    /// Largest value.
    pub(super) max: u64,
    /// Unit of the value.
    pub(super) unit: &'static str,
    /// Why it is there and why the default is what it is.
    pub(super) why: &'static str,
}

/// One reading of one file.
#[derive(Debug, Default)]
pub(super) struct Reader {
    mistakes: RefCell<Vec<String>>,
    asked: RefCell<Vec<Asked>>,
    folder: PathBuf,
}

impl Reader {
    /// Relative paths of the file count from `folder`.
    pub(super) fn new(folder: &Path) -> Self {
        Self { folder: folder.to_path_buf(), ..Self::default() }
    }

    /// The whole file as a section.
    pub(super) fn root(&self, table: Table) -> Section<'_> {
        Section { reader: self, path: String::new(), table, known: RefCell::default() }
    }

    /// Notes a mistake that no single key shows.
    pub(super) fn mistake(&self, text: String) {
        self.mistakes.borrow_mut().push(text);
    }

    /// Everything that is wrong, in the order of the reading.
    pub(super) fn into_parts(self) -> (Vec<String>, Vec<Asked>) {
        (self.mistakes.into_inner(), self.asked.into_inner())
    }
}

/// One table of the file.
#[derive(Debug)]
pub(super) struct Section<'r> {
    reader: &'r Reader,
    path: String,
    table: Table,
    known: RefCell<Vec<&'static str>>,
}

impl<'r> Section<'r> {
    /// The dotted path of a key in this section.
    pub(super) fn name(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// Notes what is wrong with the value of a key.
    pub(super) fn wrong(&self, key: &str, value: &dyn Display, allowed: &dyn Display) {
        self.reader.mistake(format!("{} = {value}: allowed is {allowed}", self.name(key)));
    }

    /// Notes that a key cannot be what it is.
    pub(super) fn refuse(&self, key: &str, why: &dyn Display) {
        self.reader.mistake(format!("{}: {why}", self.name(key)));
    }

    /// Notes that a key is needed.
    pub(super) fn missing(&self, key: &str, allowed: &dyn Display) {
        self.reader.mistake(format!("{} is missing: allowed is {allowed}", self.name(key)));
    }

    fn value(&self, key: &'static str) -> Option<&Value> {
        self.known.borrow_mut().push(key);
        self.table.get(key)
    }

    fn ask(&self, key: &'static str, default: Option<String>, allowed: impl Into<String>, why: &'static str) {
        let asked = Asked { section: self.path.clone(), key, default, allowed: allowed.into(), why };
        self.reader.asked.borrow_mut().push(asked);
    }

    /// A table inside this one; an absent one reads as empty.
    pub(super) fn section(&self, key: &'static str) -> Section<'r> {
        let table = match self.value(key) {
            None => Table::new(),
            Some(Value::Table(table)) => table.clone(),
            Some(other) => {
                self.wrong(key, &shown(other), &format!("a section [{}]", self.name(key)));
                Table::new()
            }
        };
        Section { reader: self.reader, path: self.name(key), table, known: RefCell::default() }
    }

    /// Whether the file has this section.
    pub(super) fn has(&self, key: &str) -> bool {
        self.table.contains_key(key)
    }

    /// Whether that section has anything in it.
    pub(super) fn has_children(&self, key: &str) -> bool {
        self.table.get(key).and_then(Value::as_table).is_some_and(|table| !table.is_empty())
    }

    /// The tables inside this one, by name, for sections whose keys the user chooses.
    pub(super) fn children(&self) -> Vec<(String, Section<'r>)> {
        let mut found = Vec::new();
        for (name, value) in &self.table {
            let Value::Table(table) = value else {
                self.wrong(name, &shown(value), &format!("a section [{}]", self.name(name)));
                continue;
            };
            found.push((name.clone(), self.child(name, table.clone())));
        }
        found
    }

    /// The tables of a list of tables, `[[key]]`, in their order.
    pub(super) fn list(&self, key: &'static str) -> Vec<Section<'r>> {
        let tables = match self.value(key) {
            None => return Vec::new(),
            Some(Value::Array(list)) => list.iter().map(|v| v.as_table().cloned()).collect::<Option<Vec<Table>>>(),
            Some(_) => None,
        };
        let Some(tables) = tables else {
            self.wrong(key, &"something else", &format!("sections [[{}]]", self.name(key)));
            return Vec::new();
        };
        tables.into_iter().map(|table| self.child(key, table)).collect()
    }

    /// A section of that name with that content.
    pub(super) fn child(&self, name: &str, table: Table) -> Section<'r> {
        Section { reader: self.reader, path: self.name(name), table, known: RefCell::default() }
    }

    /// A text, if the key is there.
    pub(super) fn text(&self, key: &'static str, allowed: &str, why: &'static str) -> Option<String> {
        self.ask(key, None, allowed, why);
        self.quiet_text(key, allowed)
    }

    fn quiet_text(&self, key: &'static str, allowed: &str) -> Option<String> {
        match self.value(key)? {
            Value::String(text) if !text.trim().is_empty() => Some(text.clone()),
            other => {
                self.wrong(key, &shown(other), &allowed);
                None
            }
        }
    }

    /// A value that is read from text, with a default.
    pub(super) fn parsed<T>(&self, key: &'static str, default: &str, allowed: &str, why: &'static str) -> T
    where
        T: FromStr<Err: Display>,
    {
        self.ask(key, Some(format!("{default:?}")), allowed, why);
        let text = self.quiet_text(key, allowed).unwrap_or_else(|| default.to_owned());
        text.parse().unwrap_or_else(|error| {
            self.reader.mistake(format!("{} = {text:?}: {error}", self.name(key)));
            default.parse().unwrap_or_else(|_| unreachable!("the default {default:?} of {key} is valid"))
        })
    }

    /// A path; a relative one counts from the file's folder.
    pub(super) fn path(&self, key: &'static str, what: &str, why: &'static str) -> Option<PathBuf> {
        Some(self.reader.folder.join(self.text(key, &format!("the path of {what}"), why)?))
    }

    /// One path or a list of them; relative ones count from the file's folder.
    pub(super) fn paths(&self, key: &'static str, what: &str, why: &'static str) -> Vec<PathBuf> {
        let allowed = format!("the path of {what}, or a list of such");
        self.ask(key, None, allowed.clone(), why);
        let texts: Option<Vec<&str>> = match self.value(key) {
            None => return Vec::new(),
            Some(Value::String(text)) => Some(vec![text]),
            Some(Value::Array(list)) => list.iter().map(Value::as_str).collect(),
            Some(_) => None,
        };
        let Some(texts) = texts else {
            self.wrong(key, &shown(&self.table[key]), &allowed);
            return Vec::new();
        };
        texts.into_iter().map(|text| self.reader.folder.join(text)).collect()
    }

    /// A text, with a default.
    pub(super) fn text_or(&self, key: &'static str, default: &'static str, allowed: &str, why: &'static str) -> String {
        self.ask(key, Some(format!("{default:?}")), allowed, why);
        self.quiet_text(key, allowed).unwrap_or_else(|| default.to_owned())
    }

    /// A list of texts, if the key is there.
    pub(super) fn texts(&self, key: &'static str, default: &[&str], allowed: &str, why: &'static str) -> Vec<String> {
        self.ask(key, Some(format!("{default:?}")), allowed, why);
        let Some(value) = self.value(key) else { return default.iter().map(|d| (*d).to_owned()).collect() };
        let list = value.as_array().map(|list| list.iter().map(|v| v.as_str().map(str::to_owned)).collect());
        let list: Option<Option<Vec<String>>> = list;
        list.flatten().unwrap_or_else(|| {
            self.wrong(key, &shown(value), &format!("a list of {allowed}"));
            Vec::new()
        })
    }

    /// A whole number, with a default.
    pub(super) fn number(&self, number: &Number, default: u64) -> u64 {
        let allowed = format!("{} to {} {}", number.min, number.max, number.unit);
        self.ask(number.key, Some(default.to_string()), allowed.clone(), number.why);
        let Some(value) = self.value(number.key) else { return default };
        let read = value.as_integer().and_then(|n| u64::try_from(n).ok());
        match read.filter(|n| (number.min..=number.max).contains(n)) {
            Some(n) => n,
            None => {
                self.wrong(number.key, &shown(value), &allowed);
                default
            }
        }
    }

    /// A whole number that fits 32 bits: the range of `number` says so.
    pub(super) fn number_u32(&self, number: &Number, default: u32) -> u32 {
        u32::try_from(self.number(number, default.into())).unwrap_or(u32::MAX)
    }

    /// A share, 0 to 1, with a default.
    pub(super) fn share(&self, key: &'static str, default: f64, why: &'static str) -> f64 {
        const ALLOWED: &str = "0.0 to 1.0";
        self.ask(key, Some(format!("{default:?}")), ALLOWED, why);
        let Some(value) = self.value(key) else { return default };
        // TOML tells 1 from 1.0; a person does not.
        let read = value.as_float().or_else(|| value.as_integer().map(|n| n as f64));
        match read.filter(|n| (0.0..=1.0).contains(n)) {
            Some(n) => n,
            None => {
                self.wrong(key, &shown(value), &ALLOWED);
                default
            }
        }
    }

    /// A share, 0 to 1, if the key is there.
    pub(super) fn share_if(&self, key: &'static str, why: &'static str) -> Option<f64> {
        const ALLOWED: &str = "0.0 to 1.0";
        self.ask(key, None, ALLOWED, why);
        let value = self.value(key)?;
        let read = value.as_float().or_else(|| value.as_integer().map(|n| n as f64));
        let found = read.filter(|n| (0.0..=1.0).contains(n));
        if found.is_none() {
            self.wrong(key, &shown(value), &ALLOWED);
        }
        found
    }

    /// One of a few values, with a default.
    pub(super) fn choice<T: Copy>(
        &self,
        key: &'static str,
        values: &[(&str, T)],
        default: Option<usize>,
        why: &'static str,
    ) -> Option<T> {
        let allowed = values.iter().map(|(word, _)| *word).collect::<Vec<_>>().join(" or ");
        self.ask(key, default.map(|d| values[d].0.to_owned()), allowed.clone(), why);
        let otherwise = default.map(|d| values[d].1);
        let Some(value) = self.value(key) else { return otherwise };
        let found = values.iter().find(|(word, _)| *word == shown(value));
        if found.is_none() {
            self.wrong(key, &shown(value), &allowed);
        }
        found.map(|(_, v)| *v).or(otherwise)
    }

    /// Notes every key that nobody asked for.
    pub(super) fn finish(self) {
        let known = self.known.borrow();
        for (key, value) in &self.table {
            if known.contains(&key.as_str()) {
                continue;
            }
            let near = known.iter().map(|k| (strsim::jaro_winkler(k, key), *k)).max_by(|a, b| a.0.total_cmp(&b.0));
            let hint = match near {
                Some((alike, near)) if alike >= ALIKE_MIN => format!("did you mean {near}?"),
                _ => format!("known are {}", known.join(", ")),
            };
            let value = if looks_secret(key) { "(not shown)".to_owned() } else { shown(value) };
            self.reader.mistake(format!("{} = {value}: unknown key, {hint}", self.name(key)));
        }
    }
}

/// A secret that was put where none belongs is not printed as well.
fn looks_secret(key: &str) -> bool {
    key.contains("password") || key.contains("secret") || key.contains("token")
}

/// A value as TOML writes it.
fn shown(value: &Value) -> String {
    match value {
        Value::Table(_) => "a section".to_owned(),
        Value::Array(_) => "a list".to_owned(),
        other => other.to_string(),
    }
}
