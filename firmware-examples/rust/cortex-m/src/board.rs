//! Start-up, time, console, random numbers: an Arm Cortex-M3 as QEMU's mps2-an385 has it.

use core::arch::asm;
use core::cell::RefCell;
use core::ptr::{read_volatile, write_volatile};
use core::task::Waker;
use critical_section::Mutex;
use embassy_time_driver::Driver;
use embassy_time_queue_utils::Queue;

/// CMSDK UART 0
const UART_DATA: usize = 0x4000_4000;
const UART_STATE: usize = 0x4000_4004;
const UART_CONTROL: usize = 0x4000_4008;
const UART_DIVIDER: usize = 0x4000_4010;
/// Hundredths of a second: goes on while interrupts wait, which counting them would not.
const HUNDREDTHS: usize = 0x4002_8014;
const CLOCK_HZ: u32 = 25_000_000;
/// How often the processor looks at timers and at the network.
const TICKS_HZ: u32 = 500;

/// Arm semihosting 2.0
const SYS_OPEN: u32 = 0x01;
const SYS_CLOSE: u32 = 0x02;
const SYS_READ: u32 = 0x06;
const SYS_GET_CMDLINE: u32 = 0x15;
const SYS_EXIT_EXTENDED: u32 = 0x20;
const APPLICATION_EXIT: u32 = 0x2_0026;

pub fn read(address: usize) -> u32 {
    // SAFETY: the addresses of this crate are registers of the board; reading 32 bits of one is always possible.
    unsafe { read_volatile(address as *const u32) }
}

pub fn write(address: usize, value: u32) {
    // SAFETY: as in `read`; no register of this crate lets the device reach memory.
    unsafe { write_volatile(address as *mut u32, value) }
}

fn semihost(operation: u32, argument: *const u32) -> u32 {
    let result;
    // SAFETY: QEMU reads and writes only the block of words, and the buffers that it names, which outlive the call.
    unsafe { asm!("bkpt 0xab", inout("r0") operation => result, in("r1") argument) };
    result
}

/// Ends the emulation with this exit status. A real board would reset or sleep.
pub fn exit(status: u32) -> ! {
    semihost(SYS_EXIT_EXTENDED, [APPLICATION_EXIT, status].as_ptr());
    loop {
        cortex_m::asm::wfi();
    }
}

/// The emulator's `/dev/urandom`. A real board has a generator of its own.
pub fn random() -> u32 {
    let name = b"/dev/urandom\0";
    let mut number = 0u32;
    let file = semihost(SYS_OPEN, [name.as_ptr() as u32, 1, name.len() as u32 - 1].as_ptr());
    let left = semihost(SYS_READ, [file, (&raw mut number) as u32, 4].as_ptr());
    semihost(SYS_CLOSE, [file].as_ptr());
    if file == u32::MAX || left != 0 { exit(70) } else { number }
}

/// What the board was started with; how many bytes it is. A real board has its settings in flash.
pub fn arguments(out: &mut [u8]) -> usize {
    let mut block = [out.as_mut_ptr() as u32, out.len() as u32];
    let failed = semihost(SYS_GET_CMDLINE, (&raw mut block).cast());
    // SAFETY: `block` is ours; QEMU wrote the length into it behind the compiler's back.
    let len = unsafe { read_volatile(&raw const block[1]) } as usize;
    if failed == 0 && len <= out.len() { len } else { 0 }
}

/// One byte to the serial port.
pub fn put(byte: u8) {
    while read(UART_STATE) & 1 != 0 {}
    write(UART_DATA, byte.into());
}

/// Serial port and ticks.
pub fn start() {
    write(UART_DIVIDER, 16);
    write(UART_CONTROL, 1);
    if let Some(mut core) = cortex_m::Peripherals::take() {
        core.SYST.set_reload(CLOCK_HZ / TICKS_HZ - 1);
        core.SYST.clear_current();
        core.SYST.enable_interrupt();
        core.SYST.enable_counter();
    }
}

/// Time for embassy: milliseconds from the board's counter, timers looked at with each tick.
struct Time {
    queue: Mutex<RefCell<Queue>>,
}

embassy_time_driver::time_driver_impl!(static TIME: Time = Time { queue: Mutex::new(RefCell::new(Queue::new())) });

impl Driver for Time {
    fn now(&self) -> u64 {
        u64::from(read(HUNDREDTHS)) * 10
    }

    fn schedule_wake(&self, at: u64, waker: &Waker) {
        critical_section::with(|cs| {
            self.queue.borrow_ref_mut(cs).schedule_wake(at, waker);
        });
    }
}

#[cortex_m_rt::exception]
fn SysTick() {
    critical_section::with(|cs| TIME.queue.borrow_ref_mut(cs).next_expiration(TIME.now()));
    crate::lan9118::tick();
}
