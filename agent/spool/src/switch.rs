//! The switch to a new generation, when the file has grown too large for what lives in it. At each step one of the two
//! is whole and counts: see [`crate::generation`].

use crate::database::Database;
use crate::generation;
use crate::gone::Gone;
use crate::staged::Horizon;
use crate::store::Store;
use crate::witness;

/// A smaller file is not worth a new generation, in bytes.
const WORN_BYTES_MIN: u64 = 32 << 20;
/// How much larger than what lives in it a file may be.
const WORN_RATIO: u64 = 4;

impl Store {
    /// Whether the file is much larger than what lives in it, and than it was when it was new.
    pub(crate) fn is_worn(&self) -> bool {
        let bytes = self.database.as_ref().map_or(0, Database::file_bytes);
        bytes > WORN_BYTES_MIN && bytes > WORN_RATIO * self.index.live_bytes() && bytes > 2 * self.opened_bytes
    }

    /// Copies what lives into a new generation and makes it the current one. A failure before the switch leaves the
    /// old one as it was; an error is one after which neither is open.
    pub(crate) fn switch_generation(&mut self) -> Result<(), String> {
        let next = self.generation + 1;
        let bytes = self.database()?.file_bytes();
        // Whatever happens, not again before the file has doubled.
        self.opened_bytes = bytes;
        let horizon = Horizon::of(&self.index);
        let sealed = witness::seal_after(self.seq);
        if let Err(why) = self.database()?.copy_to(&self.dir, next, horizon.sealing(sealed)) {
            tracing::warn!(%why, "the new generation could not be built, the old one stays");
            let _ = generation::building(&self.dir, next);
            return Ok(());
        }
        if let Some(old) = self.database.take() {
            old.close();
        }
        // A large record that went must not come back with a power cut: the new generation does not know that it went.
        self.large.sync().map_err(|e| format!("generation switch: {e}"))?;
        generation::finish(&self.dir, next).map_err(|e| format!("generation switch: {e}"))?;
        let database = Database::open(&generation::path(&self.dir, next))?;
        self.opened_bytes = database.file_bytes();
        self.database = Some(database);
        self.gone = Gone::default();
        (self.horizon, self.seq) = (horizon, witness::end_of_group(sealed));
        self.synced.note(sealed);
        self.generation = next;
        self.tally.switches += 1;
        generation::remove_others(&self.dir, next).map_err(|e| format!("generation switch: {e}"))?;
        tracing::info!(generation = next, from_bytes = bytes, to_bytes = self.opened_bytes, "new generation");
        Ok(())
    }
}
