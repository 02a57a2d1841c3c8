//! Time as the core sees it: milliseconds on the gateway's own timeline, given by the shell.

/// A moment on the gateway's timeline, in milliseconds. The shell feeds it from `CLOCK_BOOTTIME` plus an offset that
/// leaves room for prompts older than this boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Now(pub u64);

impl Now {
    /// Milliseconds from `earlier` to this moment, zero if it is later.
    #[must_use]
    pub fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// The moment `ms` milliseconds later.
    #[must_use]
    pub fn after(self, ms: u64) -> Self {
        Self(self.0.saturating_add(ms))
    }
}
