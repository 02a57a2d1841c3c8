//! User names and passwords. One thread verifies, because argon2 is slow by intent; its queue is short, unknown users
//! cost what known ones cost, and an address that guesses waits longer each time.

use crate::error::DoorError;
use argon2::password_hash::{PasswordHashString, SaltString};
use argon2::{Argon2, PasswordHasher, PasswordVerifier};
use std::collections::HashMap;
use std::net::IpAddr;
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// Logins that may wait for the verifying thread: beyond, the client is told that the server is busy.
const QUEUE_MAX: usize = 8;
/// Addresses whose failures are remembered.
const ADDRESSES_MAX: usize = 1_024;
/// Failures of an address before it has to wait: a person mistypes.
const FAILURES_FREE: u32 = 5;
/// Longest wait of an address, as a power of two in seconds.
const BACK_OFF_POWER_MAX: u32 = 6;

/// What the verifier says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Login {
    Good,
    Bad,
    /// Too many logins at once, or too many failures of this address.
    Busy,
}

struct Question {
    user: String,
    password: Vec<u8>,
    from: IpAddr,
    reply: oneshot::Sender<Login>,
}

/// Asks the verifying thread, which ends with the last of these.
#[derive(Clone)]
pub(crate) struct Logins {
    questions: SyncSender<Question>,
}

impl Logins {
    /// Reads the users and starts the thread.
    pub(crate) fn start(path: &Path) -> Result<Self, DoorError> {
        let text = std::fs::read_to_string(path).map_err(|source| DoorError::Read { path: path.to_owned(), source })?;
        let users = parse(path, &text)?;
        let (questions, asked) = sync_channel(QUEUE_MAX);
        let verifier = Verifier { users, nobody: nobody()?, failures: HashMap::new() };
        thread::Builder::new()
            .name("logins".to_owned())
            .spawn(move || verifier.run(&asked))
            .map_err(|source| DoorError::System { what: "a thread for logins", source })?;
        Ok(Self { questions })
    }

    pub(crate) async fn check(&self, user: &str, password: &[u8], from: IpAddr) -> Login {
        let (reply, answer) = oneshot::channel();
        let question = Question { user: user.to_owned(), password: password.to_owned(), from, reply };
        if self.questions.try_send(question).is_err() {
            return Login::Busy;
        }
        answer.await.unwrap_or(Login::Busy)
    }
}

fn parse(path: &Path, text: &str) -> Result<HashMap<String, PasswordHashString>, DoorError> {
    let mut users = HashMap::new();
    for (at, line) in text.lines().enumerate().filter(|(_, l)| !l.trim().is_empty() && !l.starts_with('#')) {
        let bad = |what: String| DoorError::Users { path: path.to_owned(), line: at + 1, what };
        let (user, hash) =
            line.trim().split_once(':').ok_or_else(|| bad("has no colon, user:argon2-phc is needed".to_owned()))?;
        let hash = PasswordHashString::new(hash).map_err(|e| bad(format!("hash of {user:?}: {e}")))?;
        if users.insert(user.to_owned(), hash).is_some() {
            return Err(bad(format!("user {user:?} stands twice")));
        }
    }
    Ok(users)
}

/// The hash that unknown users are checked against.
fn nobody() -> Result<PasswordHashString, DoorError> {
    let refused = |what: String| DoorError::System { what: "a random salt", source: std::io::Error::other(what) };
    let mut salt = [0; 16];
    getrandom::fill(&mut salt).map_err(|e| refused(e.to_string()))?;
    let salt = SaltString::encode_b64(&salt).map_err(|e| refused(e.to_string()))?;
    let hash = Argon2::default().hash_password(b"", &salt).map_err(|e| refused(e.to_string()))?;
    Ok(hash.serialize())
}

struct Verifier {
    users: HashMap<String, PasswordHashString>,
    nobody: PasswordHashString,
    failures: HashMap<IpAddr, (u32, Instant)>,
}

impl Verifier {
    fn run(mut self, questions: &Receiver<Question>) {
        while let Ok(question) = questions.recv() {
            let login = self.answer(&question);
            // A client that left while it waited needs no answer.
            let _ = question.reply.send(login);
        }
    }

    fn answer(&mut self, question: &Question) -> Login {
        let now = Instant::now();
        if self.failures.get(&question.from).is_some_and(|(_, until)| *until > now) {
            return Login::Busy;
        }
        let known = self.users.get(&question.user);
        let hash = known.unwrap_or(&self.nobody);
        let fits = Argon2::default().verify_password(&question.password, &hash.password_hash()).is_ok();
        if fits && known.is_some() {
            self.failures.remove(&question.from);
            return Login::Good;
        }
        self.failed(question.from, now);
        Login::Bad
    }

    fn failed(&mut self, from: IpAddr, now: Instant) {
        if self.failures.len() >= ADDRESSES_MAX {
            self.failures.retain(|_, (_, until)| *until > now);
        }
        if self.failures.len() >= ADDRESSES_MAX {
            return;
        }
        let (failures, until) = self.failures.entry(from).or_insert((0, now));
        *failures = failures.saturating_add(1);
        if *failures > FAILURES_FREE {
            let power = (*failures - FAILURES_FREE - 1).min(BACK_OFF_POWER_MAX);
            *until = now + Duration::from_secs(1 << power);
        }
    }
}
