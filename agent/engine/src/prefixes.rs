//! Which prefixes stay computed: a radix tree over their tokens, each kept one with a sequence of its own.
//!
//! Invariants: a sequence belongs to one prefix at most; all kept prefixes together have no more tokens than the budget,
//! so that the cells set aside for them suffice (tokens that two of them share stand in the same cells and count once);
//! a pinned one stays; of the others the least recently used goes first; every leaf of the tree is kept.

use llama_cpp_2::token::LlamaToken;

/// Whether a kept sequence can be cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sharing {
    /// At every token: plain attention, whose cells stand for one token each.
    Parts,
    /// Not at all: a recurrent state or a window that slides is that of its last token.
    Whole,
}

/// Who may take a prefix away again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pin {
    /// Nobody: a template of a task.
    Pinned,
    /// Whoever comes later and needs the room.
    ByUse,
}

/// Tokens that stand in a sequence, from its begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) sequence: i32,
    pub(crate) tokens: usize,
}

/// Where a new prefix goes, what has to be cleared before, and what another one holds of it already.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) sequence: i32,
    pub(crate) clear: Vec<i32>,
    pub(crate) shared: Option<Part>,
}

/// The prefixes that stand in the cache.
pub(crate) struct Prefixes {
    root: Node,
    free: Vec<i32>,
    budget: usize,
    sharing: Sharing,
    /// Counts uses.
    now: u64,
}

/// The tokens between two branches, and what follows them.
#[derive(Default)]
struct Node {
    edge: Vec<LlamaToken>,
    /// Each begins with another token.
    children: Vec<Node>,
    kept: Option<Kept>,
}

#[derive(Clone, Copy)]
struct Kept {
    sequence: i32,
    used: u64,
    pin: Pin,
}

impl Prefixes {
    /// Room for as many prefixes as there are sequences, and for `budget` tokens.
    pub(crate) fn new(sequences: std::ops::Range<i32>, budget: usize, sharing: Sharing) -> Self {
        Self { root: Node::default(), free: sequences.collect(), budget, sharing, now: 0 }
    }

    /// The longest begin of these tokens that stands in a sequence.
    pub(crate) fn longest(&mut self, tokens: &[LlamaToken]) -> Option<Part> {
        let found = self.root.longest(tokens, self.sharing, Pin::ByUse)?;
        self.now += 1;
        let now = self.now;
        self.root.visit(&mut |kept| kept.used = if kept.sequence == found.sequence { now } else { kept.used });
        Some(found)
    }

    /// Whether exactly these tokens stand; if so, they are pinned from now on where that is asked.
    pub(crate) fn stands(&mut self, tokens: &[LlamaToken], pin: Pin) -> Option<i32> {
        let kept = self.root.at(tokens)?.kept.as_mut()?;
        if pin == Pin::Pinned {
            kept.pin = pin;
        }
        Some(kept.sequence)
    }

    /// A place for these tokens; none when they stand already, or never fit beside what is pinned.
    pub(crate) fn place(&mut self, tokens: &[LlamaToken], pin: Pin) -> Option<Place> {
        if tokens.is_empty() || self.stands(tokens, pin).is_some() || !self.fits(tokens, Pin::Pinned) {
            return None;
        }
        let mut clear = Vec::new();
        while self.free.is_empty() || !self.fits(tokens, Pin::ByUse) {
            let evicted = self.root.oldest().expect("beside what is pinned there is room, so another one stands");
            self.remove(evicted);
            clear.push(evicted);
        }
        let sequence = self.free.pop()?;
        let shared = self.root.longest(tokens, self.sharing, Pin::ByUse);
        let shared = shared.filter(|_| self.sharing == Sharing::Parts);
        self.now += 1;
        self.root.insert(tokens, Kept { sequence, used: self.now, pin });
        Some(Place { sequence, clear, shared })
    }

    /// Takes a prefix out; its sequence is for the caller to clear.
    pub(crate) fn remove(&mut self, sequence: i32) {
        if self.root.remove(sequence) {
            self.free.push(sequence);
        }
    }

    /// Forgets all, because the cache was cleared.
    pub(crate) fn forget(&mut self) {
        let free = &mut self.free;
        self.root.visit(&mut |kept| free.push(kept.sequence));
        self.root = Node::default();
    }

    /// Whether these tokens fit beside what is kept: beside the pinned alone, or all.
    fn fits(&self, tokens: &[LlamaToken], beside: Pin) -> bool {
        let shared = match self.sharing {
            Sharing::Parts => self.root.longest(tokens, self.sharing, beside).map_or(0, |part| part.tokens),
            Sharing::Whole => 0,
        };
        let sequences = beside == Pin::ByUse || !self.free.is_empty() || self.root.oldest().is_some();
        sequences && self.root.held(0, self.sharing, beside) + tokens.len() - shared <= self.budget
    }

