//! Builds a generation of what a scan found in the log of a damaged one.
//!
//! A log also holds what was replaced, ended or removed. Of two records of a key the later one counts; an outcome ends
//! its prompt and escalation; the horizon and the chunks of what is gone tell the rest. A record of a job that is older
//! than the job's prompt is of an earlier life of the number: of a group that a power cut undid.

use crate::carve::Carving;
use crate::database::Builder;
use crate::envelope::{BODY_BYTES_MAX, Class, Envelope, Form, Key};
use crate::gone::Gone;
use crate::large::LargeFiles;
use crate::staged::{HORIZON, Horizon};
use crate::witness;
use std::path::Path;
use tidegate_schemas::cbor;

/// Numbers that are left out after damage: the highest ones may be among what was lost, and the cloud may still answer
/// under them.
const NUMBER_GAP: u64 = 1 << 20;

/// Builds generation `number` of the records that a scan found, up to giving it its name. Returns how many there were.
/// Sealed after `synced`, so that the next opening misses nothing. An error is one of writing.
pub(crate) fn rebuild(dir: &Path, number: u64, carving: &Carving, rest: (&LargeFiles, u64)) -> Result<u64, String> {
    let (large, synced) = rest;
    let mut builder = Builder::start(dir, number)?;
    let living = Living::read(carving, large)?;
    let mut records = 0;
    carving.each(
        |key| living.is(key),
        |key, record| {
            records += 1;
            builder.put(key, record)
        },
    )?;
    let adopted = living.adopt(&mut builder)?;
    let above = |classes: &[Class], next: u64| {
        let of_class = adopted.iter().filter(|key| classes.contains(&key.class)).map(|key| key.job.0 + 1);
        let gap = next.max(of_class.max().unwrap_or(0)).max(carving.highest_of(classes).saturating_add(1));
        gap.saturating_add(NUMBER_GAP)
    };
    let of_jobs = [Class::Attempts, Class::Released, Class::Escalation, Class::Prompt, Class::Outcome];
    let mut horizon = living.horizon;
    horizon.next_job = above(&of_jobs, horizon.next_job);
    horizon.next_forward = above(&[Class::Forward], horizon.next_forward);
    horizon.next_dead = above(&[Class::Dead], horizon.next_dead);
    let seq = carving.highest_seq();
    builder.seal(horizon.sealing(witness::seal_after(seq.max(synced))))?;
    builder.finish()?;
    Ok(records + adopted.len() as u64)
}

/// Tells what lives from its shadows.
struct Living<'a> {
    carving: &'a Carving,
    large: &'a LargeFiles,
    horizon: Horizon,
    gone: Gone,
}

impl<'a> Living<'a> {
    fn read(carving: &'a Carving, large: &'a LargeFiles) -> Result<Self, String> {
        let (mut horizon, mut gone) = (Horizon::START, Gone::default());
        let tells = |key: Key| matches!(key.class, Class::Horizon | Class::Gone);
        carving.each(tells, |key, record| {
            let body = Envelope::decode(&record).map_or(&[][..], |envelope| envelope.body);
            if key.class == Class::Gone {
                gone.read(key, body).unwrap_or_default();
            } else {
                horizon = cbor::from_slice(body, BODY_BYTES_MAX).unwrap_or(horizon);
            }
            Ok(())
        })?;
        Ok(Self { carving, large, horizon, gone })
    }

    /// Whether the latest record of a key is part of the new generation. The horizon is written anew.
    fn is(&self, key: Key) -> bool {
        if key == HORIZON || self.horizon.is_over(key) || self.gone.has(key) {
            return false;
        }
        let seq = |class| self.carving.seq(Key::new(class, key.job));
        let (prompt, outcome) = (seq(Class::Prompt), seq(Class::Outcome));
        // Where the outcome cannot be read and the prompt can, the prompt goes on.
        let ended = outcome > prompt && (prompt.is_none() || self.is_readable(Key::new(Class::Outcome, key.job)));
        match key.class {
            Class::Outcome => ended,
            Class::Released => ended && seq(Class::Released) > outcome,
            Class::Prompt => !ended,
            Class::Attempts | Class::Escalation => !ended && seq(key.class) > prompt,
            Class::Forward | Class::Dead | Class::Gone | Class::Horizon => true,
        }
    }

    /// Whether the record of a key leads to its content: only then it ends what it ends.
    fn is_readable(&self, key: Key) -> bool {
        let is_whole = |record: &[u8]| Envelope::decode(record).is_some_and(|e| e.key == key && e.form == Form::Inline);
        match self.carving.form(key) {
            Some(Form::Inline) => true,
            Some(Form::File) => self.large.read(key).is_ok_and(|record| is_whole(&record)),
            None => false,
        }
    }

    /// Large files whose naming record is lost name themselves.
    fn adopt(&self, builder: &mut Builder) -> Result<Vec<Key>, String> {
        let mut adopted = Vec::new();
        let keys = self.large.keys().map_err(|e| e.to_string())?;
        let went = |key: Key| self.horizon.is_over(key) || self.gone.has(key);
        for key in keys.into_iter().filter(|key| !self.carving.has(*key) && !went(*key)) {
            let file = self.large.read(key).unwrap_or_default();
            if let Some(found) = Envelope::decode(&file).filter(|e| e.key == key) {
                builder.put(key, Envelope { form: Form::File, body: &[], ..found }.encode())?;
                adopted.push(key);
            }
        }
        Ok(adopted)
    }
}
