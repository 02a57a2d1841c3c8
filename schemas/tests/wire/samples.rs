//! One value of every message, and the golden payload that it stands in.

use serde::Serialize;
use serde_json::json;
use tidegate_schemas::{
    Accepted, Answer, Body, Budget, BudgetState, Card, CardModel, CardTask, Control, ControlOp, DeadlineMs, Encoding,
    ErrorCode, ErrorFrame, Escalation, Event, Frame, Health, Input, JobId, Json, LinkState, Load, Message, ModelName,
    Origin, Priority, Prompt, PromptId, QueueDepth, Reason, Resolution, ResolvedOutcome, Role, Route, TaskSpec, Timing,
    Token, TraceParent, Usage, cbor, encode,
};

/// A payload as it is committed in `golden/`.
pub(crate) struct Golden {
    /// Name of the file.
    pub(crate) file: String,
    /// Which message it is.
    pub(crate) kind: &'static str,
    /// What stands in the file.
    pub(crate) bytes: Vec<u8>,
}

fn id() -> Option<PromptId> {
    Some("b3f1-7".parse().unwrap())
}

fn model() -> ModelName {
    "tide-edge".parse().unwrap()
}

pub(crate) fn full_prompt() -> Prompt {
    Prompt {
        id: id(),
        task: Some("action".parse().unwrap()),
        max_tokens: Some(64),
        max_bytes: Some(1024),
        priority: Priority::new(7).unwrap(),
        deadline_ms: DeadlineMs::new(30_000),
        stream: true,
        local: true,
        ..Prompt::bare("turn off the lights in the packing hall")
    }
}

fn trace() -> Option<TraceParent> {
    "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".parse().ok()
}

fn traced_prompt() -> Prompt {
    Prompt { id: id(), traceparent: trace(), ..Prompt::bare("turn off the lights in the packing hall") }
}

fn chat_prompt() -> Prompt {
    let turn = |role, content: &str| Message { role, content: content.into() };
    let turns = vec![
        turn(Role::System, "Answer in one word."),
        turn(Role::User, "Is the press hot? It says 92 °C."),
        turn(Role::Assistant, "Yes."),
        turn(Role::User, "Too hot?"),
    ];
    Prompt { input: Input::Messages(turns), ..Prompt::bare("") }
}

pub(crate) fn answer() -> Answer {
    Answer {
        id: id(),
        body: Body::Text("The lights in the packing hall are off.".into()),
        confidence: Some(0.9127),
        route: Route::Local,
        reason: Reason::Confident,
        provisional: false,
        model: model(),
        usage: Usage { prompt_tokens: 41, completion_tokens: 11 },
        timing: Timing { queued_ms: 3, prefill_ms: 58, decode_ms: 240, total_ms: 304 },
    }
}

fn json_body() -> Body {
    Body::Json(Json(json!({"action": "off", "target": "lights", "room": "packing hall"})))
}

pub(crate) fn frames() -> Vec<(&'static str, Frame)> {
    let accepted = Accepted { id: id(), position: 2, eta_ms: 1850 };
    let token = Token { id: id(), attempt: 1, seq: 4, text: " packing".into() };
    let error = ErrorFrame {
        id: id(),
        code: ErrorCode::Busy,
        message: "inbox has 512 of 512 entries".to_owned(),
        retry_after_ms: Some(5000),
    };
    let provisional = Answer { confidence: Some(0.41), reason: Reason::LowConfidence, provisional: true, ..answer() };
    let structured = Answer {
        body: json_body(),
        confidence: Some(0.5),
        route: Route::Cloud,
        reason: Reason::CloudAnswered,
        ..answer()
    };
    vec![
        ("accepted", Frame::Accepted(accepted)),
        ("token", Frame::Token(token)),
        ("answer-text", Frame::Answer(answer())),
        ("answer-json", Frame::Answer(structured)),
        ("answer-provisional", Frame::Answer(provisional)),
        ("error", Frame::Error(error)),
    ]
}

fn origin() -> Origin {
    Origin { site: "mill".parse().unwrap(), gateway: "gw-3".parse().unwrap() }
}

