//! `tidegate queue` at a running gateway: reads go to the store, changes of open jobs through the hub, which owns them.

use super::control::Desk;
use super::message::{Input, Query};
use crate::queue::{ESCALATION_AGAIN, Request, Reveal, absent, again, counts, full, page, room, row};
use serde_json::{Value, json};
use std::sync::Arc;
use tidegate_broker::Verdict;
use tidegate_core::OperatorDrop;
use tidegate_schemas::JobId;
use tidegate_spool::{Change, Counts, DeadId, DeadItem, ForwardId, PromptRecord, QueueClass, SpoolError, Stored};
use tokio::sync::oneshot;

/// Answers one request.
pub(super) async fn answer(request: Request, desk: &Desk) -> Value {
    let done = |result: Result<(), String>, what: &str, number: u64| match result {
        Ok(()) => json!({ what: number }),
        Err(error) => json!({ "error": error }),
    };
    match request {
        Request::Counts => counts(&count(desk).await),
        Request::Ls { class, after, limit } => {
            let found = list(desk, class, after, limit).await;
            json!({ "class": class, "entries": found.iter().map(row).collect::<Vec<_>>(),
                "next": found.last().map(Stored::number) })
        }
        Request::Show { class, number, reveal } => match read(desk, class, number).await {
            Some(found) => full(&found, Reveal::from(reveal)),
            None => json!({ "error": absent(class, number) }),
        },
        Request::Export { class, after, reveal } => {
            page(&list(desk, class, after, u64::MAX).await, &desk.reaches, Reveal::from(reveal))
        }
        Request::Retry { number } => done(retry(desk, number).await, "retried", number),
        Request::Drop { class, number } => done(drop_entry(desk, class, number).await, "dropped", number),
    }
}

/// Dead letters for the page, a page of them, oldest first.
pub(super) async fn dead_letters(desk: &Desk, reveal: Reveal) -> Value {
    let found = list(desk, QueueClass::Dead, 0, u64::MAX).await;
    json!({ "entries": found.iter().map(|stored| full(stored, reveal)).collect::<Vec<_>>() })
}

async fn count(desk: &Desk) -> Counts {
    let (sender, found) = oneshot::channel();
    desk.spool.counts(move |counts| {
        let _ = sender.send(counts);
    });
    found.await.unwrap_or_default()
}

async fn read(desk: &Desk, class: QueueClass, number: u64) -> Option<Stored> {
    let (sender, found) = oneshot::channel();
    desk.spool.stored(class, number, move |stored| drop(sender.send(stored)));
    found.await.ok().flatten()
}

async fn list(desk: &Desk, class: QueueClass, after: u64, limit: u64) -> Vec<Stored> {
    let (sender, found) = oneshot::channel();
    desk.spool.page(class, after, room(limit), move |page| drop(sender.send(page)));
    found.await.unwrap_or_default()
}

async fn submit(desk: &Desk, change: Change) -> Result<(), String> {
    let (sender, done) = oneshot::channel();
    desk.spool.submit(change, move |result| drop(sender.send(result)));
    done.await.unwrap_or(Err(SpoolError::Stopped)).map_err(|error| error.to_string())
}

async fn order(desk: &Desk, query: Query) -> Result<(), String> {
    let (reply, answer) = oneshot::channel();
    let stopping = || "the gateway is stopping".to_owned();
    desk.inputs.send(Input::Query(query, reply)).await.map_err(|_| stopping())?;
    answer.await.map(drop).map_err(|_| stopping())
}

async fn drop_entry(desk: &Desk, class: QueueClass, number: u64) -> Result<(), String> {
    let job = JobId(number);
    match read(desk, class, number).await.ok_or_else(|| absent(class, number))? {
        Stored::Prompt(_) => order(desk, Query::Drop(job, OperatorDrop::Prompt)).await,
        Stored::Escalation(_) => order(desk, Query::Drop(job, OperatorDrop::Escalation)).await,
        Stored::Outcome(record) => order(desk, Query::Discard(record.device, job)).await,
        Stored::Forward(_) => submit(desk, Change::ForwardDrop { entry: ForwardId(number) }).await,
        Stored::Dead(_) => submit(desk, Change::DeadRemove { entry: DeadId(number) }).await,
    }
}

async fn retry(desk: &Desk, number: u64) -> Result<(), String> {
    let entry = DeadId(number);
    let Some(Stored::Dead(letter)) = read(desk, QueueClass::Dead, number).await else {
        return Err(absent(QueueClass::Dead, number));
    };
    match letter.item {
        DeadItem::Forward(_) => submit(desk, Change::DeadForward { entry }).await,
        DeadItem::Escalation(_) => Err(ESCALATION_AGAIN.to_owned()),
        DeadItem::Prompt(record) => {
            admit(desk, record, number).await?;
            // If this fails the letter stays, and a later retry asks once more: work may be repeated, not lost.
            submit(desk, Change::DeadRemove { entry }).await
        }
    }
}

/// The prompt comes in as at the door: it may be refused for the same reasons.
async fn admit(desk: &Desk, record: PromptRecord, number: u64) -> Result<(), String> {
    let PromptRecord { device, prompt, encoding, bytes, reply: reply_to, .. } = record;
    let (reply, verdict) = oneshot::channel();
    let prompt = Arc::new(again(prompt, number));
    let stopping = || "the gateway is stopping".to_owned();
    let input = Input::Prompt { device, prompt, encoding, bytes, reply_to, reply };
    desk.inputs.send(input).await.map_err(|_| stopping())?;
    match verdict.await.map_err(|_| stopping())? {
        Verdict::Kept { .. } => Ok(()),
        Verdict::Refused { message, .. } => Err(message),
    }
}
