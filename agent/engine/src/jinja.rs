//! Jinja as Hugging Face's transformers set it up for chat templates: block trimming, Python's methods, `tojson`,
//! `raise_exception`, `strftime_now`, and the tag `generation`, which marks what the assistant wrote and writes nothing.
//!
//! Invariant: nothing here reaches a file, the network or the environment; the clock is read for `strftime_now` only.

use minijinja::value::{Kwargs, ValueKind};
use minijinja::{Environment, Error, ErrorKind, Value};
use std::fmt::Write;
use std::time::SystemTime;

/// Deepest value that `tojson` writes.
const DEPTH_MAX: u32 = 32;

/// An environment without templates.
pub(crate) fn environment(clock: fn() -> SystemTime) -> Environment<'static> {
    let mut jinja = Environment::new();
    jinja.set_trim_blocks(true);
    jinja.set_lstrip_blocks(true);
    jinja.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    jinja.add_function("raise_exception", |what: String| -> Result<Value, Error> {
        Err(Error::new(ErrorKind::InvalidOperation, what))
    });
    jinja.add_function("strftime_now", move |format: String| written_time(&format, clock()));
    jinja.add_filter("tojson", to_json);
    jinja.add_test("iterable", |value: &Value| is_iterable(value));
    jinja
}

/// As in Python: nothing cannot be walked, what is missing can.
fn is_iterable(value: &Value) -> bool {
    use ValueKind::{Iterable, Map, Seq, String, Undefined};
    matches!(value.kind(), Iterable | Map | Seq | String | Undefined)
}

/// The template without the tag `generation`: a block that opens a scope, as there.
pub(crate) fn plain(source: &str) -> String {
    let mut text = String::with_capacity(source.len());
    let mut rest = source;
    while let Some((before, tag)) = rest.split_once("{%") {
        text.push_str(before);
        let Some((inside, after)) = tag.split_once("%}") else {
            text.push_str("{%");
            rest = tag;
            continue;
        };
        let (open, word) = inside.split_at(usize::from(inside.starts_with(['-', '+'])));
        let (word, close) = word.split_at(word.len() - usize::from(word.ends_with(['-', '+'])));
        match word.trim() {
            "generation" => _ = write!(text, "{{%{open} with generation = none {close}%}}"),
            "endgeneration" => _ = write!(text, "{{%{open} endwith {close}%}}"),
            _ => {
                text.push_str("{%");
                rest = tag;
                continue;
            }
        }
        rest = after;
    }
    text + rest
}

/// JSON as Python's `json.dumps` writes it: a space after `,` and `:`, characters as they are, keys in their order.
fn to_json(value: &Value, options: Kwargs) -> Result<Value, Error> {
    let indent: Option<usize> = options.get("indent")?;
    let ascii: Option<bool> = options.get("ensure_ascii")?;
    let separators: Option<Vec<String>> = options.get("separators")?;
    let sorted: Option<bool> = options.get("sort_keys")?;
    options.assert_all_used()?;
    let [item, key] = match separators.as_deref() {
        Some([item, key]) => [item.clone(), key.clone()],
        _ => [if indent.is_some() { "," } else { ", " }.to_owned(), ": ".to_owned()],
    };
    let mut writer = Json { text: String::new(), indent, item, key, ascii: ascii.unwrap_or(false) };
    writer.value(value, 0, sorted.unwrap_or(false))?;
    Ok(Value::from_safe_string(writer.text))
}

struct Json {
    text: String,
    indent: Option<usize>,
    item: String,
    key: String,
    ascii: bool,
}

