//! One prompt from a bare-metal Cortex-M3 over Ethernet: embassy, smoltcp, MQTT 5. The board is QEMU's mps2-an385; what a
//! real one does another way stands in `board.rs` and `lan9118.rs`.
//!
//! Settings stand in `tidegate_device::Settings`; under QEMU `-semihosting-config arg=key=value` changes them. The exit
//! status is the outcome, as in all examples; 65: no network.
#![no_std]
#![no_main]

mod board;
mod console;
mod lan9118;

use console::println;
use embassy_executor::{Executor, Spawner};
use embassy_net::tcp::TcpSocket;
use embassy_net::{Config, IpEndpoint, Ipv4Address, Runner, Stack, StackResources};
use embassy_time::{Duration, Instant, Timer, with_timeout};
use lan9118::Lan9118;
use static_cell::StaticCell;
use tidegate_device::{Ask, Clock, Dial, Outcome, Settings};

/// DHCP asks more than once on a slow network.
const NETWORK_WAIT: Duration = Duration::from_secs(60);
const NO_NETWORK: u32 = 65;
/// Of each direction of the connection: a frame of the largest size and what is around it.
const SOCKET_BYTES: usize = 4608;
/// No prompt waits longer for one piece of TCP.
const SOCKET_WAIT: Duration = Duration::from_secs(60);
const ARGUMENT_BYTES_MAX: usize = 1024;

struct Now;

impl Clock for Now {
    fn now_ms(&self) -> u64 {
        Instant::now().as_millis()
    }

    async fn sleep_ms(&self, ms: u32) {
        Timer::after_millis(ms.into()).await;
    }
}

struct Tcp {
    stack: Stack<'static>,
    gateway: IpEndpoint,
    rx: [u8; SOCKET_BYTES],
    tx: [u8; SOCKET_BYTES],
}

impl Dial for Tcp {
    type Link<'l> = TcpSocket<'l>;

    async fn open(&mut self) -> Option<Self::Link<'_>> {
        let mut socket = TcpSocket::new(self.stack, &mut self.rx, &mut self.tx);
        socket.set_timeout(Some(SOCKET_WAIT));
        socket.set_nagle_enabled(false);
        socket.connect(self.gateway).await.ok()?;
        Some(socket)
    }
}

#[embassy_executor::task]
async fn network(mut runner: Runner<'static, Lan9118>) -> ! {
    runner.run().await
}

/// QEMU joins the arguments with spaces, so a space within one is written as `+`. The first is the program's name.
fn take_arguments(bytes: &mut [u8]) -> Option<Settings<'_>> {
    let len = board::arguments(bytes);
    bytes[..len].iter_mut().filter(|byte| **byte == b' ').for_each(|byte| *byte = 0);
    bytes[..len].iter_mut().filter(|byte| **byte == b'+').for_each(|byte| *byte = b' ');
    let mut settings = Settings::default();
    let text = core::str::from_utf8(&bytes[..len]).ok()?;
    for pair in text.trim_end_matches('\0').split('\0').skip(1) {
        settings.take(pair).ok()?;
    }
    Some(settings)
}

async fn ask(stack: Stack<'static>, settings: Settings<'_>) -> u32 {
    if with_timeout(NETWORK_WAIT, stack.wait_config_up()).await.is_err() {
        println!("end {NO_NETWORK} no address from DHCP");
        return NO_NETWORK;
    }
    let Ok(address) = settings.host.parse::<Ipv4Address>() else {
        println!("end 64 the host is no address");
        return Outcome::Usage as u32;
    };
    static TCP: StaticCell<Tcp> = StaticCell::new();
    let gateway = IpEndpoint::new(address.into(), settings.port);
    let tcp = TCP.init_with(|| Tcp { stack, gateway, rx: [0; SOCKET_BYTES], tx: [0; SOCKET_BYTES] });
    // A number drawn at every start and a counter: no other prompt of this device has this id.
    let made = console::id(board::random());
    let id = settings.id.unwrap_or(made.as_str());
    println!("id {id}");
    let mut ask = Ask::new(settings, id, Now, |said| println!("{said}"));
    let end = ask.run(tcp).await;
    if ask.dropped() > 0 {
        println!("dropped {}", ask.dropped());
    }
    // What is left in the connection goes out before the board is switched off.
    Timer::after_millis(50).await;
    println!("end {} {}", end.outcome as u32, end.why);
    end.outcome as u32
}

#[embassy_executor::task]
async fn run(spawner: Spawner) -> ! {
    static ARGUMENTS: StaticCell<[u8; ARGUMENT_BYTES_MAX]> = StaticCell::new();
    static RESOURCES: StaticCell<StackResources<3>> = StaticCell::new();
    let Some(settings) = take_arguments(ARGUMENTS.init([0; ARGUMENT_BYTES_MAX])) else {
        println!("end 64 not a setting");
        board::exit(Outcome::Usage as u32)
    };
    let seed = u64::from(board::random()) << 32 | u64::from(board::random());
    let resources = RESOURCES.init(StackResources::new());
    let (stack, runner) = embassy_net::new(Lan9118::start(), Config::dhcpv4(Default::default()), resources, seed);
    match network(runner) {
        Ok(token) => spawner.spawn(token),
        Err(_) => board::exit(70),
    }
    board::exit(ask(stack, settings).await)
}

#[cortex_m_rt::entry]
fn main() -> ! {
    static EXECUTOR: StaticCell<Executor> = StaticCell::new();
    board::start();
    EXECUTOR.init(Executor::new()).run(|spawner| match run(spawner) {
        Ok(token) => spawner.spawn(token),
        Err(_) => board::exit(70),
    })
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    board::exit(70)
}
