//! SMSC LAN9118 Ethernet for embassy-net, looked at with each tick: one frame at a time through its FIFOs.

use crate::board::{read, write};
use core::task::Context;
use embassy_net::driver::{Capabilities, Driver, HardwareAddress, LinkState, RxToken, TxToken};
use embassy_sync::waitqueue::AtomicWaker;

const BASE: usize = 0x4020_0000;
const RX_DATA: usize = BASE;
const TX_DATA: usize = BASE + 0x20;
const RX_STATUS: usize = BASE + 0x40;
const RX_CONFIG: usize = BASE + 0x6c;
const TX_CONFIG: usize = BASE + 0x70;
const RX_USED: usize = BASE + 0x7c;
const TX_FREE: usize = BASE + 0x80;
const MAC_COMMAND: usize = BASE + 0xa4;
const MAC_VALUE: usize = BASE + 0xa8;

const MAC_BUSY: u32 = 0x8000_0000;
const MAC_READ: u32 = 0x4000_0000;
const MAC_CONTROL: u32 = 1;
const MAC_ADDRESS_HIGH: u32 = 2;
const MAC_ADDRESS_LOW: u32 = 3;
/// Transmitter and receiver.
const MAC_ON: u32 = 0xc;
const TX_ON: u32 = 2;
const FIRST_AND_LAST: u32 = 0x3000;
const FRAME_BYTES_MAX: usize = 1514;
const CHECKSUM_BYTES: usize = 4;

type Frame = [u8; FRAME_BYTES_MAX + CHECKSUM_BYTES + 3];

static WAKER: AtomicWaker = AtomicWaker::new();

/// With each tick: whoever waits for the network looks again.
pub fn tick() {
    WAKER.wake();
}

/// The board's network.
pub struct Lan9118 {
    address: [u8; 6],
}

fn mac_read(which: u32) -> u32 {
    write(MAC_COMMAND, MAC_BUSY | MAC_READ | which);
    while read(MAC_COMMAND) & MAC_BUSY != 0 {}
    read(MAC_VALUE)
}

fn mac_write(which: u32, value: u32) {
    write(MAC_VALUE, value);
    write(MAC_COMMAND, MAC_BUSY | which);
    while read(MAC_COMMAND) & MAC_BUSY != 0 {}
}

impl Lan9118 {
    /// Switches transmitter and receiver on.
    pub fn start() -> Self {
        let low = mac_read(MAC_ADDRESS_LOW).to_le_bytes();
        let high = mac_read(MAC_ADDRESS_HIGH).to_le_bytes();
        write(RX_CONFIG, 0);
        write(TX_CONFIG, TX_ON);
        mac_write(MAC_CONTROL, mac_read(MAC_CONTROL) | MAC_ON);
        Self { address: [low[0], low[1], low[2], low[3], high[0], high[1]] }
    }
}

fn has_room() -> bool {
    (read(TX_FREE) & 0xffff) as usize >= FRAME_BYTES_MAX + 16
}

/// A frame that waits in the FIFO.
pub struct Received;

impl RxToken for Received {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, take: F) -> R {
        let len = (read(RX_STATUS) >> 16 & 0x3fff) as usize;
        let mut frame: Frame = [0; _];
        for word in 0..len.div_ceil(4) {
            let bytes = read(RX_DATA).to_le_bytes();
            if let Some(place) = frame.get_mut(word * 4..word * 4 + 4) {
                place.copy_from_slice(&bytes);
            }
        }
        take(&mut frame[..len.saturating_sub(CHECKSUM_BYTES).min(FRAME_BYTES_MAX)])
    }
}

/// Room for a frame.
pub struct Sent;

impl TxToken for Sent {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, fill: F) -> R {
        let mut frame: Frame = [0; _];
        let len = len.min(FRAME_BYTES_MAX);
        let result = fill(&mut frame[..len]);
        write(TX_DATA, FIRST_AND_LAST | len as u32);
        write(TX_DATA, len as u32);
        for word in frame[..len.next_multiple_of(4)].chunks_exact(4) {
            write(TX_DATA, u32::from_le_bytes([word[0], word[1], word[2], word[3]]));
        }
        result
    }
}

impl Driver for Lan9118 {
    type RxToken<'a> = Received;
    type TxToken<'a> = Sent;

    fn receive(&mut self, context: &mut Context<'_>) -> Option<(Received, Sent)> {
        WAKER.register(context.waker());
        (read(RX_USED) >> 16 & 0xff > 0 && has_room()).then_some((Received, Sent))
    }

    fn transmit(&mut self, context: &mut Context<'_>) -> Option<Sent> {
        WAKER.register(context.waker());
        has_room().then_some(Sent)
    }

    fn link_state(&mut self, _: &mut Context<'_>) -> LinkState {
        LinkState::Up
    }

    fn capabilities(&self) -> Capabilities {
        let mut capabilities = Capabilities::default();
        capabilities.max_transmission_unit = FRAME_BYTES_MAX;
        capabilities.max_burst_size = Some(1);
        capabilities
    }

    fn hardware_address(&self) -> HardwareAddress {
        HardwareAddress::Ethernet(self.address)
    }
}
