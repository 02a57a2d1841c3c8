//! One prompt at a time through the dispatcher: what a device and an operator can rely on, step by step.

#![allow(clippy::unwrap_used)]

mod doubt;
mod harness;
mod replaced;

use harness::{Life, answer, code, deadline, escalates, kept, outcome, prompt, published, refused, runs};
use std::sync::Arc;
use tidegate_core::{Command, Dead, EngineFault, Event, Limits, Now, OperatorDrop, Restored, SeenFinal, Whereabouts};
use tidegate_schemas::{
    Body, ContentHash, ControlOp, Encoding, ErrorCode, Frame, JobId, Prompt, Reason, ResolvedOutcome, Route,
};

#[test]
fn a_confident_answer_is_final_and_tells_where_the_time_went() {
    let mut life = Life::new().up();
    let (job, commands) = life.accept(prompt());
    assert!(matches!(&commands[0], Command::Acknowledge { frame: Some(Frame::Accepted(_)), .. }));
    assert_eq!(runs(&commands), Some(1));
    life.now = life.now.after(150);
    let answer = answer(&life.complete(job, 0.9));
    assert_eq!((answer.route, answer.reason, answer.provisional), (Route::Local, Reason::Confident, false));
    assert_eq!((answer.timing.queued_ms, answer.timing.decode_ms, answer.timing.total_ms), (0, 100, 150));
    let delivered = life.feed(Event::Concluded(job));
    assert!(matches!(&delivered[..], [Command::Deliver { .. }]), "{delivered:?}");
    assert_eq!((life.core.load().answered_local, life.core.load().inbox_entries), (1, 0));
}

#[test]
fn a_doubtful_answer_is_provisional_until_the_cloud_answers() {
    let mut life = Life::new().up();
    let (job, _) = life.accept(prompt());
    let commands = life.complete(job, 0.3);
    assert_eq!(escalates(&commands), Some(Reason::LowConfidence));
    let commands = life.feed(Event::EscalationKept(job));
    assert!(
        matches!(&commands[0], Command::Send { frame, .. } if matches!(&**frame, Frame::Answer(a) if a.provisional))
    );
    let escalation = published(&commands).unwrap();
    assert_eq!((escalation.attempt, escalation.confidence.map(|c| (c * 10.0).round())), (1, Some(3.0)));
    life.feed(Event::EscalationSent { job, attempt: 1 });
    let answer = answer(&life.resolve(job, ResolvedOutcome::Answer(Body::Text("off".into()))));
    assert_eq!((answer.route, answer.reason, answer.provisional), (Route::Cloud, Reason::CloudAnswered, false));
    let again = life.resolve(job, ResolvedOutcome::Answer(Body::Text("off".into())));
    assert!(matches!(&again[..], [Command::Note(_)]), "a second resolution did {again:?}");
}

#[test]
fn without_a_link_an_escalation_waits_and_local_answers_go_on() {
    let mut life = Life::new().up();
    life.feed(Event::LinkDown);
    let (first, _) = life.accept(prompt());
    life.complete(first, 0.3);
    assert!(published(&life.feed(Event::EscalationKept(first))).is_none());
    let (second, _) = life.accept(Prompt::bare("another"));
    assert_eq!(answer(&life.complete(second, 0.9)).reason, Reason::Confident);
    life.now = life.now.after(600_000);
    assert!(published(&life.feed(Event::LinkUp)).is_some(), "it did not drain at once");
}

#[test]
fn silence_until_the_deadline_confirms_the_provisional_answer() {
    let mut life = Life::new().up();
    let (job, _) = life.accept(deadline(20_000));
    life.complete(job, 0.3);
    life.feed(Event::EscalationKept(job));
    life.feed(Event::EscalationSent { job, attempt: 1 });
    assert_eq!(life.core.next_deadline(), Some(Now(30_000)));
    let answer = answer(&life.wait(20_000));
    assert_eq!((answer.route, answer.reason, answer.provisional), (Route::Local, Reason::CloudSilent, false));
}

#[test]
fn a_lease_without_resolution_publishes_again_with_the_next_number() {
    let mut life = Life::new().up();
    let (job, _) = life.accept(prompt());
    life.complete(job, 0.3);
    life.feed(Event::EscalationKept(job));
    for attempt in 1..=3 {
        life.feed(Event::EscalationSent { job, attempt });
        assert_eq!(published(&life.wait(30_000)).unwrap().attempt, attempt + 1);
    }
    life.feed(Event::EscalationSent { job, attempt: 4 });
    assert_eq!(answer(&life.wait(30_000)).reason, Reason::CloudSilent);
}

