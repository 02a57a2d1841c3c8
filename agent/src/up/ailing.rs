//! What ails the machine under the gateway, and how it goes on: a disk that became read-only, a clock that stands before
//! this program was built.
//!
//! Invariant: while the disk takes no writes nothing is acknowledged and nothing that was accepted is given up; once it
//! takes them again the process ends, because only a start reads what is on the disk.

use super::hub::Hub;
use crate::failure::Failure;
use crate::trusted_time;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::time::Instant;
use tidegate_spool::{BUILD_DATE_MS, SpoolError};
use tracing::{error, info, warn};

/// What ails it now.
#[derive(Debug, Default)]
pub(super) struct Ailing {
    /// Since when the disk is read-only, if it is.
    read_only: Option<Instant>,
    /// What is wrong with the clock, in words.
    clock: Option<String>,
}

impl Ailing {
    /// Whether the disk became read-only.
    pub(super) fn is_read_only(&self) -> bool {
        self.read_only.is_some()
    }

    /// What is wrong, one sentence each.
    pub(super) fn faults(&self) -> impl Iterator<Item = String> + '_ {
        let disk = self.read_only.map(|since| disk_words(since.elapsed().as_secs()));
        disk.into_iter().chain(self.clock.clone())
    }
}

/// What is said of a disk that became read-only so many seconds ago.
pub(super) fn disk_words(since_s: u64) -> String {
    format!(
        "the disk is read-only since {since_s} s: new prompts are refused, what was accepted waits; look at `dmesg`, \
         then remount it writable, or stop the gateway, mend the disk (fsck) and start again"
    )
}

impl Hub {
    /// The store cannot go on. True if that is because the disk became read-only: then the gateway stays, to say so and
    /// to refuse in words, until the disk takes writes again.
    pub(super) fn endures(&mut self, poisoned: &SpoolError) -> bool {
        if self.view.ailing.is_read_only() {
            return true;
        }
        if !matches!(poisoned, SpoolError::Poisoned(_)) || !refuses_writes(&self.view.data_dir) {
            return false;
        }
        error!(%poisoned, dir = %self.view.data_dir.display(), "the disk became read-only: prompts are refused until it takes writes");
        self.view.ailing.read_only = Some(Instant::now());
        self.announce("disk", "the disk became read-only: prompts are refused".to_owned());
        self.tell();
        true
    }

    /// Looks at clock and disk, now and then.
    pub(super) fn look_at_machine(&mut self) {
        trusted_time::look();
        let clock = clock_fault(trusted_time::system_ms());
        if clock.is_some() != self.view.ailing.clock.is_some() {
            match &clock {
                Some(message) => {
                    warn!(kind = "clock", %message, "announced");
                    self.announce("clock", message.clone());
                }
                None => info!("the clock was set"),
            }
        }
        self.view.ailing.clock = clock;
        if self.view.ailing.is_read_only() && !refuses_writes(&self.view.data_dir) {
            self.fail(
                Failure::storage("the disk takes writes again, the store must be opened anew")
                    .next("start the gateway again, as systemd does by itself"),
            );
        }
    }
}

/// Whether nothing can be written there because the file system is read-only. The flags of a mount do not always tell it:
/// ext4 that stopped after an error keeps them (Linux 6.15 and later).
fn refuses_writes(dir: &Path) -> bool {
    let probe = dir.join(".writable");
    match fs::File::create(&probe) {
        Ok(_) => fs::remove_file(probe).is_err_and(|error| error.kind() == ErrorKind::ReadOnlyFilesystem),
        Err(error) => error.kind() == ErrorKind::ReadOnlyFilesystem,
    }
}

/// What is wrong with a clock that shows this many milliseconds since 1970.
fn clock_fault(system_ms: u64) -> Option<String> {
    let until = crate::expiry::Until(i64::try_from(system_ms).unwrap_or(i64::MAX));
    (system_ms < BUILD_DATE_MS).then(|| {
        format!(
            "the clock stands at {until}, before this program was built: certificates are judged by the last time that was \
             known, and what waits ages only while the machine is up; set the clock"
        )
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_before_the_build_is_a_fault() {
        let words = clock_fault(86_400_000).unwrap();
        assert!(words.starts_with("the clock stands at 1970-01-02, before"), "{words}");
        assert_eq!(clock_fault(BUILD_DATE_MS), None);
    }

    #[test]
    fn a_folder_that_takes_files_is_not_read_only_and_keeps_none() {
        let dir = tempfile::tempdir().unwrap();
        assert!(!refuses_writes(dir.path()));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        assert!(!refuses_writes(&dir.path().join("nowhere")), "what is gone is another fault");
    }
}
