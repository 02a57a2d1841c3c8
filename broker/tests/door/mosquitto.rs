//! Debian's mosquitto_pub and mosquitto_sub, which we did not write.

use crate::support::*;
use bytes::Bytes;
use tidegate_schemas::JobId;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;
use tokio::time::timeout;

#[tokio::test]
async fn mosquitto_clients_of_both_versions_ask_and_are_answered() {
    let (door, keeper) = door().await;
    let port = door.local_addrs()[0].port().to_string();
    for (version, job) in [("mqttv311", 1), ("mqttv5", 2)] {
        let mut subscriber = Command::new("mosquitto_sub")
            .args(["-h", "127.0.0.1", "-p", &port, "-V", version, "-q", "1", "-t", ANSWER, "-C", "2"])
            .stdout(std::process::Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("mosquitto_sub is in PATH (Debian package mosquitto-clients)");
        let mut lines = BufReader::new(subscriber.stdout.take().unwrap()).lines();
        while door.stats().connections == 0 {
            tokio::task::yield_now().await;
        }
        keeper.keep_outcome("local-1", job, "the answer");
        door.outcome_ready(&"local-1".parse().unwrap(), JobId(job), Bytes::from_static(b"the answer"));
        let line = timeout(PATIENCE, lines.next_line()).await.unwrap().unwrap();
        assert_eq!(line.as_deref(), Some("the answer"));
        let published = Command::new("mosquitto_pub")
            .args(["-h", "127.0.0.1", "-p", &port, "-V", version, "-q", "2", "-t", PROMPT, "-m", "turn off the lights"])
            .status();
        assert!(timeout(PATIENCE, published).await.unwrap().unwrap().success());
        let line = timeout(PATIENCE, lines.next_line()).await.unwrap().unwrap();
        assert_eq!(line.as_deref(), Some("accepted"));
        while door.stats().connections > 0 {
            tokio::task::yield_now().await;
        }
    }
    let store = keeper.store.lock().unwrap();
    assert_eq!(store.prompts.len(), 2);
    assert_eq!(store.prompts[0].1, Bytes::from_static(b"turn off the lights"));
}