impl Json {
    fn value(&mut self, value: &Value, depth: u32, sorted: bool) -> Result<(), Error> {
        if depth > DEPTH_MAX {
            return Err(Error::new(ErrorKind::InvalidOperation, "a value is nested too deeply for tojson"));
        }
        match value.kind() {
            ValueKind::None => self.text.push_str("null"),
            ValueKind::Bool => self.text.push_str(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number => _ = write!(self.text, "{value}"),
            ValueKind::String => self.string(value.as_str().unwrap_or_default()),
            ValueKind::Seq | ValueKind::Iterable => {
                let items: Vec<Value> = value.try_iter()?.collect();
                self.list(['[', ']'], items.len(), depth, |json, index| json.value(&items[index], depth + 1, sorted))?;
            }
            ValueKind::Map => {
                let mut keys: Vec<Value> = value.try_iter()?.collect();
                if sorted {
                    keys.sort();
                }
                self.list(['{', '}'], keys.len(), depth, |json, index| {
                    json.string(&keys[index].to_string());
                    let key = json.key.clone();
                    json.text.push_str(&key);
                    json.value(&value.get_item(&keys[index])?, depth + 1, sorted)
                })?;
            }
            kind => return Err(Error::new(ErrorKind::InvalidOperation, format!("{kind} is not JSON serializable"))),
        }
        Ok(())
    }

    fn list(
        &mut self,
        [open, close]: [char; 2],
        items: usize,
        depth: u32,
        mut each: impl FnMut(&mut Self, usize) -> Result<(), Error>,
    ) -> Result<(), Error> {
        self.text.push(open);
        for index in 0..items {
            if index > 0 {
                let item = self.item.clone();
                self.text.push_str(&item);
            }
            self.line(depth + 1);
            each(self, index)?;
        }
        if items > 0 {
            self.line(depth);
        }
        self.text.push(close);
        Ok(())
    }

    fn line(&mut self, depth: u32) {
        if let Some(indent) = self.indent {
            self.text.push('\n');
            self.text.extend(std::iter::repeat_n(' ', indent.min(16) * depth as usize));
        }
    }

    fn string(&mut self, text: &str) {
        self.text.push('"');
        for c in text.chars() {
            match c {
                '"' => self.text.push_str("\\\""),
                '\\' => self.text.push_str("\\\\"),
                '\n' => self.text.push_str("\\n"),
                '\r' => self.text.push_str("\\r"),
                '\t' => self.text.push_str("\\t"),
                '\u{8}' => self.text.push_str("\\b"),
                '\u{c}' => self.text.push_str("\\f"),
                c if (c as u32) < 0x20 || self.ascii && !c.is_ascii() => {
                    for unit in c.encode_utf16(&mut [0; 2]) {
                        let _ = write!(self.text, "\\u{unit:04x}");
                    }
                }
                c => self.text.push(c),
            }
        }
        self.text.push('"');
    }
}

/// The time as C's `strftime` writes it in the C locale, in UTC. Letters that no known template uses stay as they are.
fn written_time(format: &str, now: SystemTime) -> String {
    const DAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];
    const MONTHS: [&str; 12] = [
        "January",
        "February",
        "March",
        "April",
        "May",
        "June",
        "July",
        "August",
        "September",
        "October",
        "November",
        "December",
    ];
    let seconds = now.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    // The first of January 1970 was a Thursday.
    let weekday = DAYS[(days as usize + 4) % 7];
    let month_name = MONTHS[month as usize - 1];
    let mut text = String::new();
    let mut letters = format.chars();
    while let Some(letter) = letters.next() {
        if letter != '%' {
            text.push(letter);
            continue;
        }
        let _ = match letters.next() {
            Some('Y') => write!(text, "{year}"),
            Some('y') => write!(text, "{:02}", year % 100),
            Some('m') => write!(text, "{month:02}"),
            Some('d') => write!(text, "{day:02}"),
            Some('e') => write!(text, "{day:2}"),
            Some('B') => write!(text, "{month_name}"),
            Some('b' | 'h') => write!(text, "{}", &month_name[..3]),
            Some('A') => write!(text, "{weekday}"),
            Some('a') => write!(text, "{}", &weekday[..3]),
            Some('H') => write!(text, "{hour:02}"),
            Some('I') => write!(text, "{:02}", (hour + 11) % 12 + 1),
            Some('p') => write!(text, "{}", if hour < 12 { "AM" } else { "PM" }),
            Some('M') => write!(text, "{minute:02}"),
            Some('S') => write!(text, "{second:02}"),
            Some('F') => write!(text, "{year}-{month:02}-{day:02}"),
            Some('T') => write!(text, "{hour:02}:{minute:02}:{second:02}"),
            Some('Z') => write!(text, "UTC"),
            Some('z') => write!(text, "+0000"),
            Some('%') => write!(text, "%"),
            Some(other) => write!(text, "%{other}"),
            None => write!(text, "%"),
        };
    }
    text
}

/// Year, month and day of a day since 1970 (Howard Hinnant, "chrono-compatible low-level date algorithms").
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let of_years = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * of_years + of_years / 4 - of_years / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    (of_years + era * 400 + u64::from(month <= 2), month, day)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn the_time_is_written_as_c_does() {
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        for (seconds, format, expect) in [
            (0, "%d %b %Y", "01 Jan 1970"),
            (1_772_874_304, "%A, %B %e %H:%M:%S %p %I %%", "Saturday, March  7 09:05:04 AM 09 %"),
            (951_782_400, "%Y-%m-%d %y %a %F %T", "2000-02-29 00 Tue 2000-02-29 00:00:00"),
            (4_107_542_399, "%Y-%m-%d %I %p %q", "2100-02-28 11 PM %q"),
        ] {
            assert_eq!(written_time(format, at(seconds)), expect);
        }
    }

    #[test]
    fn json_is_written_as_python_does() {
        let mut jinja = environment(SystemTime::now);
        jinja.set_fuel(Some(10_000));
        for (source, expect) in [
            (
                "{{ {'a': [1, 2.5, true, none], 'b': 'ä\\n\"<'} | tojson }}",
                r#"{"a": [1, 2.5, true, null], "b": "ä\n\"<"}"#,
            ),
            ("{{ ['ä😀'] | tojson(ensure_ascii=true) }}", r#"["\u00e4\ud83d\ude00"]"#),
            ("{{ [[], {}] | tojson(separators=[',', ':']) }}", "[[],{}]"),
            ("{{ {'a': [1, {}]} | tojson(indent=2) }}", "{\n  \"a\": [\n    1,\n    {}\n  ]\n}"),
        ] {
            assert_eq!(jinja.render_str(source, ()).unwrap(), expect, "{source}");
        }
    }

    #[test]
    fn the_tag_generation_writes_nothing() {
        let plain = plain("a {%- generation -%} b {% endgeneration %} c {% if generation %}{% {%");
        assert_eq!(plain, "a {%- with generation = none -%} b {% endwith %} c {% if generation %}{% {%");
    }
}
