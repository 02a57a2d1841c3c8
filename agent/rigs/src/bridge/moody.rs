//! A peer of the bridge that acknowledges late, refuses, and breaks off: a small MQTT 5 broker that keeps a book of what
//! it said of each number. What it took or refused for good must not be lost, nor may it come again on a connection that
//! held.

use crate::door::wire::{Seen, Version, ack, first, packet};
use anyhow::Context as _;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// Receive Maximum that it announces, as mosquitto's.
const RECEIVE_MAX: u8 = 20;
/// Acknowledgements of one connection that are due; the Receive Maximum bounds them.
const DUE_MAX: usize = 1024;
/// One publish in so many is refused for good.
const NEVER_ONE_IN: u32 = 100;
/// One in so many is too much for now.
const LATER_ONE_IN: u32 = 250;
/// One in so many is answered late, and with it all that follow.
const LATE_ONE_IN: u32 = 200;
/// One in so many ends the connection instead of being answered.
const BREAK_ONE_IN: u32 = 500;
/// How late, in milliseconds: up to what the bridge takes for a link that is too full.
const LATE_MS: std::ops::Range<u64> = 100..2_500;

/// Reason codes of a PUBACK.
mod reason {
    pub(super) const SUCCESS: u8 = 0x00;
    pub(super) const NO_SUBSCRIBERS: u8 = 0x10;
    pub(super) const NOT_AUTHORIZED: u8 = 0x87;
    pub(super) const QUOTA_EXCEEDED: u8 = 0x97;
}

/// What was said of the numbers.
#[derive(Debug, Default)]
pub(super) struct Book {
    /// How often each was taken.
    taken: BTreeMap<u64, u32>,
    /// How often each was refused for good.
    never: BTreeMap<u64, u32>,
    /// How often too much was said.
    pub(super) later: u64,
    /// How often an answer was late.
    pub(super) late: u64,
    /// How often the connection was broken off.
    pub(super) broken: u64,
    /// Numbers that came again though their answer had been followed by another on the same connection.
    pub(super) again: u64,
}

impl Book {
    /// Numbers of which there is a last word.
    pub(super) fn settled(&self) -> usize {
        self.taken.len() + self.never.keys().filter(|number| !self.taken.contains_key(number)).count()
    }

    /// Numbers refused for good.
    pub(super) fn refused(&self) -> usize {
        self.never.len()
    }

    /// Numbers below `items` of which there is none.
    pub(super) fn missing(&self, items: u64) -> u64 {
        (0..items).filter(|number| !self.taken.contains_key(number) && !self.never.contains_key(number)).count() as u64
    }
}

/// The peer.
pub(super) struct Moody {
    /// Where it listens.
    pub(super) address: SocketAddr,
    book: Arc<Mutex<Book>>,
    task: JoinHandle<()>,
}

impl Moody {
    /// Listens; its moods follow from the seed.
    pub(super) async fn start(seed: u64) -> anyhow::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.context("no port is free on loopback")?;
        let address = listener.local_addr()?;
        let book: Arc<Mutex<Book>> = Arc::default();
        let kept = book.clone();
        let task = tokio::spawn(async move {
            let mut random = StdRng::seed_from_u64(seed);
            while let Ok((stream, _)) = listener.accept().await {
                // One gateway has one connection.
                connection(stream, &kept, &mut random).await;
            }
        });
        Ok(Self { address, book, task })
    }

    /// Looks into the book.
    pub(super) fn book<T>(&self, look: impl FnOnce(&Book) -> T) -> T {
        look(&lock(&self.book))
    }
}

