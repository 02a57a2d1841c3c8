//! Faults that come with client ids, shares, takeovers and wills.

use super::{FEW, Harm, Target};
use crate::door::socket::{QUIET, Socket};
use crate::door::wire::{Connect, GOODBYE, Publish, Version, Will};

/// A client id that no router of rumqttd's takes.
const WILD_ID: &str = "a/b+#$";
/// Messages per half of a share.
const SHARED: u16 = 20;

/// A client id with wildcards, twice.
pub(super) async fn t1(at: &Target) -> anyhow::Result<Harm> {
    for _ in 0..2 {
        let mut socket = Socket::open(at.v4, Version::V4).await?;
        socket.send(&Connect::new(Version::V4, WILD_ID).bytes()).await?;
        // Let in or refused: both are well.
        let _answer = socket.within(QUIET).await;
    }
    Ok(at.dead("a client id with wildcards came twice").await)
}

/// A client that is refused because all places are taken, and comes again.
pub(super) async fn t1b(at: &Target) -> anyhow::Result<Harm> {
    let mut guests = Vec::new();
    for number in 0..FEW - 1 {
        guests.push(at.client(Version::V4, &format!("t1b-{number}")).await?);
    }
    for _ in 0..2 {
        let mut socket = Socket::open(at.v4, Version::V4).await?;
        // The place may be refused before CONNECT is read.
        if socket.send(&Connect::new(Version::V4, "t1b-late").bytes()).await.is_ok() {
            let _refusal = socket.within(QUIET).await;
        }
    }
    for mut guest in guests {
        guest.send(&GOODBYE).await?;
        guest.ends_within(QUIET).await;
    }
    Ok(at.dead("the guests left").await)
}

/// The only member of a share leaves with something unacknowledged.
pub(super) async fn t4(at: &Target) -> anyhow::Result<Harm> {
    let connect = Connect { clean: false, ..Connect::new(Version::V4, "t4-member") };
    let (mut member, _) = Socket::enter(at.v4, &connect).await?;
    if member.subscribe("$share/g/t4", 1).await? >= 0x80 {
        return Ok(at.dead("the share was refused").await);
    }
    let mut writer = at.client(Version::V4, "t4-writer").await?;
    writer.publish("t4", 1, b"x").await?;
    member.next().await?;
    member.send(&GOODBYE).await?;
    member.ends_within(QUIET).await;
    Ok(at.dead("the member left").await)
}

/// One share name on two filters.
pub(super) async fn t17(at: &Target) -> anyhow::Result<Harm> {
    let mut members = Vec::new();
    for half in ["a", "b"] {
        let mut member = at.client(Version::V4, &format!("t17-{half}")).await?;
        if member.subscribe(&format!("$share/g/t17/{half}"), 1).await? >= 0x80 {
            return Ok(None);
        }
        members.push(member);
    }
    let mut writer = at.client(Version::V4, "t17-writer").await?;
    for number in 0..SHARED {
        writer.publish("t17/a", 2 * number + 1, b"x").await?;
        writer.publish("t17/b", 2 * number + 2, b"x").await?;
    }
    let mut came = 0;
    for mut member in members {
        while member.message(QUIET).await?.is_some() {
            came += 1;
        }
    }
    let due = 2 * SHARED;
    Ok((came < due).then(|| format!("{came} of {due} messages came")))
}

/// Whose will is published when a session is taken over, and when the one who took it dies.
pub(super) async fn t18(at: &Target) -> anyhow::Result<Harm> {
    let mut watcher = at.client(Version::V4, "t18-watcher").await?;
    watcher.subscribe("t18/will", 1).await?;
    let with_will = |payload: &'static [u8]| {
        let will = Some(Will { topic: "t18/will", payload, qos: 1 });
        Connect { will, ..Connect::new(Version::V4, "t18-client") }
    };
    let (_first, _) = Socket::enter(at.v4, &with_will(b"first")).await?;
    let (second, _) = Socket::enter(at.v4, &with_will(b"second")).await?;
    let at_takeover = watcher.message(at.patience.min(4 * QUIET)).await?.map(|(_, payload)| payload);
    drop(second);
    let at_death = watcher.message(at.patience.min(4 * QUIET)).await?.map(|(_, payload)| payload);
    let well = at_takeover.as_deref() == Some(b"first") && at_death.as_deref() == Some(b"second");
    let said = |will: Option<Vec<u8>>| will.map_or("none".to_owned(), |w| String::from_utf8_lossy(&w).into_owned());
    Ok((!well).then(|| format!("will at the takeover: {}, at the death: {}", said(at_takeover), said(at_death))))
}

/// A message of 8 KiB.
pub(super) fn large(topic: &str, id: u16) -> Vec<u8> {
    Publish::new(topic, id, &[b'x'; 8 * 1024]).bytes(Version::V4)
}
