//! Opening: a procedure that ends in a running store.
//!
//! 1. claim the directory, find the generation that counts, remove what interrupted work left;
//! 2. open its database and read every record;
//! 3. if that fails, set the snapshots aside and try again;
//! 4. if that fails, scan its files for records, build a new generation of them, set the damaged one aside;
//! 5. remove what no record names.
//!
//! A disk that is full or refuses writes is no damage: then the opening fails and leaves all as it was.

use crate::database::{Builder, Database};
use crate::directory;
use crate::envelope::{Form, VERSION};
use crate::error::OpenError;
use crate::generation::{self, Current};
use crate::good_time::GoodTime;
use crate::large::LargeFiles;
use crate::limits::Limits;
use crate::load::{Loaded, load};
use crate::places;
use crate::record::{Counts, Recovered};
use crate::salvage;
use crate::space::Space;
use crate::staged::Staged;
use crate::store::Store;
use crate::witness::{self, Before, Synced};
use std::path::Path;

/// A database whose records are read.
struct Opened {
    generation: u64,
    database: Database,
    loaded: Loaded,
}

pub(crate) fn open(dir: &Path, limits: Limits) -> Result<(Store, Recovered), OpenError> {
    let lock = directory::claim(dir)?;
    let space = Space::new(dir, limits.free_bytes_min);
    if let Err(error) = space.proceed() {
        tracing::warn!(%error, "opening the store on a full disk");
    }
    let large = LargeFiles::open(dir).map_err(OpenError::io("cannot prepare", dir))?;
    let generation = counting(dir)?;
    // Before anything of this format is written, so that a version that cannot read it says so.
    generation::upgrade(dir, generation).map_err(OpenError::io("cannot upgrade", dir))?;
    generation::remove_others(dir, generation).map_err(OpenError::io("cannot clear", dir))?;
    let synced = Synced::open(dir).map_err(OpenError::io("cannot prepare", dir))?;
    let before = Before::take(dir, &generation::path(dir, generation).join("db"), space.spare());
    let from = From { dir, large: &large, limits, before: &before, synced: synced.seq() };
    let Opened { generation, database, loaded } = from.generation(generation)?;
    let written = before.written;
    before.discard(dir);
    let Loaded { index, recovered, seq, repairs, horizon, gone } = loaded;
    space.restore_ballast();
    let mut store = Store {
        dir: dir.to_owned(),
        _lock: lock,
        generation,
        database: Some(database),
        opened_bytes: 0,
        large,
        space,
        behind_max: limits.behind_max.max(1),
        synced,
        index,
        seq: witness::end_of_group(seq.max(written)),
        good_time: GoodTime::open(dir),
        horizon,
        gone,
        tally: Counts::default(),
    };
    // A group that was cut off is left behind by one that is whole: the witnesses allow for one unfinished group.
    if !repairs.is_empty() || written > seq {
        store.commit(Staged::repairs(repairs)).map(drop).map_err(refused(dir, generation))?;
    }
    remove_orphans(&store);
    Ok((store, recovered))
}

/// The generation that counts; a new store gets its first.
fn counting(dir: &Path) -> Result<u64, OpenError> {
    match generation::current(dir).map_err(OpenError::io("cannot read", dir))? {
        Current::Generation(number) => Ok(number),
        Current::Newer(found) => Err(OpenError::Format { path: dir.to_owned(), found, known: VERSION.into() }),
        Current::None => {
            let first = Builder::start(dir, 1).and_then(Builder::finish);
            first.map_err(refused(dir, 1))?;
            generation::finish(dir, 1).map_err(OpenError::io("cannot create", dir))?;
            Ok(1)
        }
    }
}

/// What an opening works with.
struct From<'a> {
    dir: &'a Path,
    large: &'a LargeFiles,
    limits: Limits,
    before: &'a Before,
    /// The last sequence number known to be synced.
    synced: u64,
}

impl From<'_> {
    fn generation(&self, number: u64) -> Result<Opened, OpenError> {
        let path = generation::path(self.dir, number);
        let first = match self.attempt(&path) {
            Ok((database, loaded)) => return Ok(Opened { generation: number, database, loaded }),
            Err(why) => why,
        };
        tracing::error!(why = %first, "the store is damaged, trying without its snapshots");
        if places::set_snapshots_aside(&path).map_err(OpenError::io("cannot set snapshots aside in", &path))? {
            match self.attempt(&path) {
                Ok((database, loaded)) => return Ok(Opened { generation: number, database, loaded }),
                Err(why) => tracing::error!(%why, "the store is damaged beyond its snapshots"),
            }
        }
        self.start_anew(number)
    }

    /// Builds a new generation of what can be read of a damaged one, and sets that aside.
    fn start_anew(&self, damaged: u64) -> Result<Opened, OpenError> {
        let (dir, number) = (self.dir, damaged + 1);
        let salvaged =
            salvage::rebuild(dir, number, &self.before.carve(), (self.large, self.synced.max(self.before.written)));
        let salvaged = salvaged.map_err(refused(dir, number))?;
        generation::finish(dir, number).map_err(OpenError::io("cannot create", dir))?;
        let quarantined = generation::quarantine(dir, damaged).map_err(OpenError::io("cannot set aside in", dir))?;
        let (database, mut loaded) = self.attempt(&generation::path(dir, number)).map_err(refused(dir, number))?;
        tracing::error!(records = salvaged, unreadable = loaded.recovered.unreadable,
            quarantined = %quarantined.display(), "the store was damaged: what could be read was kept");
        loaded.recovered.salvaged = salvaged;
        loaded.recovered.quarantined = Some(quarantined);
        Ok(Opened { generation: number, database, loaded })
    }

    /// Opens and reads a database; one that lacks what was synced is damaged.
    fn attempt(&self, path: &Path) -> Result<(Database, Loaded), String> {
        let database = Database::open(path)?;
        let loaded = load(&database, self.large, self.limits).and_then(|loaded| {
            let lost = self.before.tells_of_loss(loaded.seq, self.synced);
            if lost { Err("changes that were synced are missing".to_owned()) } else { Ok(loaded) }
        });
        match loaded {
            Ok(loaded) => Ok((database, loaded)),
            Err(why) => {
                database.close();
                Err(why)
            }
        }
    }
}

fn refused(dir: &Path, number: u64) -> impl FnOnce(String) -> OpenError {
    let path = generation::path(dir, number);
    move |what| OpenError::Database { path, what }
}

/// Removes large records that nothing names: their change was never answered, or their removal was interrupted.
fn remove_orphans(store: &Store) {
    let keys = match store.large.keys() {
        Ok(keys) => keys,
        Err(error) => return tracing::warn!(%error, "large records could not be listed"),
    };
    for key in keys {
        if store.index.form(key) != Some(Form::File) {
            store.large.remove(key);
        }
    }
}
