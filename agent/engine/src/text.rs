//! Bytes of tokens become text: whole characters only, and the same text however the bytes were cut.

/// Text that grows byte by byte.
#[derive(Default)]
pub(crate) struct Growing {
    text: String,
    /// The begin of a character that is not whole yet: at most three bytes.
    held: Vec<u8>,
    /// How much of the text was taken by `piece`.
    taken: usize,
}

impl Growing {
    /// Adds bytes. What can never become a character turns into U+FFFD; what may still become one is held.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.held.extend_from_slice(bytes);
        let held = std::mem::take(&mut self.held);
        let mut rest = held.as_slice();
        loop {
            match std::str::from_utf8(rest) {
                Ok(text) => return self.text.push_str(text),
                Err(e) => {
                    let (valid, broken) = rest.split_at(e.valid_up_to());
                    self.text.push_str(std::str::from_utf8(valid).expect("checked up to here"));
                    let Some(invalid) = e.error_len() else {
                        self.held = broken.to_vec();
                        return;
                    };
                    self.text.push(char::REPLACEMENT_CHARACTER);
                    rest = &broken[invalid..];
                }
            }
        }
    }

    /// Gives up on the character that is held.
    pub(crate) fn close(&mut self) {
        if !self.held.is_empty() {
            self.held.clear();
            self.text.push(char::REPLACEMENT_CHARACTER);
        }
    }

    /// What was added since the last call.
    pub(crate) fn piece(&mut self) -> &str {
        let piece = &self.text[self.taken..];
        self.taken = self.text.len();
        piece
    }

    /// Bytes of text and of what is held.
    pub(crate) fn len(&self) -> usize {
        self.text.len() + self.held.len()
    }

    pub(crate) fn into_text(self) -> String {
        self.text
    }
}

#[cfg(test)]
mod tests {
    use super::Growing;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_cut_does_not_matter(bytes in prop::collection::vec(any::<u8>(), 0..60), cuts in 1_usize..7) {
            let mut growing = Growing::default();
            let mut streamed = String::new();
            for chunk in bytes.chunks(cuts) {
                growing.push(chunk);
                streamed.push_str(growing.piece());
            }
            growing.close();
            streamed.push_str(growing.piece());
            let text = growing.into_text();
            prop_assert_eq!(&streamed, &text);
            prop_assert_eq!(text, String::from_utf8_lossy(&bytes));
        }

        #[test]
        fn text_comes_through(text in "\\PC{0,40}", cut in 1_usize..5) {
            let mut growing = Growing::default();
            text.as_bytes().chunks(cut).for_each(|chunk| growing.push(chunk));
            growing.close();
            prop_assert_eq!(growing.into_text(), text);
        }
    }
}
