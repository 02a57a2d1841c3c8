//! What is there already is taken before anything is waited for or written: twenty acknowledgements that came together
//! leave together, in one write and not in twenty.

use super::{Connection, End, Happening};
use futures_util::FutureExt;
use futures_util::stream::StreamExt;

/// What is put together for one write, in bytes: far below what makes a client count as slow.
const BATCH_BYTES: usize = 32 * 1024;

impl Connection {
    /// Settles what is decided and takes what the backend has brought, without waiting. Says whether there was anything:
    /// then there may be room for more of what the client sent.
    pub(super) fn catch_up(&mut self) -> Result<bool, End> {
        let mut any = false;
        while self.out.len() < BATCH_BYTES {
            let happening = if let Some(Some(settled)) = self.settling.next().now_or_never() {
                Happening::Settled(settled)
            } else if let Some(arrival) = self.general.ready(self.general_appetite()) {
                Happening::Arrival(arrival)
            } else {
                return Ok(any);
            };
            self.happened(happening)?;
            any = true;
        }
        // What is left comes after the write that is due now.
        Ok(false)
    }
}
