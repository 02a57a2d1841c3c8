//! Builds a generation of what a scan found in the log of a damaged one.

use crate::carve::Carving;
use crate::database::Builder;
use crate::envelope::{BODY_BYTES_MAX, Class, Envelope, Form, Key};
use crate::large::LargeFiles;
use crate::staged::{HORIZON, Horizon};
use std::path::Path;
use tidegate_schemas::cbor;

/// Numbers that are left out after damage: the highest ones may be among what was lost, and the cloud may still answer
/// under them.
const NUMBER_GAP: u64 = 1 << 20;

/// Builds generation `number` of the records that a scan found, up to giving it its name. Returns how many there were.
/// Its latest record is after `synced`, so that the next opening misses nothing. An error is one of writing.
pub(crate) fn rebuild(dir: &Path, number: u64, carving: &Carving, rest: (&LargeFiles, u64)) -> Result<u64, String> {
    let (large, synced) = rest;
    let mut builder = Builder::start(dir, number)?;
    let mut horizon = Horizon::START;
    carving.each(|key, record| {
        if key != HORIZON {
            return builder.put(key, record);
        }
        let read = Envelope::decode(&record).and_then(|e| cbor::from_slice(e.body, BODY_BYTES_MAX).ok());
        horizon = read.unwrap_or(horizon);
        Ok(())
    })?;
    let adopted = adopt(carving, large, &mut builder)?;
    let above = |classes: &[Class], next: u64| {
        let of_class = adopted.iter().filter(|key| classes.contains(&key.class)).map(|key| key.job.0 + 1);
        let gap = next.max(of_class.max().unwrap_or(0)).max(carving.highest_of(classes).saturating_add(1));
        gap.saturating_add(NUMBER_GAP)
    };
    let of_jobs = [Class::Attempts, Class::Released, Class::Escalation, Class::Prompt, Class::Outcome];
    horizon.next_job = above(&of_jobs, horizon.next_job);
    horizon.next_forward = above(&[Class::Forward], horizon.next_forward);
    horizon.next_dead = above(&[Class::Dead], horizon.next_dead);
    let seq = carving.highest_seq();
    let body = cbor::to_vec(&horizon);
    builder
        .put(HORIZON, Envelope { key: HORIZON, form: Form::Inline, seq: seq.max(synced) + 1, body: &body }.encode())?;
    builder.finish()?;
    Ok((carving.len() + adopted.len()) as u64)
}

/// Large files whose naming record is lost name themselves.
fn adopt(carving: &Carving, large: &LargeFiles, builder: &mut Builder) -> Result<Vec<Key>, String> {
    let mut adopted = Vec::new();
    for key in large.keys().map_err(|e| e.to_string())?.into_iter().filter(|k| !carving.has(*k)) {
        let file = large.read(key).unwrap_or_default();
        if let Some(found) = Envelope::decode(&file).filter(|e| e.key == key) {
            builder.put(key, Envelope { form: Form::File, body: &[], ..found }.encode())?;
            adopted.push(key);
        }
    }
    Ok(adopted)
}
