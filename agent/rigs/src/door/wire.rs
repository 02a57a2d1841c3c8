//! MQTT bytes as the rigs write and read them, on purpose without the door's own codec: a mistake there must not be
//! mirrored here. Packets are small and well-formed unless a rig wants otherwise.

/// The protocol of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    /// MQTT 3.1.1.
    V4,
    /// MQTT 5.
    V5,
}

/// First bytes of packets, flags included where they are fixed.
pub(crate) mod first {
    pub(crate) const CONNECT: u8 = 0x10;
    pub(crate) const CONNACK: u8 = 0x20;
    pub(crate) const PUBLISH: u8 = 0x30;
    pub(crate) const PUBACK: u8 = 0x40;
    pub(crate) const PUBREC: u8 = 0x50;
    pub(crate) const PUBREL: u8 = 0x62;
    pub(crate) const PUBCOMP: u8 = 0x70;
    pub(crate) const SUBSCRIBE: u8 = 0x82;
    pub(crate) const SUBACK: u8 = 0x90;
    pub(crate) const UNSUBSCRIBE: u8 = 0xa2;
    pub(crate) const UNSUBACK: u8 = 0xb0;
    pub(crate) const PINGREQ: u8 = 0xc0;
    pub(crate) const DISCONNECT: u8 = 0xe0;
}

/// A will.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Will<'a> {
    pub(crate) topic: &'a str,
    pub(crate) payload: &'a [u8],
    pub(crate) qos: u8,
}

/// A CONNECT.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Connect<'a> {
    pub(crate) version: Version,
    pub(crate) client_id: &'a str,
    pub(crate) clean: bool,
    pub(crate) keep_alive_s: u16,
    pub(crate) login: Option<(&'a str, &'a str)>,
    pub(crate) will: Option<Will<'a>>,
    /// Properties of MQTT 5, without their length.
    pub(crate) properties: &'a [u8],
}

impl<'a> Connect<'a> {
    /// A clean session with a keep-alive of a minute.
    pub(crate) fn new(version: Version, client_id: &'a str) -> Self {
        Self { version, client_id, clean: true, keep_alive_s: 60, login: None, will: None, properties: &[] }
    }

    /// Its bytes.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut flags = u8::from(self.clean) << 1;
        if let Some(will) = self.will {
            flags |= 4 | will.qos << 3;
        }
        if self.login.is_some() {
            flags |= 0xc0;
        }
        let mut body = vec![0, 4, b'M', b'Q', b'T', b'T', if self.version == Version::V5 { 5 } else { 4 }, flags];
        body.extend(self.keep_alive_s.to_be_bytes());
        properties(&mut body, self.version, self.properties);
        text(&mut body, self.client_id.as_bytes());
        if let Some(will) = self.will {
            properties(&mut body, self.version, &[]);
            text(&mut body, will.topic.as_bytes());
            text(&mut body, will.payload);
        }
        if let Some((user, password)) = self.login {
            text(&mut body, user.as_bytes());
            text(&mut body, password.as_bytes());
        }
        packet(first::CONNECT, &body)
    }
}

/// A PUBLISH.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Publish<'a> {
    pub(crate) topic: &'a [u8],
    pub(crate) qos: u8,
    /// Zero at QoS 0.
    pub(crate) id: u16,
    pub(crate) retain: bool,
    pub(crate) payload: &'a [u8],
    /// Properties of MQTT 5, without their length.
    pub(crate) properties: &'a [u8],
}

impl<'a> Publish<'a> {
    /// At QoS 1, not retained.
    pub(crate) fn new(topic: &'a str, id: u16, payload: &'a [u8]) -> Self {
        Self { topic: topic.as_bytes(), qos: 1, id, retain: false, payload, properties: &[] }
    }

    /// At QoS 0, not retained.
    pub(crate) fn lossy(topic: &'a str, payload: &'a [u8]) -> Self {
        Self { qos: 0, id: 0, ..Self::new(topic, 0, payload) }
    }

    /// Its bytes.
    pub(crate) fn bytes(&self, version: Version) -> Vec<u8> {
        let mut body = Vec::with_capacity(self.topic.len() + self.payload.len() + 8);
        text(&mut body, self.topic);
        if self.qos > 0 {
            body.extend(self.id.to_be_bytes());
        }
        properties(&mut body, version, self.properties);
        body.extend(self.payload);
        packet(first::PUBLISH | self.qos << 1 | u8::from(self.retain), &body)
    }
}

/// A SUBSCRIBE for one filter.
pub(crate) fn subscribe(version: Version, id: u16, filter: &str, qos: u8) -> Vec<u8> {
    let mut body = id.to_be_bytes().to_vec();
    properties(&mut body, version, &[]);
    text(&mut body, filter.as_bytes());
    body.push(qos);
    packet(first::SUBSCRIBE, &body)
}

/// An UNSUBSCRIBE for one filter.
pub(crate) fn unsubscribe(version: Version, id: u16, filter: &str) -> Vec<u8> {
    let mut body = id.to_be_bytes().to_vec();
    properties(&mut body, version, &[]);
    text(&mut body, filter.as_bytes());
    packet(first::UNSUBSCRIBE, &body)
}