#[test]
fn a_prompt_that_would_be_late_goes_to_the_cloud_unrun() {
    let mut life = Life::new().up();
    let (job, _) = life.accept(Prompt::bare("measures the engine"));
    life.complete(job, 0.9);
    life.feed(Event::Concluded(job));
    let (_, commands) = life.accept(Prompt::bare("runs"));
    assert_eq!(runs(&commands), Some(1));
    let (_, commands) = life.accept(deadline(50));
    assert_eq!(escalates(&commands), Some(Reason::TooSlow));
    let (_, commands) = life.accept(Prompt { id: None, local: true, ..deadline(50) });
    assert_eq!(escalates(&commands), None, "a local prompt was escalated");
}

#[test]
fn a_deadline_that_passes_ends_waiting_and_running_prompts() {
    let mut life = Life::new().up();
    life.feed(Event::LinkDown);
    let (running, _) = life.accept(deadline(5_000));
    let (waiting, _) = life.accept(Prompt { id: None, ..deadline(5_000) });
    let commands = life.wait(5_000);
    let ended = |job: JobId| commands.iter().any(|c| matches!(c, Command::Conclude { job: j, .. } if *j == job));
    assert!(ended(running) && ended(waiting), "{commands:?}");
    assert_eq!(code(&commands), ErrorCode::Expired);
    assert!(commands.iter().any(|c| matches!(c, Command::Abort(job) if *job == running)));
    assert!(life.core.load().running == 1, "the slot is free before the engine stopped");
    life.feed(Event::InferenceFailed { job: running, fault: EngineFault::Aborted });
    assert_eq!(life.core.load().running, 0);
}

#[test]
fn a_full_outbox_makes_the_local_answer_final() {
    let mut life = Life::with(Limits { outbox_entries_max: 0, ..Limits::default() }).up();
    let (job, _) = life.accept(prompt());
    assert_eq!(answer(&life.complete(job, 0.3)).reason, Reason::OutboxFull);
}

#[test]
fn a_local_only_answer_is_final_whatever_its_confidence() {
    let mut life = Life::new().up();
    let (job, _) = life.accept(Prompt { task: Some("closed".parse().unwrap()), ..prompt() });
    assert_eq!(answer(&life.complete(job, 0.1)).reason, Reason::LocalOnly);
}

#[test]
fn without_an_answer_here_or_there_the_error_names_the_fact() {
    let check = |fault: EngineFault, expect: ErrorCode, words: &str| {
        let mut life = Life::new().up();
        let (job, _) = life.accept(Prompt { local: true, ..prompt() });
        let commands = life.feed(Event::InferenceFailed { job, fault });
        let Frame::Error(error) = outcome(&commands) else { panic!("no error") };
        assert_eq!(error.code, expect);
        assert!(error.message.contains(words), "{}", error.message);
    };
    check(EngineFault::Cut, ErrorCode::Cut, "64 tokens");
    check(
        EngineFault::TooLong { tokens: 3_000, context_tokens: 1_024 },
        ErrorCode::TooLarge,
        "3000 tokens, context window is 1024",
    );
    check(EngineFault::Other("no memory".to_owned()), ErrorCode::Unresolved, "no memory");
}

#[test]
fn tokens_are_numbered_per_attempt() {
    let mut life = Life::new().up();
    let (job, _) = life.accept(Prompt { stream: true, ..prompt() });
    let token = |life: &mut Life| {
        let commands = life.feed(Event::Token { job, text: "on".into() });
        let [Command::Send { frame, .. }] = &commands[..] else { panic!("{commands:?}") };
        let Frame::Token(token) = &**frame else { panic!("{frame:?}") };
        (token.attempt, token.seq)
    };
    assert_eq!((token(&mut life), token(&mut life)), ((1, 0), (1, 1)));
    life.feed(Event::EngineGone);
    let commands = life.feed(Event::EngineReady { model: "edge".parse().unwrap(), context_tokens: 1024 });
    assert!(matches!(&commands[..], [Command::MarkAttempt { attempt: 2, .. }]), "{commands:?}");
    assert_eq!(runs(&life.feed(Event::AttemptMarked(job))), Some(2));
    assert_eq!(token(&mut life), (2, 0));
}

fn dead(commands: &[Command]) -> Option<Dead> {
    commands.iter().find_map(|c| if let Command::Conclude { dead, .. } = c { dead.clone() } else { None })
}