    #[cfg(test)]
    fn held(&self) -> usize {
        self.root.held(0, self.sharing, Pin::ByUse)
    }
}

impl Node {
    /// A kept prefix in this part of the tree; with [`Pin::Pinned`] only a pinned one.
    fn any(&self, of: Pin) -> Option<i32> {
        let own = self.kept.filter(|kept| of == Pin::ByUse || kept.pin == Pin::Pinned).map(|kept| kept.sequence);
        own.or_else(|| self.children.iter().find_map(|child| child.any(of)))
    }

    fn child(&self, token: Option<&LlamaToken>) -> Option<usize> {
        self.children.iter().position(|child| child.edge.first() == token)
    }

    fn longest(&self, tokens: &[LlamaToken], sharing: Sharing, of: Pin) -> Option<Part> {
        let (mut node, mut depth, mut found) = (self, 0, None);
        while let Some(child) = node.child(tokens.get(depth)) {
            let child = &node.children[child];
            let common = child.edge.iter().zip(&tokens[depth..]).take_while(|(a, b)| a == b).count();
            depth += common;
            let whole = common == child.edge.len();
            let sequence = match sharing {
                Sharing::Parts => child.any(of),
                Sharing::Whole => child.kept.filter(|_| whole).map(|kept| kept.sequence),
            };
            found = sequence.map(|sequence| Part { sequence, tokens: depth }).or(found);
            if !whole {
                break;
            }
            node = child;
        }
        found
    }

    /// The node at which exactly these tokens end.
    fn at(&mut self, tokens: &[LlamaToken]) -> Option<&mut Node> {
        if tokens.is_empty() {
            return Some(self);
        }
        let child = self.child(tokens.first())?;
        let child = &mut self.children[child];
        let rest = tokens.strip_prefix(child.edge.as_slice())?;
        child.at(rest)
    }

    fn insert(&mut self, tokens: &[LlamaToken], kept: Kept) {
        let Some(first) = tokens.first() else {
            self.kept = Some(kept);
            return;
        };
        let Some(child) = self.child(Some(first)) else {
            self.children.push(Node { edge: tokens.to_vec(), children: Vec::new(), kept: Some(kept) });
            return;
        };
        let child = &mut self.children[child];
        let common = child.edge.iter().zip(tokens).take_while(|(a, b)| a == b).count();
        if common < child.edge.len() {
            let rest = child.edge.split_off(common);
            let below = Node { edge: rest, children: std::mem::take(&mut child.children), kept: child.kept.take() };
            child.children.push(below);
        }
        child.insert(&tokens[common..], kept);
    }

    /// Takes a kept prefix out, and the nodes that nothing needs any more; whether it was there.
    fn remove(&mut self, sequence: i32) -> bool {
        if self.kept.is_some_and(|kept| kept.sequence == sequence) {
            self.kept = None;
            return true;
        }
        let Some(at) = self.children.iter_mut().position(|child| child.remove(sequence)) else { return false };
        let child = &mut self.children[at];
        if child.kept.is_none() && child.children.is_empty() {
            self.children.remove(at);
        } else if child.kept.is_none() && child.children.len() == 1 {
            let below = child.children.remove(0);
            child.edge.extend_from_slice(&below.edge);
            child.children = below.children;
            child.kept = below.kept;
        }
        true
    }

    /// The prefix that nobody pinned and that was not used for longest.
    fn oldest(&self) -> Option<i32> {
        self.oldest_used().map(|(_, sequence)| sequence)
    }

    fn oldest_used(&self) -> Option<(u64, i32)> {
        let own = self.kept.filter(|kept| kept.pin == Pin::ByUse).map(|kept| (kept.used, kept.sequence));
        own.into_iter().chain(self.children.iter().filter_map(Node::oldest_used)).min()
    }

    /// Tokens that stand in the cache for this part of the tree; `depth` stand before it.
    fn held(&self, depth: usize, sharing: Sharing, of: Pin) -> usize {
        let depth = depth + self.edge.len();
        let below: usize = self.children.iter().map(|child| child.held(depth, sharing, of)).sum();
        let own = match sharing {
            Sharing::Parts => self.any(of).map_or(0, |_| self.edge.len()),
            Sharing::Whole => self.kept.filter(|kept| of == Pin::ByUse || kept.pin == of).map_or(0, |_| depth),
        };
        own + below
    }

    fn visit(&mut self, see: &mut dyn FnMut(&mut Kept)) {
        self.kept.iter_mut().for_each(&mut *see);
        self.children.iter_mut().for_each(|child| child.visit(see));
    }
}

#[cfg(test)]
#[path = "prefixes_tests.rs"]
mod tests;
