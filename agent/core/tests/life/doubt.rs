//! What becomes of doubt: worth a hop or not, replaced or not, given up while it is written, looked at by lot.

use crate::harness::{Life, answer, deadline, escalates, prompt, published, runs};
use tidegate_core::early::Trail;
use tidegate_core::gain::Gain;
use tidegate_core::knowledge::{Evidence, Knowledge};
use tidegate_core::strain::Condition;
use tidegate_core::{Calibration, Command, EngineFault, Event, Keep, Learning, Limits, Note};
use tidegate_schemas::{Body, JobId, Prompt, Reason, ResolvedOutcome, Route};

const KEEP: Keep = Keep::Threshold(0.8);
const LEARN: Learning = Learning::On { audit_share: 0.0 };

fn plain() -> Knowledge {
    Calibration::identity().into()
}

/// Enough kept answers for a floor: their log-probabilities add up to -0.2, of which the first token is half.
fn with_floor() -> Knowledge {
    let trail = Trail::of(&[-0.1, -0.1], -0.2);
    let one = |i: usize| Evidence { confidence: 0.9, right: !i.is_multiple_of(20), trail };
    Knowledge::new(Calibration::identity(), (0..1_000).map(one).collect(), Gain::default())
}

fn says(text: &str) -> ResolvedOutcome {
    ResolvedOutcome::Answer(Body::Text(text.into()))
}

/// A round trip of 100 ms, so that the gateway knows what one takes.
fn one_resolution(life: &mut Life) {
    let (job, _) = life.accept(Prompt::bare("first"));
    life.complete(job, 0.1);
    life.feed(Event::EscalationKept(job));
    life.feed(Event::EscalationSent { job, attempt: 1 });
    life.now = life.now.after(100);
    life.resolve(job, says("off"));
    life.feed(Event::Concluded(job));
}

#[test]
fn a_resolution_that_is_less_sure_does_not_replace_our_answer() {
    let mut life = Life::knowing(plain(), KEEP, LEARN).up();
    let (job, _) = life.accept(prompt());
    life.complete(job, 0.7);
    life.feed(Event::EscalationKept(job));
    let kept = answer(&life.resolve_as(job, says("off"), 0.5));
    assert_eq!((kept.route, kept.reason, kept.provisional), (Route::Local, Reason::CloudLessSure, false));
}

#[test]
fn a_hop_without_net_gain_is_not_taken() {
    let useless = Gain::measured(&vec![(false, false); 2_000]);
    let known = Knowledge::new(Calibration::identity(), Vec::new(), useless);
    let mut life = Life::knowing(known, KEEP, LEARN).up();
    let (job, _) = life.accept(prompt());
    let commands = life.complete(job, 0.5);
    assert_eq!(escalates(&commands), None);
    assert_eq!(answer(&commands).reason, Reason::CloudLessSure);
}

#[test]
fn a_promise_that_nothing_supports_escalates_everything() {
    let keep = Keep::WrongAtMost { level: 0.05, sure: 0.95 };
    let mut life = Life::knowing(plain(), keep, LEARN).up();
    assert_eq!(life.core.unsupported().len(), 2);
    let (job, _) = life.accept(prompt());
    assert_eq!(escalates(&life.complete(job, 0.999)), Some(Reason::LowConfidence));
}

#[test]
fn a_hopeless_answer_is_given_up_and_runs_here_when_the_cloud_is_no_help() {
    let mut life = Life::knowing(with_floor(), KEEP, LEARN).up();
    let (before, commands) = life.accept(Prompt::bare("zeroth"));
    assert!(floor(&commands).is_none(), "nobody knows yet what the cloud takes");
    life.complete(before, 0.95);
    life.feed(Event::Concluded(before));
    one_resolution(&mut life);
    let (job, commands) = life.accept(prompt());
    let floor = floor(&commands).expect("no floor");
    assert!((floor.sums[0] + 0.1).abs() < 1e-6 && (floor.sums[1] + 0.2).abs() < 1e-6, "{floor:?}");
    let fault = EngineFault::Hopeless { tokens: 3 };
    assert_eq!(escalates(&life.feed(Event::InferenceFailed { job, fault })), Some(Reason::LowConfidence));
    let commands = life.feed(Event::EscalationKept(job));
    assert!(published(&commands).is_some_and(|e| e.draft.is_none() && e.confidence.is_none()));
    let marks = life.feed(Event::LinkDown);
    assert!(matches!(&marks[..], [Command::MarkAttempt { attempt: 2, .. }]), "{marks:?}");
    let commands = life.feed(Event::AttemptMarked(job));
    assert_eq!(runs(&commands), Some(2));
    assert!(self::floor(&commands).is_none(), "it was given up once already");
}