impl Drop for Moody {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn lock(book: &Mutex<Book>) -> std::sync::MutexGuard<'_, Book> {
    book.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One connection, until either side ends it.
async fn connection(stream: TcpStream, book: &Arc<Mutex<Book>>, random: &mut StdRng) {
    if stream.set_nodelay(true).is_err() {
        return;
    }
    let (read, write) = stream.into_split();
    let (due, answers) = mpsc::channel(DUE_MAX);
    let writer = tokio::spawn(answer(write, answers));
    listen(read, &due, book, random).await;
    drop(due);
    writer.abort();
}

/// Writes what is due, in order.
async fn answer(mut write: OwnedWriteHalf, mut answers: mpsc::Receiver<(Instant, Vec<u8>)>) {
    while let Some((at, bytes)) = answers.recv().await {
        tokio::time::sleep_until(at).await;
        if write.write_all(&bytes).await.is_err() {
            return;
        }
    }
}

/// Reads packets and decides what is said of each.
async fn listen(
    mut read: OwnedReadHalf,
    due: &mpsc::Sender<(Instant, Vec<u8>)>,
    book: &Mutex<Book>,
    random: &mut StdRng,
) {
    let mut bytes = Vec::new();
    // Numbers that this connection has answered: their answers are on their way as long as it holds.
    let mut answered: Vec<u64> = Vec::new();
    loop {
        while let Some(seen) = Seen::front(&bytes) {
            let (at, reply) = match seen.kind() {
                first::PUBLISH => match publish(&seen, book, random, &mut answered) {
                    Some(word) => word,
                    None => return,
                },
                _ => (Instant::now(), reply(&seen)),
            };
            let length = seen.bytes;
            bytes.drain(..length);
            if !reply.is_empty() && due.send((at, reply)).await.is_err() {
                return;
            }
        }
        if read.read_buf(&mut bytes).await.is_ok_and(|count| count > 0) {
            continue;
        }
        return;
    }
}

/// The answer to anything but a publish.
fn reply(seen: &Seen<'_>) -> Vec<u8> {
    match seen.first & 0xf0 {
        // No session, success, and the Receive Maximum.
        first::CONNECT => packet(first::CONNACK, &[0, reason::SUCCESS, 3, 0x21, 0, RECEIVE_MAX]),
        0x80 => {
            let [high, low] = seen.id().to_be_bytes();
            // A canary that is published is not heard again: its acknowledgement has to do.
            let canary = seen.body.windows(CANARY.len()).any(|part| part == CANARY);
            packet(first::SUBACK, &[high, low, 0, if canary { reason::NOT_AUTHORIZED } else { 1 }])
        }
        first::PINGREQ => vec![0xd0, 0],
        _ => Vec::new(),
    }
}

/// The end of the canary's topic.
const CANARY: &[u8] = b"event/canary";

/// When a publish is answered, and how; none breaks the connection off.
fn publish(
    seen: &Seen<'_>,
    book: &Mutex<Book>,
    random: &mut StdRng,
    answered: &mut Vec<u64>,
) -> Option<(Instant, Vec<u8>)> {
    let message = seen.message(Version::V5)?;
    if seen.qos() == 0 {
        return Some((Instant::now(), Vec::new()));
    }
    let text = std::str::from_utf8(message.payload).ok();
    let number = text.and_then(|text| text.split(' ').next()?.parse::<u64>().ok());
    let Some(number) = number.filter(|_| message.topic.starts_with(b"load/")) else {
        return Some((Instant::now(), ack(first::PUBACK, message.id).to_vec()));
    };
    let mut book = lock(book);
    if random.random_ratio(1, BREAK_ONE_IN) {
        book.broken += 1;
        return None;
    }
    book.again += u64::from(answered.contains(&number));
    let late = random.random_ratio(1, LATE_ONE_IN);
    book.late += u64::from(late);
    let at = Instant::now() + Duration::from_millis(if late { random.random_range(LATE_MS) } else { 0 });
    let code = if random.random_ratio(1, LATER_ONE_IN) {
        book.later += 1;
        reason::QUOTA_EXCEEDED
    } else if random.random_ratio(1, NEVER_ONE_IN) {
        *book.never.entry(number).or_default() += 1;
        answered.push(number);
        reason::NOT_AUTHORIZED
    } else {
        *book.taken.entry(number).or_default() += 1;
        answered.push(number);
        if random.random_bool(0.1) { reason::NO_SUBSCRIBERS } else { reason::SUCCESS }
    };
    let [high, low] = message.id.to_be_bytes();
    Some((at, packet(first::PUBACK, &[high, low, code, 0])))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::door::wire::Publish;

    #[test]
    fn every_number_gets_a_word_and_the_book_says_which() {
        let book = Mutex::default();
        let mut random = StdRng::seed_from_u64(3);
        let mut answered = Vec::new();
        let (items, mut words) = (2_000, 0);
        for number in 0..items {
            let bytes = Publish::new("load/x", 7, format!("{number} .").as_bytes()).bytes(Version::V5);
            let word = publish(&Seen::front(&bytes).unwrap(), &book, &mut random, &mut answered);
            words += u64::from(word.is_some_and(|(_, bytes)| bytes[..4] == [first::PUBACK, 4, 0, 7]));
        }
        let book = lock(&book);
        assert_eq!(words + book.broken, items);
        assert_eq!(book.missing(items), book.broken + book.later);
        assert_eq!(book.settled() as u64, items - book.broken - book.later);
        assert!(book.refused() > 0 && book.late > 0 && book.later > 0 && book.broken > 0, "{book:?}");
        assert_eq!(book.again, 0);
    }
}
