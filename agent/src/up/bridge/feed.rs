//! What crosses by rule, on its way from the store to the link.
//!
//! Invariants: an item leaves the disk only by [`Feed::done`] or [`Feed::dead`]; what this feed holds is bounded by
//! [`HELD_MAX`] items and [`HELD_BYTES_MAX`] bytes over what is under way, the rest waits in the store, in its order.

use super::past::Past;
use crate::link::{Delivery, Rules};
use bytes::Bytes;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;
use tidegate_spool::{Change, DeadReason, DueForward, ForwardId, Room, Spool, SpoolError};
use tokio::sync::{Notify, mpsc};

/// Items taken out of the store at once: several windows, so that reading never paces the link.
const HELD_MAX: u64 = 256;
/// Their bytes.
const HELD_BYTES_MAX: u64 = 1 << 20;
/// With fewer held, more are taken out.
const LOW: usize = 128;

/// The user property that names the gateways that a message has passed, oldest first, against loops.
pub(crate) const VIA: &str = "tidegate-via";

/// A message that crosses by rule. Not `Debug`: it holds a payload.
pub(super) struct Item {
    entry: ForwardId,
    /// Its topic at the central broker.
    pub(super) topic: String,
    /// The bytes.
    pub(super) payload: Bytes,
    /// How it is published.
    pub(super) delivery: Delivery,
    user: Vec<(String, String)>,
    /// Whether the central broker keeps it.
    pub(super) retain: bool,
    priority: u8,
    left_ms: Option<u64>,
    taken: Instant,
    /// How long it had waited when it was taken out, in milliseconds.
    queued_ms: u64,
    /// Attempts before it was taken out, and whether one of an earlier run counts.
    attempts: u32,
    replayed: bool,
    /// How often it was published since.
    published: u32,
}

impl Item {
    fn of(due: DueForward, rules: &Rules) -> Self {
        let DueForward { record, expires_in_ms, queued_ms, attempt, replayed } = due;
        Self {
            entry: record.entry,
            // A rule that is gone left no word about its QoS; nothing is lost at 1.
            delivery: rules.delivery(&record.rule).unwrap_or(Delivery::Acknowledged),
            topic: record.topic,
            payload: record.payload.into(),
            user: record.properties.user,
            retain: record.retain,
            priority: record.priority.get(),
            left_ms: expires_in_ms,
            taken: Instant::now(),
            queued_ms,
            attempts: attempt.saturating_sub(1),
            replayed,
            published: 0,
        }
    }

    /// Topic and payload.
    pub(super) fn bytes(&self) -> usize {
        self.topic.len() + self.payload.len()
    }

    /// What is left of its time to live, in milliseconds.
    pub(super) fn left_ms(&self) -> Option<u64> {
        self.left_ms.map(|left| left.saturating_sub(self.held_ms()))
    }

    fn held_ms(&self) -> u64 {
        u64::try_from(self.taken.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// It is about to be published; gives its user properties, its past among them.
    pub(super) fn publishes(&mut self) -> Vec<(String, String)> {
        self.published += 1;
        let attempt = self.attempts.saturating_add(self.published);
        let queued_ms = self.queued_ms.saturating_add(self.held_ms());
        let mut user = self.user.clone();
        Past { replayed: self.replayed, attempt, queued_ms }.tell(&mut user);
        user
    }
}

/// What the storage thread answers.
enum Answer {
    Page(Vec<DueForward>),
    /// A removal that the store refused for now.
    Again(Box<Change>),
}

/// The feed.
pub(crate) struct Feed {
    spool: Spool,
    rules: Arc<Rules>,
    /// Rung when something was stored.
    bell: Arc<Notify>,
    held: VecDeque<Item>,
    answers: (mpsc::UnboundedSender<Answer>, mpsc::UnboundedReceiver<Answer>),
    /// A page is on its way.
    asked: bool,
    /// The store may have more.
    more: bool,
    /// Removals that are tried again: bounded by what was under way.
    again: Vec<Change>,
}

impl Feed {
    /// Nothing is held; the store may have items of an earlier run.
    pub(crate) fn new(spool: Spool, rules: Arc<Rules>, bell: Arc<Notify>) -> Self {
        let answers = mpsc::unbounded_channel();
        Self { spool, rules, bell, held: VecDeque::new(), answers, asked: false, more: true, again: Vec::new() }
    }

    /// Resolves when there may be something new. Safe to drop.
    pub(super) async fn wait(&mut self) {
        tokio::select! {
            Some(answer) = self.answers.1.recv() => self.take(answer),
            () = self.bell.notified() => self.more = true,
        }
    }

    fn take(&mut self, answer: Answer) {
        match answer {
            Answer::Page(page) => {
                self.asked = false;
                self.more = !page.is_empty();
                let rules = self.rules.clone();
                self.held.extend(page.into_iter().map(|due| Item::of(due, &rules)));
            }
            Answer::Again(change) => self.again.push(*change),
        }
    }

    /// Time has passed: what was refused is tried again, and the store asked anew.
    pub(super) fn tick(&mut self) {
        std::mem::take(&mut self.again).into_iter().for_each(|change| self.submit(change));
        self.more = true;
    }

    /// The next item that `allows` its priority, and asks for more before the last is gone.
    pub(super) fn next(&mut self, allows: impl Fn(u8) -> bool) -> Option<Item> {
        self.drop_expired();
        let found = self.held.iter().position(|item| allows(item.priority));
        let item = found.and_then(|place| self.held.remove(place));
        if item.is_none() && !self.held.is_empty() {
            // None of these may go now. They must not stand before others that may.
            let entries = self.held.drain(..).map(|item| item.entry).collect();
            self.spool.put_back(entries);
            self.more = false;
        }
        self.refill();
        item
    }

    /// What is over its time goes back, and leaves the store as the store does it: counted and announced.
    fn drop_expired(&mut self) {
        let over = |item: &Item| item.left_ms() == Some(0);
        let entries: Vec<ForwardId> = self.held.iter().filter(|item| over(item)).map(|item| item.entry).collect();
        if !entries.is_empty() {
            self.held.retain(|item| !over(item));
            self.spool.put_back(entries);
        }
    }

    fn refill(&mut self) {
        if self.asked || !self.more || self.held.len() >= LOW {
            return;
        }
        self.asked = true;
        let answers = self.answers.0.clone();
        let room = Room { entries_max: HELD_MAX, bytes_max: HELD_BYTES_MAX };
        self.spool.take_forwards(room, move |page| {
            let _ = answers.send(Answer::Page(page));
        });
    }

    /// It was not published after all: it is the next.
    pub(super) fn back(&mut self, item: Item) {
        self.held.push_front(item);
    }

    /// The central broker has it.
    pub(super) fn done(&self, item: &Item) {
        self.submit(Change::ForwardDone { entry: item.entry });
    }

    /// The central broker will never take it.
    pub(super) fn dead(&self, item: &Item, by: &str) {
        let reason = DeadReason::Refused { by: by.to_owned() };
        self.submit(Change::ForwardDead { entry: item.entry, reason });
    }

    fn submit(&self, change: Change) {
        let (answers, again) = (self.answers.0.clone(), change.clone());
        self.spool.submit(change, move |result| match result {
            // One that is unknown was dropped meanwhile; a stopped store has it after the start.
            Ok(()) | Err(SpoolError::NoEntry(_) | SpoolError::Stopped | SpoolError::Poisoned(_)) => {}
            Err(_) => {
                let _ = answers.send(Answer::Again(Box::new(again)));
            }
        });
    }
}
