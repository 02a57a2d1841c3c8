//! A link that can go silent without a FIN, be mended, or be torn.

use super::free_port;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// A TCP proxy on loopback.
pub(crate) struct Proxy {
    pub(crate) port: u16,
    silent: Arc<AtomicBool>,
    streams: Arc<Mutex<Vec<TcpStream>>>,
}

impl Proxy {
    pub(crate) fn to(target: u16) -> Self {
        let port = free_port();
        let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
        let (silent, streams) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Vec::new())));
        let proxy = Self { port, silent: silent.clone(), streams: streams.clone() };
        thread::spawn(move || {
            for near in listener.incoming().flatten() {
                let Ok(far) = TcpStream::connect(("127.0.0.1", target)) else { continue };
                for (from, to) in [(&near, &far), (&far, &near)] {
                    let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                    let silent = silent.clone();
                    thread::spawn(move || pass(from, to, &silent));
                }
                streams.lock().unwrap().extend([near, far]);
            }
        });
        proxy
    }

    /// Nothing passes any more, nobody is told.
    pub(crate) fn cut(&self) {
        self.silent.store(true, Ordering::SeqCst);
    }

    /// New connections pass; old ones, whose bytes are lost, are torn.
    pub(crate) fn mend(&self) {
        for stream in self.streams.lock().unwrap().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
        self.silent.store(false, Ordering::SeqCst);
    }
}

/// Passes bytes on; while the link is silent they are lost, as on a radio out of reach.
fn pass(mut from: TcpStream, mut to: TcpStream, silent: &AtomicBool) {
    let mut buffer = [0; 4096];
    let _ = from.set_read_timeout(Some(Duration::from_secs(300)));
    while let Ok(read) = from.read(&mut buffer) {
        if read == 0 || !silent.load(Ordering::SeqCst) && to.write_all(&buffer[..read]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
}
