//! User names and passwords. One thread verifies, because argon2 is slow by intent; its queue is short, unknown users
//! cost what known ones cost, and an address that guesses waits longer each time.

use crate::error::DoorError;
use argon2::password_hash::{PasswordHashString, SaltString};
use argon2::{Algorithm, Argon2, Params, PasswordHasher, PasswordVerifier, Version};
use std::collections::HashMap;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};
use tokio::sync::{oneshot, watch};

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

/// Who may come by name, read from one file.
pub(crate) struct Users {
    hashes: HashMap<String, PasswordHashString>,
    /// What unknown users are checked against: as costly as the costliest known one.
    nobody: PasswordHashString,
}

impl Users {
    /// Reads a file of lines `user:argon2-phc`.
    ///
    /// # Errors
    /// It cannot be read, or the first line that is none.
    pub(crate) fn read(path: &Path) -> Result<Self, DoorError> {
        let text = std::fs::read_to_string(path).map_err(|source| DoorError::Read { path: path.to_owned(), source })?;
        let hashes = parse(path, &text)?;
        let nobody = nobody(&hashes)?;
        Ok(Self { hashes, nobody })
    }
}

/// Asks the verifying thread, which ends with the last of these.
#[derive(Clone)]
pub(crate) struct Logins {
    questions: SyncSender<Question>,
}

impl Logins {
    /// Starts the thread, which looks at the users anew for each question.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub(crate) fn start(users: watch::Receiver<Arc<Users>>) -> Result<Self, DoorError> {
        let (questions, asked) = sync_channel(QUEUE_MAX);
        let verifier = Verifier { users, failures: HashMap::new() };
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

/// A hash of nothing that costs what the costliest of the users' costs.
fn nobody(hashes: &HashMap<String, PasswordHashString>) -> Result<PasswordHashString, DoorError> {
    let refused = |what: String| DoorError::System { what: "a random salt", source: std::io::Error::other(what) };
    let mut salt = [0; 16];
    getrandom::fill(&mut salt).map_err(|e| refused(e.to_string()))?;
    let salt = SaltString::encode_b64(&salt).map_err(|e| refused(e.to_string()))?;
    let params = hashes.values().filter_map(|hash| Params::try_from(&hash.password_hash()).ok());
    let params = params.max_by_key(|p| u64::from(p.m_cost()) * u64::from(p.t_cost())).unwrap_or_default();
    let argon = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
    let hash = argon.hash_password(b"", &salt).map_err(|e| refused(e.to_string()))?;
    Ok(hash.serialize())
}

struct Verifier {
    users: watch::Receiver<Arc<Users>>,
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
        let users = self.users.borrow().clone();
        let known = users.hashes.get(&question.user);
        let hash = known.unwrap_or(&users.nobody);
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn hash(m_cost: u32, t_cost: u32) -> PasswordHashString {
        let argon = Argon2::new(Algorithm::Argon2id, Version::V0x13, Params::new(m_cost, t_cost, 1, None).unwrap());
        let salt = SaltString::encode_b64(b"saltsaltsalt").unwrap();
        argon.hash_password(b"secret", &salt).unwrap().serialize()
    }

    #[test]
    fn an_unknown_user_costs_what_the_costliest_known_one_costs() {
        let users = HashMap::from([("a".to_owned(), hash(64, 1)), ("b".to_owned(), hash(128, 2))]);
        let nobody = nobody(&users).unwrap();
        let params = Params::try_from(&nobody.password_hash()).unwrap();
        assert_eq!((params.m_cost(), params.t_cost()), (128, 2));
    }

    #[test]
    fn an_address_that_guesses_waits_longer_each_time() {
        let hashes = HashMap::from([("d7".to_owned(), hash(8, 1))]);
        let users = Arc::new(Users { nobody: nobody(&hashes).unwrap(), hashes });
        let (_tx, users) = watch::channel(users);
        let mut verifier = Verifier { users, failures: HashMap::new() };
        let ask = |verifier: &mut Verifier, password: &[u8], from: &str| {
            let (reply, _) = oneshot::channel();
            let (user, password, from) = ("d7".to_owned(), password.to_owned(), from.parse().unwrap());
            verifier.answer(&Question { user, password, from, reply })
        };
        for _ in 0..=FAILURES_FREE {
            assert_eq!(ask(&mut verifier, b"wrong", "192.0.2.1"), Login::Bad);
        }
        assert_eq!(ask(&mut verifier, b"secret", "192.0.2.1"), Login::Busy, "even the right one waits");
        assert_eq!(ask(&mut verifier, b"secret", "192.0.2.2"), Login::Good, "another address does not");
        let (failures, until) = verifier.failures[&"192.0.2.1".parse::<IpAddr>().unwrap()];
        assert_eq!(failures, FAILURES_FREE + 1);
        assert!(until > Instant::now());
    }
}
