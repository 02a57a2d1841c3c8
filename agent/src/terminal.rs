//! Words for a person on stdout, and on stderr how far something has come. Colours and progress go to terminals only.

use crate::failure::Failure;
use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

/// What takes longer shows how far it has come.
const PROGRESS_AFTER: Duration = Duration::from_secs(2);
/// Between two drawings.
const PROGRESS_EVERY: Duration = Duration::from_millis(200);

/// Prints text as it is. A reader that went away (`| head`) is no failure of ours.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::other(format!("cannot write to stdout: {error}")))
        }
        _ => Ok(()),
    }
}

/// What a word says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Colour {
    /// All is well.
    Green,
    /// It works, but.
    Yellow,
    /// It does not work.
    Red,
}

/// A word in colour where stdout is a terminal and nobody set NO_COLOR (no-color.org).
pub(crate) fn painted(word: &str, colour: Colour) -> String {
    let wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    if wanted && io::stdout().is_terminal() { paint(word, colour) } else { word.to_owned() }
}

/// ECMA-48, select graphic rendition.
fn paint(word: &str, colour: Colour) -> String {
    let number = match colour {
        Colour::Green => 32,
        Colour::Yellow => 33,
        Colour::Red => 31,
    };
    format!("\x1b[{number}m{word}\x1b[0m")
}

/// How far something has come: one line on stderr, gone when it is over. Says nothing within the first two seconds, and
/// never where stderr is no terminal.
pub(crate) struct Progress {
    what: String,
    start: Instant,
    drawn: Option<Instant>,
    shown: bool,
}

impl Progress {
    /// Begins.
    pub(crate) fn new(what: impl Into<String>) -> Self {
        Self { what: what.into(), start: Instant::now(), drawn: None, shown: io::stderr().is_terminal() }
    }

    /// So much of `all` is done.
    pub(crate) fn done(&mut self, done: u64, all: u64) {
        let spent = self.start.elapsed();
        let line = |what: &str| match left(spent, done, all) {
            Some(left) => format!("{what}: {} %, {} s left", percent(done, all), left.as_secs() + 1),
            None => format!("{what}: {} %", percent(done, all)),
        };
        let line = line(&self.what);
        self.draw(&line);
    }

    /// It ends by then at the latest.
    pub(crate) fn until(&mut self, deadline: Instant) {
        let left = deadline.saturating_duration_since(Instant::now());
        let line = format!("{}: {} s left at most", self.what, left.as_secs() + 1);
        self.draw(&line);
    }

    fn draw(&mut self, line: &str) {
        let due = self.drawn.is_none_or(|at| at.elapsed() >= PROGRESS_EVERY);
        if self.shown && due && self.start.elapsed() >= PROGRESS_AFTER {
            self.drawn = Some(Instant::now());
            // Back to the first column, and the rest of the line cleared; a terminal that is gone is told nothing.
            let _ = write!(io::stderr(), "\r{line}\x1b[K");
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.drawn.is_some() {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}

fn percent(done: u64, all: u64) -> u64 {
    done.saturating_mul(100) / all.max(1)
}

/// Time left if it goes on as fast as so far; none before anything is done.
fn left(spent: Duration, done: u64, all: u64) -> Option<Duration> {
    let share = done as f64 / all.max(1) as f64;
    (done > 0 && done <= all).then(|| spent.mul_f64((1.0 - share) / share))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_left_follows_the_pace_so_far() {
        let ten = Duration::from_secs(10);
        assert_eq!(left(ten, 25, 100), Some(Duration::from_secs(30)));
        assert_eq!(left(ten, 100, 100), Some(Duration::ZERO));
        assert_eq!(left(ten, 0, 100), None);
        assert_eq!((percent(1, 3), percent(0, 0)), (33, 0));
    }

    #[test]
    fn a_test_has_no_terminal_and_gets_no_colour() {
        assert_eq!(painted("ok", Colour::Green), "ok");
        assert_eq!(paint("ok", Colour::Green), "\x1b[32mok\x1b[0m");
    }
}
