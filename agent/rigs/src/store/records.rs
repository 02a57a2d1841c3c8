//! Records for a store under test: all that is in them follows from the job's number, so that whoever audits knows
//! what must be there.

use tidegate_schemas::{
    ContentHash, DeviceId, Encoding, Escalation, JobId, Origin, Prompt, PromptId, Reason, Reply, TaskSpec,
};
use tidegate_spool::{EscalationRecord, OutcomeRecord, PromptRecord, Reach, Stamp};

/// Devices among which jobs are shared out.
const DEVICES: u64 = 8;

/// The device of a job.
pub(crate) fn device(job: u64) -> DeviceId {
    format!("local-{}", job % DEVICES).parse().expect("letters and digits")
}

/// The requester's id of a job.
pub(crate) fn id(job: u64) -> PromptId {
    format!("rig-{job}").parse().expect("letters and digits")
}

/// Text of that many bytes that differs from job to job and along itself, so that a page that holds another's shows.
fn text(job: u64, len: usize) -> String {
    let mut text = String::with_capacity(len + 24);
    let mut part = 0_u64;
    while text.len() < len {
        text.push_str(&format!("{job}.{part} "));
        part += 1;
    }
    text.truncate(len);
    text
}

/// A prompt of that many bytes.
pub(crate) fn prompt(job: u64, len: usize) -> PromptRecord {
    PromptRecord {
        job: JobId(job),
        device: device(job),
        prompt: Prompt { id: Some(id(job)), ..Prompt::bare(&text(job, len)) },
        encoding: Encoding::Json,
        bytes: len as u32,
        stamp: Stamp { boot_ms: job, boot_id: [7; 16], wall_ms: job, wall_trusted: false },
        attempts: 0,
        reply: Reply::default(),
    }
}

/// An escalation with a task of that many bytes.
pub(crate) fn escalation(job: u64, len: usize) -> EscalationRecord {
    let task = TaskSpec {
        name: "intent".parse().expect("letters"),
        sha256: "00".repeat(32),
        system: text(job, len),
        schema: None,
        max_tokens: 32,
        max_bytes: 1024,
    };
    let name = |text: &str| text.parse().expect("letters");
    let origin = Origin { site: name("demo"), gateway: "quay".parse().expect("letters") };
    let escalation = Escalation {
        v: 1,
        job: JobId(job),
        origin,
        device: device(job),
        prompt: prompt(job, 8).prompt,
        task,
        draft: None,
        confidence: Some(0.25),
        reason: Reason::LowConfidence,
        hops: 0,
        attempt: 1,
        expires_in_ms: None,
    };
    EscalationRecord { job: JobId(job), escalation, provisional: None }
}

/// An outcome with a frame of that many bytes.
pub(crate) fn outcome(job: u64, len: usize) -> OutcomeRecord {
    OutcomeRecord {
        job: JobId(job),
        device: device(job),
        id: Some(id(job)),
        hash: ContentHash([job as u8; 16]),
        encoding: Encoding::Json,
        frame: text(job, len).into_bytes(),
        notice: None,
        released: false,
        stamp: Stamp::now(),
        reach: Reach::Cloud,
        reply: Reply::default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_of_two_jobs_differ_everywhere() {
        assert_eq!(prompt(7, 100), prompt(7, 100));
        let (a, b) = (outcome(7, 4096).frame, outcome(8, 4096).frame);
        assert_eq!(a.len(), 4096);
        assert!(a.chunks(64).zip(b.chunks(64)).all(|(a, b)| a != b));
    }
}
