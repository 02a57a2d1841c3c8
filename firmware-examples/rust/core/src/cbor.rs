//! CBOR (RFC 8949) as far as minicbor needs an allocator for it: the length of an item of any shape.

use minicbor::Decoder;

/// Deepest nesting that is followed; a deeper item is refused.
pub const DEPTH_MAX: usize = 32;
const INDEFINITE: u64 = u64::MAX;

/// Bytes of the first item: definite and indefinite lengths, never by recursion. `None`: cut off, broken or too deep.
#[must_use]
pub fn item_len(bytes: &[u8]) -> Option<usize> {
    let mut open = [0u64; DEPTH_MAX];
    let (mut depth, mut at) = (1, 0);
    open[0] = 1;
    while depth > 0 {
        let left = &mut open[depth - 1];
        if *left == 0 {
            depth -= 1;
            continue;
        }
        if *left == INDEFINITE && bytes.get(at) == Some(&0xff) {
            at += 1;
            depth -= 1;
            continue;
        }
        let (inner, next) = head(bytes, at)?;
        at = next;
        if *left != INDEFINITE {
            *left -= 1;
        }
        if inner > 0 {
            *open.get_mut(depth)? = inner;
            depth += 1;
        }
    }
    Some(at)
}

/// Items within the item at `at`, and where what follows its head, or its bytes, begins.
fn head(bytes: &[u8], at: usize) -> Option<(u64, usize)> {
    let first = *bytes.get(at)?;
    let (major, info) = (first >> 5, first & 31);
    let size = match info {
        0..=23 | 31 => 0,
        24..=27 => 1usize << (info - 24),
        _ => return None,
    };
    let mut next = at + 1 + size;
    let number = bytes.get(at + 1..next)?.iter().fold(0u64, |n, byte| n << 8 | u64::from(*byte));
    let value = if size == 0 { u64::from(info) } else { number };
    let left = u64::try_from(bytes.len() - next).ok()?;
    let inner = match major {
        2..=5 if info == 31 => INDEFINITE,
        _ if info == 31 => return None,
        2 | 3 => {
            next += usize::try_from(value).ok().filter(|_| value <= left)?;
            0
        }
        4 => value,
        5 => value.checked_mul(2)?,
        6 => 1,
        _ => 0,
    };
    (inner == INDEFINITE || inner <= left).then_some((inner, next))
}

/// A text that may come in chunks.
#[derive(Debug, Clone, Copy)]
pub struct Text<'b>(&'b [u8]);

impl<'b> Text<'b> {
    pub(crate) fn new(item: &'b [u8]) -> Option<Self> {
        Decoder::new(item).str_iter().ok()?.all(|chunk| chunk.is_ok()).then_some(Self(item))
    }

    /// Its chunks in order.
    pub fn chunks(self) -> impl Iterator<Item = &'b str> {
        let mut decoder = Decoder::new(self.0);
        let chunks = decoder.str_iter().ok().map(|chunks| chunks.map_while(Result::ok));
        // The chunks borrow from the payload, not from the decoder; one text has few of them.
        let mut all = [""; CHUNKS_MAX];
        let mut count = 0;
        for (place, chunk) in all.iter_mut().zip(chunks.into_iter().flatten()) {
            *place = chunk;
            count += 1;
        }
        all.into_iter().take(count)
    }
}

/// Chunks of one text that are taken; a gateway sends one.
const CHUNKS_MAX: usize = 16;

impl PartialEq<str> for Text<'_> {
    fn eq(&self, other: &str) -> bool {
        let mut rest = other;
        self.chunks().all(|chunk| rest.strip_prefix(chunk).map(|after| rest = after).is_some()) && rest.is_empty()
    }
}