pub(crate) fn escalation() -> Escalation {
    Escalation {
        v: 1,
        job: JobId(4711),
        origin: origin(),
        device: "press-7".parse().unwrap(),
        prompt: Prompt { local: false, ..full_prompt() },
        task: TaskSpec {
            name: "action".parse().unwrap(),
            sha256: "0f".repeat(32),
            system: "Turn the request into one action.".to_owned(),
            schema: Some(r#"{"type":"object"}"#.to_owned()),
            max_tokens: 64,
            max_bytes: 4096,
        },
        draft: Some(json_body()),
        confidence: Some(0.41),
        reason: Reason::LowConfidence,
        hops: 1,
        attempt: 2,
        expires_in_ms: Some(21_500),
    }
}

pub(crate) fn resolution() -> Resolution {
    Resolution {
        v: 1,
        job: JobId(4711),
        origin: origin(),
        attempt: 2,
        outcome: ResolvedOutcome::Answer(json_body()),
        confidence: Some(0.97),
        model: "tide-cloud".parse().unwrap(),
        usage: Usage { prompt_tokens: 60, completion_tokens: 18 },
        timing: Timing { queued_ms: 0, prefill_ms: 20, decode_ms: 90, total_ms: 112 },
        traceparent: None,
    }
}

pub(crate) fn failed_resolution() -> Resolution {
    let outcome =
        ResolvedOutcome::Error { code: ErrorCode::Cut, message: "no valid ending within 64 tokens".to_owned() };
    Resolution { outcome, confidence: None, ..resolution() }
}

fn card() -> Card {
    let task = |name: &str, json, cloud| CardTask { name: name.parse().unwrap(), json, cloud, max_tokens: 64 };
    Card {
        models: vec![CardModel { name: model(), sha256: "a5".repeat(32), context_tokens: 2048 }],
        tasks: vec![task("action", true, true), task("note", false, false)],
        prompt_bytes_max: tidegate_schemas::PROMPT_BYTES_MAX,
        version: "0.1.0".to_owned(),
    }
}

fn load() -> Load {
    let depth = QueueDepth { entries: 3, entries_max: 4096, bytes: 1290, bytes_max: 16_777_216 };
    Load {
        inbox: depth,
        outbox: QueueDepth { entries: 0, bytes: 0, ..depth },
        outcomes: depth,
        answered_local: 812,
        answered_cloud: 61,
        errors: 2,
        engine_restarts: 1,
    }
}

fn health() -> Health {
    let faults = vec!["the link to the central broker is down since 340 s".to_owned()];
    Health {
        online: true,
        link: LinkState::Down,
        engine_ready: true,
        faults,
        version: "0.1.0".to_owned(),
        budget: Some(Budget { percent_used: 62, bytes_max: 52_428_800, state: BudgetState::Ample }),
        weakened: vec!["the broker may lose prompts that it acknowledged: it keeps nothing on disk".to_owned()],
    }
}

fn golden(file: String, kind: &'static str, bytes: Vec<u8>) -> Golden {
    Golden { file, kind, bytes }
}

fn in_json(name: &str, kind: &'static str, message: &impl Serialize) -> Golden {
    golden(format!("{name}.json"), kind, serde_json::to_vec(message).unwrap())
}

fn in_both(name: &str, kind: &'static str, message: &impl Serialize) -> [Golden; 2] {
    [in_json(name, kind, message), golden(format!("{name}.cbor"), kind, cbor::to_vec(message))]
}

/// All of `golden/`, in the order of its index.
pub(crate) fn all() -> Vec<Golden> {
    let mut all = vec![
        golden("prompt-min.txt".into(), "prompt", b"turn off the lights in the packing hall".to_vec()),
        golden("prompt-min.json".into(), "prompt", br#"{"input":"turn off the lights in the packing hall"}"#.to_vec()),
        golden(
            "prompt-min.cbor".into(),
            "prompt",
            b"\xa1\x65input\x78\x27turn off the lights in the packing hall".to_vec(),
        ),
    ];
    // As the C library in firmware-examples writes it: a map of definite length.
    let device = b"\xa8\x62id\x66b3f1-7\x64task\x66action\x65input\x78\x27turn off the lights in the packing hall\
        \x6amax_tokens\x18\x40\x69max_bytes\x19\x04\x00\x6bdeadline_ms\x19\x75\x30\x66stream\xf5\x65local\xf5";
    all.push(golden("prompt-device.cbor".into(), "prompt", device.to_vec()));
    all.extend(in_both("prompt-full", "prompt", &full_prompt()));
    all.extend(in_both("prompt-messages", "prompt", &chat_prompt()));
    all.extend(in_both("prompt-traced", "prompt", &traced_prompt()));
    all.extend(in_both("control-cancel", "control", &Control { op: ControlOp::Cancel, id: id().unwrap() }));
    all.extend(in_both("control-fetch", "control", &Control { op: ControlOp::Fetch, id: id().unwrap() }));
    for (name, frame) in frames() {
        all.extend(in_both(name, "frame", &frame));
        let line = Encoding::Text.frame(&frame);
        all.extend(line.map(|bytes| golden(format!("{name}.txt"), "line", bytes)));
    }
    all.push(golden("escalation.cbor".into(), "escalation", encode(&escalation())));
    all.push(golden("resolution-answer.cbor".into(), "resolution", encode(&resolution())));
    let traced = Resolution { traceparent: trace(), ..resolution() };
    all.push(golden("resolution-traced.cbor".into(), "resolution", encode(&traced)));
    all.push(golden("resolution-error.cbor".into(), "resolution", encode(&failed_resolution())));
    all.push(in_json("health", "health", &health()));
    all.push(in_json("card", "card", &card()));
    all.push(in_json("load", "load", &load()));
    let event = Event { message: "dropped 12 token frames for a slow device".to_owned(), count: 12 };
    all.push(in_json("event-drop", "event", &event));
    all
}