#[test]
fn nothing_is_given_up_without_time_to_run_it_after_all() {
    let mut life = Life::knowing(with_floor(), KEEP, LEARN).up();
    one_resolution(&mut life);
    assert!(floor(&life.accept(deadline(300)).1).is_none());
}

/// The first of some sure answers that is audited: under a half of those at 0.95 are.
fn audited(life: &mut Life) -> JobId {
    let found = (0..64).find_map(|number| {
        let (job, _) = life.accept(Prompt::bare(&format!("prompt {number}")));
        let reason = escalates(&life.complete(job, 0.95));
        if reason.is_none() {
            life.feed(Event::Concluded(job));
        }
        reason.map(|reason| (job, reason))
    });
    let (job, reason) = found.expect("none of 64 was audited");
    assert_eq!(reason, Reason::Confident);
    job
}

#[test]
fn audits_are_of_answers_that_may_leave_only() {
    let learning = Learning::On { audit_share: 1.0 };
    let mut life = Life::knowing(plain(), KEEP, learning).up();
    let job = audited(&mut life);
    life.feed(Event::EscalationKept(job));
    life.feed(Event::EscalationSent { job, attempt: 1 });
    let labels = life.resolve(job, says("off"));
    assert!(labels.iter().any(|c| matches!(c, Command::Note(Note::Labelled { agree: false, .. }))), "{labels:?}");
    life.feed(Event::Concluded(job));
    let closed = Prompt { task: Some("closed".parse().unwrap()), ..Prompt::bare("mine") };
    let (private, _) = life.accept(closed);
    let commands = life.complete(private, 0.95);
    assert_eq!((escalates(&commands), answer(&commands).reason), (None, Reason::Confident));
    let local = Prompt { local: true, ..Prompt::bare("mine too") };
    life.feed(Event::Concluded(private));
    let (local, _) = life.accept(local);
    assert_eq!(escalates(&life.complete(local, 0.95)), None);
}

#[test]
fn what_the_cloud_says_is_learned_and_told() {
    let mut life = Life::knowing(plain(), KEEP, LEARN).up();
    one_resolution(&mut life);
    let (learner, gain) = life.core.learned()[&"open".parse().unwrap()];
    assert_eq!(learner.labels(), 1);
    assert_ne!(gain, Gain::default());
    assert_eq!(life.core.load().labels, 1);
    let judged = |c: &Command| matches!(c, Command::Note(Note::Judged { job, .. }) if *job == JobId(2));
    let (job, _) = life.accept(prompt());
    assert_eq!(job, JobId(2));
    assert!(life.complete(job, 0.9).iter().any(judged));
}

fn floor(commands: &[Command]) -> Option<tidegate_core::early::Floor> {
    commands.iter().find_map(|c| if let Command::Infer(inference) = c { inference.floor } else { None })
}

#[test]
fn what_may_be_mended_is_weighed_against_a_price_that_follows_the_budget() {
    let limits = Limits { slots: 1, escalations_per_hour: Some(2), ..Limits::default() };
    let mut life = Life::with(limits).up();
    let (job, _) = life.accept(Prompt::bare("first"));
    assert!(escalates(&life.complete(job, 0.5)).is_some());
    let (job, _) = life.accept(Prompt::bare("second"));
    let commands = life.complete(job, 0.5);
    assert_eq!(escalates(&commands), None);
    assert_eq!(answer(&commands).reason, Reason::TooDear);
    life.wait(3_600_000);
    let (job, _) = life.accept(Prompt::bare("third"));
    assert!(escalates(&life.complete(job, 0.5)).is_some());
}

#[test]
fn a_strained_machine_gives_prompts_away_until_it_has_cooled() {
    let mut life = Life::new().up();
    let at = |celsius: f64| Event::Machine(Condition { celsius: Some(celsius), ..Condition::default() });
    life.feed(at(85.0));
    let (_, commands) = life.accept(Prompt::bare("first"));
    assert_eq!(escalates(&commands), Some(Reason::Strained));
    life.feed(at(60.0));
    let (_, commands) = life.accept(Prompt::bare("second"));
    assert_eq!(escalates(&commands), None);
}
