//! A central broker that takes every connection, grants every subscription, acknowledges every publish, answers every
//! ping, and after a while carries nothing any more: only what should come back tells that it is dead.

use crate::brokers::packet;
use crate::support::{Setup, until};
use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

/// The last level of the topic that only canaries use.
const CANARY: &[u8] = b"/event/canary";

/// What it counts, and whether it carries.
#[derive(Default)]
struct Counts {
    connections: AtomicUsize,
    carried: AtomicUsize,
    swallowed: AtomicUsize,
    mute: AtomicBool,
}

/// A broker of MQTT 5 that carries a publisher's own canaries, until it is told to carry nothing on what is connected.
struct Mute {
    port: u16,
    counts: Arc<Counts>,
}

impl Mute {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (port, counts) = (listener.local_addr().unwrap().port(), Arc::<Counts>::default());
        let shared = counts.clone();
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let shared = shared.clone();
                // What was mute is of the connection before: a new one carries.
                shared.mute.store(false, Ordering::SeqCst);
                shared.connections.fetch_add(1, Ordering::SeqCst);
                thread::spawn(move || serve(client, &shared));
            }
        });
        Self { port, counts }
    }

    fn count(&self, of: fn(&Counts) -> &AtomicUsize) -> usize {
        of(&self.counts).load(Ordering::SeqCst)
    }
}

fn serve(mut client: TcpStream, counts: &Counts) {
    client.set_nodelay(true).unwrap();
    while let Some(packet) = packet(&mut client) {
        let Some(answer) = answer(&packet, counts) else { return };
        if client.write_all(&answer).is_err() {
            return;
        }
    }
}

/// What it says to a packet; none when the client says goodbye.
fn answer(packet: &[u8], counts: &Counts) -> Option<Vec<u8>> {
    // All packets of this test but publishes have a length of one or two bytes.
    let start = 1 + packet[1..].iter().position(|byte| byte & 0x80 == 0).unwrap() + 1;
    let body = &packet[start..];
    Some(match packet[0] >> 4 {
        // CONNACK: no session, success, no properties.
        1 => vec![0x20, 3, 0, 0, 0],
        // SUBACK of one filter, granted at QoS 1.
        8 => vec![0x90, 4, body[0], body[1], 0, 1],
        3 => published(packet, body, counts),
        12 => vec![0xd0, 0],
        14 => return None,
        _ => Vec::new(),
    })
}

/// A PUBACK at QoS 1; and the canary back, at QoS 0, as long as it carries.
fn published(packet: &[u8], body: &[u8], counts: &Counts) -> Vec<u8> {
    let end = 2 + usize::from(u16::from_be_bytes([body[0], body[1]]));
    let acknowledged = packet[0] & 0x06 != 0;
    let mut answer = if acknowledged { vec![0x40, 2, body[end], body[end + 1]] } else { Vec::new() };
    if !body[2..end].ends_with(CANARY) {
        return answer;
    }
    if counts.mute.load(Ordering::SeqCst) {
        counts.swallowed.fetch_add(1, Ordering::SeqCst);
        return answer;
    }
    counts.carried.fetch_add(1, Ordering::SeqCst);
    let rest = if acknowledged { end + 2 } else { end };
    // Topic, then properties and payload as they came: a canary is far shorter than 128 bytes.
    let back = [&body[..end], &body[rest..]].concat();
    answer.extend([0x30, u8::try_from(back.len()).unwrap()]);
    answer.extend(back);
    answer
}

#[test]
fn a_broker_that_acknowledges_and_carries_nothing_is_left_and_tried_again() {
    let central = Mute::start();
    let mut setup = Setup::bridged(central.port);
    setup.more = setup.more.replacen("[tasks.action]", "canary_s = 5\nkeep_alive_s = 5\n[tasks.action]", 1);
    let mut gateway = setup.start();
    gateway.until_status("the link", |s| s["health"]["link"] == "up");
    until("a canary that was carried", || (central.count(|c| &c.carried) > 0).then_some(()));
    assert_eq!(central.count(|c| &c.connections), 1);
    central.counts.mute.store(true, Ordering::SeqCst);
    gateway.process.wait_for_log("the canary did not come back");
    assert!(central.count(|c| &c.swallowed) > 0, "the canary was acknowledged and not carried");
    until("another connection", || (central.count(|c| &c.connections) > 1).then_some(()));
    let carried = central.count(|c| &c.carried);
    until("a canary on it", || (central.count(|c| &c.carried) > carried).then_some(()));
    gateway.until_status("the link", |s| s["health"]["link"] == "up");
}
