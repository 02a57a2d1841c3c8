//! One prompt from a machine with an operating system, by the device crate: `tidegate-ask port=1883 device=local-1 …`.
//!
//! Exit status: 0 an answer, 1 none in time, 2 the gateway said why there is none, 3 no connection, 64 usage.

use embedded_io_adapters::tokio_1::FromTokio;
use std::process::ExitCode;
use std::time::{Duration, Instant};
use tidegate_device::{Ask, Clock, Dial, Outcome, Settings};
use tokio::net::TcpStream;

struct Tcp(String);

impl Dial for Tcp {
    type Link<'l> = FromTokio<TcpStream>;

    async fn open(&mut self) -> Option<Self::Link<'_>> {
        let stream = TcpStream::connect(&self.0).await.ok()?;
        // A PUBACK that waits for the peer's acknowledgement of what went before it is lost when we leave.
        stream.set_nodelay(true).ok()?;
        Some(FromTokio::new(stream))
    }
}

struct Monotonic(Instant);

impl Clock for Monotonic {
    fn now_ms(&self) -> u64 {
        u64::try_from(self.0.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    async fn sleep_ms(&self, ms: u32) {
        tokio::time::sleep(Duration::from_millis(ms.into())).await;
    }
}

async fn ask(settings: Settings<'_>, id: &str) -> Outcome {
    let mut dial = Tcp(format!("{}:{}", settings.host, settings.port));
    println!("id {id}");
    let mut ask = Ask::new(settings, id, Monotonic(Instant::now()), |said| println!("{said}"));
    let end = ask.run(&mut dial).await;
    if ask.dropped() > 0 {
        println!("dropped {}", ask.dropped());
    }
    println!("end {} {}", end.outcome as u8, end.why);
    end.outcome
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let mut settings = Settings::default();
    for pair in &arguments {
        if let Err(error) = settings.take(pair) {
            eprintln!("not a setting: {pair}: {error:?}");
            return ExitCode::from(Outcome::Usage as u8);
        }
    }
    // A number drawn at every start and a counter: no other prompt of this device has this id.
    let Ok(boot) = getrandom::u32() else {
        eprintln!("no random numbers");
        return ExitCode::from(Outcome::Usage as u8);
    };
    let made = format!("{boot:08x}-1");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    match runtime {
        Ok(runtime) => ExitCode::from(runtime.block_on(ask(settings, settings.id.unwrap_or(&made))) as u8),
        Err(error) => {
            eprintln!("cannot start: {error}");
            ExitCode::from(Outcome::Usage as u8)
        }
    }
}
