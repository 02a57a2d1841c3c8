//! Who hears of which device.
//!
//! Invariant: what a [`Crowd`] says of nobody else holds for every subscription that was acknowledged before.

use crate::hall::ConnId;
use crate::rights::Reach;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tidegate_schemas::DeviceId;

/// Connections by what they hear of.
#[derive(Debug, Default)]
pub(crate) struct Audience {
    by_device: HashMap<DeviceId, Vec<ConnId>>,
    all_local: Vec<ConnId>,
    all: Vec<ConnId>,
    replies: Vec<ConnId>,
    pub(crate) crowd: Arc<Crowd>,
}

/// Whether some device may be heard of by more than one connection, for the connections themselves: mostly each hears of
/// its own device only, and what it is told itself need not go through the hall.
#[derive(Debug, Default)]
pub(crate) struct Crowd {
    /// Connections that hear of more than one device, and devices that more than one hears of.
    wide: AtomicUsize,
    /// Changes that the hall has not taken in.
    moving: AtomicUsize,
}

impl Crowd {
    /// The hall is about to be told what a connection hears of.
    pub(crate) fn moves(&self) {
        self.moving.fetch_add(1, Ordering::AcqRel);
    }

    /// It has taken that in, or will not.
    pub(crate) fn moved(&self) {
        self.moving.fetch_sub(1, Ordering::AcqRel);
    }

    /// Whether of each device at most one connection hears.
    pub(crate) fn is_thin(&self) -> bool {
        self.moving.load(Ordering::Acquire) == 0 && self.wide.load(Ordering::Acquire) == 0
    }
}

impl Audience {
    pub(crate) fn new(crowd: Arc<Crowd>) -> Self {
        Self { crowd, ..Self::default() }
    }

    /// The connection hears of all this besides.
    pub(crate) fn join(&mut self, conn: ConnId, reaches: &[Reach]) {
        for reach in reaches {
            let conns = self.hearers(reach);
            if conns.contains(&conn) {
                continue;
            }
            conns.push(conn);
            let widens = !matches!(reach, Reach::One(_)) || conns.len() == 2;
            self.crowd.wide.fetch_add(usize::from(widens), Ordering::AcqRel);
        }
    }

    /// The connection hears of this no more.
    pub(crate) fn leave(&mut self, conn: ConnId, reaches: &[Reach]) {
        for reach in reaches {
            let conns = self.hearers(reach);
            let Some(at) = conns.iter().position(|c| *c == conn) else { continue };
            conns.remove(at);
            let (narrows, empty) = (!matches!(reach, Reach::One(_)) || conns.len() == 1, conns.is_empty());
            self.crowd.wide.fetch_sub(usize::from(narrows), Ordering::AcqRel);
            if let (true, Reach::One(device)) = (empty, reach) {
                self.by_device.remove(device);
            }
        }
    }

    fn hearers(&mut self, reach: &Reach) -> &mut Vec<ConnId> {
        match reach {
            Reach::AllLocal => &mut self.all_local,
            Reach::All => &mut self.all,
            Reach::Replies => &mut self.replies,
            Reach::One(device) => self.by_device.entry(device.clone()).or_default(),
        }
    }

    /// Who may hear of the device, each once; `elsewhere` is for what goes to a Response Topic.
    pub(crate) fn of(&self, device: &DeviceId, elsewhere: bool) -> impl Iterator<Item = ConnId> {
        let named = self.by_device.get(device).map_or(&[][..], Vec::as_slice);
        let local = if Reach::AllLocal.covers(device) { self.all_local.as_slice() } else { &[] };
        let replies = if elsewhere { self.replies.as_slice() } else { &[] };
        let lists = [named, local, self.all.as_slice(), replies];
        let first = move |at: usize, conn: &ConnId| !lists[..at].iter().any(|list| list.contains(conn));
        lists
            .into_iter()
            .enumerate()
            .flat_map(move |(at, list)| list.iter().copied().filter(move |conn| first(at, conn)))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_crowd_is_thin_while_of_each_device_one_hears() {
        let crowd = Arc::<Crowd>::default();
        let mut audience = Audience::new(Arc::clone(&crowd));
        let device = |name: &str| name.parse::<DeviceId>().unwrap();
        let one = |name| [Reach::One(device(name))];
        audience.join(1, &one("a"));
        audience.join(2, &one("b"));
        assert!(crowd.is_thin());
        audience.join(3, &one("a"));
        audience.join(3, &one("a"));
        assert!(!crowd.is_thin());
        assert_eq!(audience.of(&device("a"), false).collect::<Vec<_>>(), [1, 3]);
        audience.leave(1, &one("a"));
        assert!(crowd.is_thin());
        crowd.moves();
        assert!(!crowd.is_thin(), "somebody may listen whom the hall does not know yet");
        crowd.moved();
        audience.join(4, &[Reach::All, Reach::One(device("b"))]);
        assert_eq!(audience.of(&device("b"), false).collect::<Vec<_>>(), [2, 4], "each once");
        assert!(!crowd.is_thin());
        audience.leave(4, &[Reach::All, Reach::One(device("b"))]);
        audience.leave(3, &one("a"));
        audience.leave(3, &one("a"));
        assert!(crowd.is_thin());
        assert_eq!(audience.of(&device("a"), true).count(), 0);
    }
}
