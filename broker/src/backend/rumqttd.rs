//! rumqttd: started on a thread of its own, at a random loopback address with a random password.

use super::SPARE_CONNECTIONS;
use crate::codec::{Properties, Version};
use crate::error::DoorError;
use crate::link::{Address, Hello, Kind, LINK_PACKET_BYTES_MAX, Link, Login};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::sleep;
use tracing::subscriber::NoSubscriber;

/// The name under which every loopback connection logs in.
const USER: &str = "door";
/// Attempts to reach a fresh rumqttd, [`START_PAUSE`] apart.
const START_ATTEMPTS: u32 = 200;
const START_PAUSE: Duration = Duration::from_millis(10);
/// Log of one filter inside rumqttd, in bytes and segments: what a slow subscriber may lag behind.
const SEGMENT_BYTES_MAX: usize = 1024 * 1024;
const SEGMENTS_MAX: usize = 3;

/// A running rumqttd. Its sockets end when this is dropped; its router thread cannot be stopped and stays idle.
pub(super) struct Running {
    pub(super) address: Address,
    _stop: oneshot::Sender<()>,
}

fn random<const N: usize>() -> Result<[u8; N], DoorError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes)
        .map_err(|e| DoorError::System { what: "random bytes", source: io::Error::other(e.to_string()) })?;
    Ok(bytes)
}

fn free_address() -> Result<SocketAddr, DoorError> {
    let [b, c, d] = random()?;
    let ip = Ipv4Addr::new(127, b, c, d.clamp(1, 254));
    let refused = |source| DoorError::System { what: "a loopback port", source };
    TcpListener::bind((ip, 0)).and_then(|l| l.local_addr()).map_err(refused)
}

/// What MQTT 5 clients are told that rumqttd cannot do.
fn announced() -> Properties {
    Properties { shared_available: Some(0), subscription_ids_available: Some(0), ..Properties::default() }
}

impl Running {
    pub(super) async fn start(connections_max: usize) -> Result<(Self, Link), DoorError> {
        let password: String = random::<32>()?.iter().map(|byte| format!("{byte:02x}")).collect();
        let login = Login { user: USER.into(), password: password.into() };
        let announced = Arc::new(announced());
        let address =
            Address { addr: free_address()?, login: Some(login.clone()), kind: Kind::Rumqttd, announced, since: None };
        let (stop, stopped) = oneshot::channel();
        let settings = server_settings(address.addr, &login);
        let router = router_config(connections_max);
        std::thread::Builder::new()
            .name("rumqttd".to_owned())
            .spawn(move || serve(settings, router, stopped))
            .map_err(|source| DoorError::System { what: "a thread for rumqttd", source })?;
        let running = Self { address, _stop: stop };
        let link = running.reach().await?;
        Ok((running, link))
    }

    async fn reach(&self) -> Result<Link, DoorError> {
        let mut last = String::new();
        for _ in 0..START_ATTEMPTS {
            match Link::open(self.address.clone(), Hello::passing("watch", Version::V4)).await {
                Ok(link) => return Ok(link),
                Err(error) => last = error.to_string(),
            }
            sleep(START_PAUSE).await;
        }
        Err(DoorError::Backend { what: last })
    }
}

fn router_config(connections_max: usize) -> rumqttd::RouterConfig {
    rumqttd::RouterConfig {
        max_connections: connections_max + SPARE_CONNECTIONS,
        max_outgoing_packet_count: 200,
        max_segment_size: SEGMENT_BYTES_MAX,
        max_segment_count: SEGMENTS_MAX,
        ..rumqttd::RouterConfig::default()
    }
}

fn server_settings(addr: SocketAddr, login: &Login) -> rumqttd::ServerSettings {
    rumqttd::ServerSettings {
        name: "loopback".to_owned(),
        listen: addr,
        tls: None,
        next_connection_delay_ms: 0,
        connections: rumqttd::ConnectionSettings {
            connection_timeout_ms: 2_000,
            max_payload_size: LINK_PACKET_BYTES_MAX,
            max_inflight_count: 100,
            auth: Some([(login.user.to_string(), login.password.to_string())].into()),
            external_auth: None,
            dynamic_filters: false,
        },
    }
}

/// rumqttd's thread: a runtime of its own, so that dropping it closes every socket. rumqttd calls a client that left
/// an error, so nothing of it is logged; that it died is for the watcher to say.
fn serve(settings: rumqttd::ServerSettings, router: rumqttd::RouterConfig, stopped: oneshot::Receiver<()>) {
    let _silent = tracing::subscriber::set_default(NoSubscriber::default());
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return };
    let router = rumqttd::Router::new(0, router).spawn();
    let mut server = rumqttd::Server::new(settings, router, rumqttd::protocol::v4::V4);
    runtime.block_on(async {
        tokio::select! {
            _ = server.start(rumqttd::LinkType::Remote) => {}
            _ = stopped => {}
        }
    });
    runtime.shutdown_background();
}
