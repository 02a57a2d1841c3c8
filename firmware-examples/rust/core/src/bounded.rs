//! A text of bounded size, for topics.

/// At most `N` bytes of UTF-8.
pub(crate) struct Bounded<const N: usize>([u8; N], usize);

impl<const N: usize> Bounded<N> {
    pub(crate) const fn new() -> Self {
        Self([0; N], 0)
    }

    pub(crate) fn as_str(&self) -> &str {
        core::str::from_utf8(&self.0[..self.1]).unwrap_or("")
    }
}

impl<const N: usize> core::fmt::Write for Bounded<N> {
    fn write_str(&mut self, s: &str) -> core::fmt::Result {
        let place = self.0.get_mut(self.1..self.1 + s.len()).ok_or(core::fmt::Error)?;
        place.copy_from_slice(s.as_bytes());
        self.1 += s.len();
        Ok(())
    }
}
