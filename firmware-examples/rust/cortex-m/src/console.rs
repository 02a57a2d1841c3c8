//! Lines on the serial port, and the id of a prompt.

use crate::board;
use core::fmt;

/// The serial port.
pub struct Console;

impl fmt::Write for Console {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        text.bytes().for_each(board::put);
        Ok(())
    }
}

macro_rules! println {
    ($($what:tt)*) => {{
        use core::fmt::Write as _;
        // The serial port takes everything.
        let _ = writeln!($crate::console::Console, $($what)*);
    }};
}
pub(crate) use println;

/// `b3f1a204-1`
pub struct Id([u8; 10]);

impl Id {
    pub fn as_str(&self) -> &str {
        core::str::from_utf8(&self.0).unwrap_or("0-1")
    }
}

pub fn id(boot: u32) -> Id {
    let mut bytes = *b"00000000-1";
    for (place, byte) in bytes[..8].iter_mut().enumerate() {
        let digit = (boot >> (28 - 4 * place) & 15) as u8;
        *byte = if digit < 10 { b'0' + digit } else { b'a' + digit - 10 };
    }
    Id(bytes)
}