#[test]
fn what_crashed_the_engine_again_when_it_ran_alone_is_a_dead_letter() {
    let ready = || Event::EngineReady { model: "edge".parse().unwrap(), context_tokens: 1024 };
    let mut life = Life::new().up();
    let (job, _) = life.accept(Prompt { local: true, ..prompt() });
    assert_eq!(dead(&life.feed(Event::EngineGone)), None, "one crash proves nothing");
    life.feed(ready());
    life.feed(Event::AttemptMarked(job));
    let commands = life.feed(Event::EngineGone);
    assert_eq!((code(&commands), dead(&commands)), (ErrorCode::Dead, Some(Dead::CrashedEngine { runs: 2 })));
    life.feed(Event::Concluded(job));
    life.feed(ready());
    let (next, commands) = life.accept(Prompt::bare("the next one flows"));
    assert_eq!(runs(&commands), Some(1));
    let commands = life.complete(next, 0.9);
    assert_eq!((answer(&commands).route, dead(&commands)), (Route::Local, None));
}

#[test]
fn what_the_broker_refuses_for_good_is_a_dead_letter_and_the_local_answer_is_final() {
    let mut life = Life::new().up();
    let (job, _) = life.accept(prompt());
    life.complete(job, 0.3);
    life.feed(Event::EscalationKept(job));
    let refused = |attempt| Event::EscalationRefused { job, attempt, by: "0x90".to_owned() };
    let commands = life.feed(refused(1));
    assert_eq!(answer(&commands).reason, Reason::CloudSilent);
    assert_eq!(dead(&commands), Some(Dead::Refused { by: "0x90".to_owned() }));
}

#[test]
fn an_operator_ends_a_prompt_or_its_wait_for_the_cloud() {
    let mut life = Life::new().up();
    let (escalated, _) = life.accept(prompt());
    life.complete(escalated, 0.3);
    life.feed(Event::EscalationKept(escalated));
    let (running, _) = life.accept(Prompt::bare("runs"));
    assert!(life.feed(Event::Dropped(running, OperatorDrop::Escalation)).is_empty(), "it has none");
    let commands = life.feed(Event::Dropped(escalated, OperatorDrop::Escalation));
    assert_eq!((answer(&commands).route, dead(&commands)), (Route::Local, None));
    assert_eq!(code(&life.feed(Event::Dropped(running, OperatorDrop::Prompt))), ErrorCode::Cancelled);
}

#[test]
fn bare_text_gets_no_frame_but_the_outcome() {
    let mut life = Life::new().up();
    let job =
        life.send(Prompt { stream: true, ..Prompt::bare("hello") }, Encoding::Text).iter().find_map(kept).unwrap();
    let commands = life.feed(Event::Kept(job));
    assert!(matches!(&commands[0], Command::Acknowledge { frame: None, .. }));
    assert!(life.feed(Event::Token { job, text: "on".into() }).is_empty());
    life.complete(job, 0.3);
    let commands = life.feed(Event::EscalationKept(job));
    assert!(!commands.iter().any(|c| matches!(c, Command::Send { .. })), "{commands:?}");
}

#[test]
fn a_repeat_is_acknowledged_with_the_first_and_later_gets_the_stored_outcome() {
    let mut life = Life::new().up();
    let other = || Prompt { id: prompt().id, ..Prompt::bare("lights off") };
    let job = life.send(prompt(), Encoding::Json).iter().find_map(kept).unwrap();
    assert!(life.send(prompt(), Encoding::Json).is_empty(), "acknowledged before it was kept");
    assert_eq!(refused(&life.send(other(), Encoding::Json)), ErrorCode::IdReused);
    let commands = life.feed(Event::Kept(job));
    assert_eq!(commands.iter().filter(|c| matches!(c, Command::Acknowledge { .. })).count(), 2);
    assert!(matches!(&life.send(prompt(), Encoding::Json)[..], [Command::Acknowledge { frame: Some(_), .. }]));
    life.complete(job, 0.9);
    life.feed(Event::Concluded(job));
    assert!(
        matches!(&life.send(prompt(), Encoding::Json)[..], [Command::SendStored { job: stored, .. }] if *stored == job)
    );
    assert!(life.send(other(), Encoding::Json).iter().find_map(kept).is_some(), "a final id is free again");
}

#[test]
fn a_prompt_that_was_not_stored_is_refused_to_all_who_sent_it() {
    let mut life = Life::new().up();
    let job = life.send(prompt(), Encoding::Json).iter().find_map(kept).unwrap();
    life.send(prompt(), Encoding::Json);
    let commands = life.feed(Event::NotKept { job, why: "disk full".to_owned() });
    assert_eq!(
        commands
            .iter()
            .filter(|c| matches!(c, Command::Refuse { error, .. } if error.retry_after_ms.is_some()))
            .count(),
        2
    );
    assert!(life.send(prompt(), Encoding::Json).iter().find_map(kept).is_some());
}

