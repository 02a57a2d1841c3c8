//! Another model takes over: what the old one writes is judged as its own, and dies with it alone.

use crate::harness::{Life, answer, kept, prompt, runs};
use std::collections::BTreeMap;
use tidegate_core::{Calibration, Command, Event, Limits, Note};
use tidegate_schemas::{Body, Encoding, JobId, Prompt, Reason, ResolvedOutcome};

/// One whose new model is sure of everything at 0.3 where the old one is taken as it is.
fn replaced(life: &mut Life) -> Vec<Command> {
    let sure = Calibration::new(vec![(0.0, 0.9), (1.0, 0.99)]).unwrap();
    let known = Box::new(BTreeMap::from([("open".parse().unwrap(), sure.into())]));
    life.feed(Event::EngineReplaced { model: "other".parse().unwrap(), known })
}

fn second(life: &mut Life) -> (JobId, Vec<Command>) {
    let job = life.send(Prompt::bare("another"), Encoding::Json).iter().find_map(kept).unwrap();
    (job, life.feed(Event::Kept(job)))
}

#[test]
fn both_models_write_for_a_while_and_each_is_judged_as_itself() {
    let mut life = Life::with(Limits { slots: 2, ..Limits::default() }).up();
    let (old, _) = life.accept(prompt());
    assert!(replaced(&mut life).is_empty(), "what runs goes on");
    let (new, commands) = second(&mut life);
    assert_eq!(runs(&commands), Some(1), "the other slot is the new model's at once");
    let answer_of_new = answer(&life.complete(new, 0.3));
    assert_eq!((answer_of_new.model.as_str(), answer_of_new.reason), ("other", Reason::Confident));
    let commands = life.complete(old, 0.3);
    let judged = commands.iter().find_map(|c| match c {
        Command::Note(Note::Judged { judgement, .. }) => Some(judgement.confidence.get()),
        _ => None,
    });
    assert!(judged.is_some_and(|confidence| (confidence - 0.3).abs() < 1e-9), "{judged:?}");
}

#[test]
fn the_cloud_teaches_nothing_about_the_model_that_is_gone() {
    let mut life = Life::new().up();
    let (job, _) = life.accept(prompt());
    life.complete(job, 0.3);
    life.feed(Event::EscalationKept(job));
    life.feed(Event::EscalationSent { job, attempt: 1 });
    replaced(&mut life);
    let commands = life.resolve(job, ResolvedOutcome::Answer(Body::Text("off".into())));
    assert!(!commands.iter().any(|c| matches!(c, Command::Note(Note::Labelled { .. }))), "{commands:?}");
    assert_eq!(answer(&commands).reason, Reason::CloudAnswered);
}

#[test]
fn each_engine_takes_only_its_own_runs_with_it() {
    let mut life = Life::with(Limits { slots: 2, ..Limits::default() }).up();
    let (old, _) = life.accept(prompt());
    replaced(&mut life);
    let (new, _) = second(&mut life);
    let suspects = |commands: &[Command]| -> Vec<JobId> {
        let job = |c: &Command| if let Command::Note(Note::Suspect { job, .. }) = c { Some(*job) } else { None };
        commands.iter().filter_map(job).collect()
    };
    assert_eq!(suspects(&life.feed(Event::OldEngineGone)), [old]);
    assert_eq!(answer(&life.complete(new, 0.9)).model.as_str(), "other", "the new one went on");
    assert_eq!(runs(&life.feed(Event::AttemptMarked(old))), Some(2), "and takes what the old one left, alone");
    assert_eq!(suspects(&life.feed(Event::EngineGone)), [old]);
}
