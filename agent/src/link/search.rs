//! Which address of a broker is tried next, in which version, and how soon. Pure.
//!
//! Invariant: between two rounds over all addresses there is a pause; within a round each address is tried at most once
//! per version.

use super::broker::Address;
use super::hear::Cause;
use super::line::Version;

/// Which version of the protocol is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// MQTT 5, and 3.1.1 with a peer that has no 5.
    Auto,
    /// This one only.
    Only(Version),
}

/// How long to wait before the next try.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Pause {
    /// Not at all: there is another address or version to try.
    None,
    /// As usual.
    Usual,
    /// A broker asked for patience.
    Busy,
    /// Every broker refuses us: a person has to mend it.
    Refused,
}

/// The addresses and where we are among them.
#[derive(Debug)]
pub(crate) struct Search {
    addresses: Vec<Address>,
    protocol: Protocol,
    at: usize,
    version: Version,
    /// The most that a broker of this round asked for.
    round: Pause,
}

impl Search {
    /// From the first address.
    pub(crate) fn new(addresses: Vec<Address>, protocol: Protocol) -> Self {
        Self { addresses, protocol, at: 0, version: first(protocol), round: Pause::Usual }
    }

    /// What is to be tried now.
    pub(crate) fn target(&self) -> (Address, Version) {
        (self.addresses[self.at].clone(), self.version)
    }

    /// A connection ended before it was of use.
    pub(crate) fn failed(&mut self, cause: Cause) -> Pause {
        if cause == Cause::Version && self.protocol == Protocol::Auto && self.version == Version::Five {
            self.version = Version::Three;
            return Pause::None;
        }
        self.version = first(self.protocol);
        self.round = match cause {
            Cause::Broken | Cause::Version => self.round,
            Cause::Busy => self.round.max(Pause::Busy),
            Cause::Refused => self.round.max(Pause::Refused),
        };
        self.at = (self.at + 1) % self.addresses.len();
        if self.at == 0 { std::mem::replace(&mut self.round, Pause::Usual) } else { Pause::None }
    }

    /// A connection ended that was of use: from the first address again, or past the one that asked for patience.
    pub(crate) fn lost(&mut self, cause: Cause) -> Pause {
        self.version = first(self.protocol);
        self.round = Pause::Usual;
        match cause {
            Cause::Busy => {
                self.at = (self.at + 1) % self.addresses.len();
                Pause::Busy
            }
            Cause::Broken | Cause::Version | Cause::Refused => {
                self.at = 0;
                Pause::Usual
            }
        }
    }
}

fn first(protocol: Protocol) -> Version {
    match protocol {
        Protocol::Auto => Version::Five,
        Protocol::Only(version) => version,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn search(count: usize) -> Search {
        let addresses = (0..count).map(|n| format!("mqtt://b{n}").parse().unwrap()).collect();
        Search::new(addresses, Protocol::Auto)
    }

    fn target(search: &Search) -> (String, Version) {
        let (address, version) = search.target();
        (address.to_string(), version)
    }

    #[test]
    fn all_addresses_are_tried_before_there_is_a_pause() {
        let mut search = search(3);
        assert_eq!(search.failed(Cause::Broken), Pause::None);
        assert_eq!(target(&search).0, "mqtt://b1:1883");
        assert_eq!(search.failed(Cause::Broken), Pause::None);
        assert_eq!(search.failed(Cause::Broken), Pause::Usual);
        assert_eq!(target(&search).0, "mqtt://b0:1883");
    }

    #[test]
    fn the_older_version_is_tried_once_and_the_newer_again_next_time() {
        let mut search = search(1);
        assert_eq!(search.failed(Cause::Version), Pause::None);
        assert_eq!(target(&search), ("mqtt://b0:1883".to_owned(), Version::Three));
        assert_eq!(search.failed(Cause::Version), Pause::Usual, "it speaks neither");
        assert_eq!(target(&search).1, Version::Five);
        search.failed(Cause::Version);
        assert_eq!(search.lost(Cause::Broken), Pause::Usual);
        assert_eq!(target(&search).1, Version::Five);
    }

    #[test]
    fn busy_goes_elsewhere_and_a_round_remembers_the_most_that_was_asked() {
        let mut search = search(2);
        assert_eq!(search.failed(Cause::Busy), Pause::None);
        assert_eq!(search.failed(Cause::Broken), Pause::Busy);
        assert_eq!(search.failed(Cause::Broken), Pause::None);
        assert_eq!(search.failed(Cause::Broken), Pause::Usual, "the next round is a new one");
        assert_eq!(search.lost(Cause::Busy), Pause::Busy);
        assert_eq!(target(&search).0, "mqtt://b1:1883");
        assert_eq!(search.lost(Cause::Broken), Pause::Usual);
        assert_eq!(target(&search).0, "mqtt://b0:1883");
    }
}