#[test]
fn cancel_and_fetch_know_what_is_under_way_and_what_is_final() {
    let mut life = Life::new().up();
    assert_eq!(refused(&life.control(ControlOp::Fetch)), ErrorCode::UnknownId);
    let look = |life: &Life| life.core.look(&"d1".parse().unwrap(), &"b-1".parse().unwrap(), life.now);
    assert!(look(&life).is_none());
    let (job, _) = life.accept(prompt());
    life.wait(30);
    assert!(matches!(look(&life), Some(Whereabouts::Open(s)) if (s.job, s.stage, s.age_ms) == (job, "running", 30)));
    assert!(matches!(&life.control(ControlOp::Fetch)[..], [Command::Acknowledge { frame: Some(_), .. }]));
    let commands = life.control(ControlOp::Cancel);
    assert_eq!(code(&commands), ErrorCode::Cancelled);
    assert!(commands.iter().any(|c| matches!(c, Command::Abort(_))));
    assert_eq!(refused(&life.control(ControlOp::Cancel)), ErrorCode::UnknownId);
    life.feed(Event::Concluded(job));
    assert!(matches!(look(&life), Some(Whereabouts::Ended(ended)) if ended == job));
    assert_eq!(refused(&life.control(ControlOp::Cancel)), ErrorCode::UnknownId);
    assert!(matches!(&life.control(ControlOp::Fetch)[..], [Command::SendStored { .. }]));
}

#[test]
fn draining_refuses_starts_nothing_and_ends_when_engine_and_disk_are_idle() {
    let mut life = Life::new().up();
    let (running, _) = life.accept(prompt());
    let (waiting, _) = life.accept(Prompt::bare("waits"));
    life.feed(Event::Drain);
    assert_eq!(refused(&life.send(Prompt::bare("late"), Encoding::Json)), ErrorCode::Busy);
    assert!(!life.core.drained());
    let commands = life.complete(running, 0.9);
    assert_eq!((runs(&commands), life.core.drained()), (None, false));
    life.feed(Event::Concluded(running));
    assert!(life.core.drained(), "job {waiting} stays on disk");
    assert_eq!(life.core.load().inbox_entries, 1);
}

#[test]
fn what_was_on_disk_runs_again_marked_and_never_a_third_time() {
    let restored = |job: u64, attempts: u32| Restored {
        job: JobId(job),
        device: "d1".parse().unwrap(),
        prompt: Arc::new(Prompt { local: true, ..Prompt::bare("kept") }),
        encoding: Encoding::Json,
        bytes: 50,
        received: Now(9_000),
        attempts,
        escalation: None,
    };
    let mut life = Life::new();
    let commands = life.core.restore(vec![restored(5, 0), restored(4, 2)], Vec::new(), life.now);
    assert_eq!(code(&commands), ErrorCode::Dead);
    let commands = life.feed(Event::EngineReady { model: "edge".parse().unwrap(), context_tokens: 1024 });
    assert!(matches!(&commands[..], [Command::MarkAttempt { job: JobId(5), attempt: 2 }]), "{commands:?}");
    assert_eq!(runs(&life.feed(Event::AttemptMarked(JobId(5)))), Some(2));
    let job = life.send(Prompt::bare("new"), Encoding::Json).iter().find_map(kept);
    assert_eq!(job, Some(JobId(6)), "numbers go on after those on disk");
}

#[test]
fn of_the_ids_on_disk_the_first_ones_are_forgotten_whatever_their_age_seems() {
    let seen = |job: u64, at_ms: u64| SeenFinal {
        device: "d1".parse().unwrap(),
        id: format!("p-{job}").parse().unwrap(),
        hash: ContentHash([1; 16]),
        job: JobId(job),
        at: Now(at_ms),
    };
    let mut life = Life::with(Limits { seen_per_device_max: 2, ..Limits::default() });
    life.core.restore(Vec::new(), vec![seen(3, 1_000), seen(1, 9_000), seen(2, 5_000)], life.now);
    let known = |life: &mut Life, job: u64| {
        let commands = life.control_of(ControlOp::Fetch, &format!("p-{job}"));
        commands.iter().any(|command| matches!(command, Command::SendStored { .. }))
    };
    assert_eq!([1, 2, 3].map(|job| known(&mut life, job)), [false, true, true]);
}

#[test]
fn an_unknown_task_is_refused_by_name() {
    let mut life = Life::new().up();
    let commands = life.send(Prompt { task: Some("tsk".parse().unwrap()), ..prompt() }, Encoding::Json);
    assert_eq!(refused(&commands), ErrorCode::UnknownTask);
}