/// An acknowledgement with success.
pub(crate) fn ack(first: u8, id: u16) -> [u8; 4] {
    let [high, low] = id.to_be_bytes();
    [first, 2, high, low]
}

/// A DISCONNECT with success.
pub(crate) const GOODBYE: [u8; 2] = [first::DISCONNECT, 0];

/// A packet of any kind.
pub(crate) fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut packet = vec![first];
    let mut left = body.len();
    loop {
        let low = (left & 0x7f) as u8;
        left >>= 7;
        packet.push(if left > 0 { low | 0x80 } else { low });
        if left == 0 {
            break;
        }
    }
    packet.extend(body);
    packet
}

/// A field with a length of two bytes.
pub(crate) fn text(body: &mut Vec<u8>, bytes: &[u8]) {
    let length = u16::try_from(bytes.len()).expect("rigs write no field over 64 KiB");
    body.extend(length.to_be_bytes());
    body.extend(bytes);
}

fn properties(body: &mut Vec<u8>, version: Version, properties: &[u8]) {
    if version == Version::V5 {
        body.push(u8::try_from(properties.len()).ok().filter(|len| *len < 128).expect("rigs write few properties"));
        body.extend(properties);
    }
}

/// A packet that was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Seen<'a> {
    /// Its first byte.
    pub(crate) first: u8,
    /// What follows its length.
    pub(crate) body: &'a [u8],
    /// All of its bytes.
    pub(crate) bytes: usize,
}

impl<'a> Seen<'a> {
    /// The packet at the front of what was read; none while bytes are missing.
    pub(crate) fn front(read: &'a [u8]) -> Option<Self> {
        let (mut length, mut head) = (0, 1);
        loop {
            let byte = *read.get(head)?;
            length |= usize::from(byte & 0x7f) << (7 * (head - 1));
            head += 1;
            if byte & 0x80 == 0 || head > 4 {
                break;
            }
        }
        let body = read.get(head..head + length)?;
        Some(Self { first: read[0], body, bytes: head + length })
    }

    /// Its kind: the first byte without the flags.
    pub(crate) fn kind(&self) -> u8 {
        self.first & 0xf0
    }

    /// QoS of a PUBLISH.
    pub(crate) fn qos(&self) -> u8 {
        self.first >> 1 & 3
    }

    /// Packet identifier of an acknowledgement.
    pub(crate) fn id(&self) -> u16 {
        self.body.first_chunk().map_or(0, |id| u16::from_be_bytes(*id))
    }

    /// Topic, packet identifier and payload of a PUBLISH. Properties of MQTT 5 are passed over.
    pub(crate) fn message(&self, version: Version) -> Option<Message<'a>> {
        let length = usize::from(u16::from_be_bytes(*self.body.first_chunk()?));
        let topic = self.body.get(2..2 + length)?;
        let mut at = 2 + length;
        let mut id = 0;
        if self.qos() > 0 {
            id = u16::from_be_bytes([*self.body.get(at)?, *self.body.get(at + 1)?]);
            at += 2;
        }
        if version == Version::V5 {
            // One byte of length is enough for what the rigs are sent.
            at += 1 + usize::from(*self.body.get(at)?);
        }
        Some(Message { topic, id, payload: self.body.get(at..)? })
    }
}

/// What a PUBLISH says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Message<'a> {
    pub(crate) topic: &'a [u8],
    pub(crate) id: u16,
    pub(crate) payload: &'a [u8],
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn packets_are_read_as_they_were_written() {
        for (version, size) in [(Version::V4, 3), (Version::V5, 3), (Version::V4, 20_000)] {
            let payload = vec![b'x'; size];
            let mut bytes = Publish::new("a/b", 7, &payload).bytes(version);
            let all = bytes.len();
            assert_eq!(Seen::front(&bytes[..all - 1]), None);
            bytes.push(0xc0);
            let seen = Seen::front(&bytes).unwrap();
            assert_eq!((seen.kind(), seen.qos(), seen.bytes), (first::PUBLISH, 1, all));
            let message = seen.message(version).unwrap();
            assert_eq!(message, Message { topic: b"a/b", id: 7, payload: &payload });
        }
    }

    #[test]
    fn a_connect_is_what_the_specification_shows() {
        let bytes = Connect::new(Version::V4, "c").bytes();
        assert_eq!(bytes, [0x10, 13, 0, 4, b'M', b'Q', b'T', b'T', 4, 2, 0, 60, 0, 1, b'c']);
        let will = Some(Will { topic: "w", payload: b"x", qos: 1 });
        let bytes = Connect { login: Some(("u", "p")), will, ..Connect::new(Version::V5, "c") }.bytes();
        assert_eq!(bytes[8..10], [5, 0b1100_1110]);
        assert_eq!(bytes[12..], [0, 0, 1, b'c', 0, 0, 1, b'w', 0, 1, b'x', 0, 1, b'u', 0, 1, b'p']);
    }
}
