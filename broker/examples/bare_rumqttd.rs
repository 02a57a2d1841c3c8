//! rumqttd as it comes, without the door before it: what the rigs show its faults on and compare with.
//!
//! `bare_rumqttd V4_ADDRESS V5_ADDRESS [CONNECTIONS_MAX SEGMENT_BYTES SEGMENTS]`: 3.1.1 on the first address, 5 on the
//! second, everything else as its shipped configuration has it. It runs until it is killed, and logs what panics.

use rumqttd::{Broker, Config, ConnectionSettings, RouterConfig, ServerSettings};
use std::error::Error;
use std::net::SocketAddr;

/// What rumqttd's shipped configuration says.
const CONNECTIONS_MAX: usize = 10_010;
const SEGMENT_BYTES: usize = 100 * 1024 * 1024;
const SEGMENTS: usize = 10;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [v4, v5, numbers @ ..] = &arguments[..] else {
        return Err("usage: bare_rumqttd V4_ADDRESS V5_ADDRESS [CONNECTIONS_MAX SEGMENT_BYTES SEGMENTS]".into());
    };
    let numbers = numbers.iter().map(|n| n.parse()).collect::<Result<Vec<usize>, _>>()?;
    let number = |at: usize, shipped: usize| numbers.get(at).copied().unwrap_or(shipped);
    let config = Config {
        id: 0,
        router: RouterConfig {
            max_connections: number(0, CONNECTIONS_MAX),
            max_outgoing_packet_count: 200,
            max_segment_size: number(1, SEGMENT_BYTES),
            max_segment_count: number(2, SEGMENTS),
            ..RouterConfig::default()
        },
        v4: Some([("v4".to_owned(), server("v4", v4.parse()?))].into()),
        v5: Some([("v5".to_owned(), server("v5", v5.parse()?))].into()),
        ..Config::default()
    };
    Ok(Broker::new(config).start()?)
}

fn server(name: &str, listen: SocketAddr) -> ServerSettings {
    ServerSettings {
        name: name.to_owned(),
        listen,
        tls: None,
        next_connection_delay_ms: 1,
        connections: ConnectionSettings {
            connection_timeout_ms: 60_000,
            max_payload_size: 1024 * 1024,
            max_inflight_count: 100,
            auth: None,
            external_auth: None,
            dynamic_filters: true,
        },
    }
}
