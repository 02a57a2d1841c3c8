//! The life of one prompt over as many connections as it takes.

use crate::board::{Clock, Dial, End, Outcome};
use crate::bounded::Bounded;
use crate::frame::{Frame, Line, decode};
use crate::prompt::Prompt;
use crate::settings::Settings;
use crate::show::{Said, Shown};
use crate::step::{Next, Step, Verdict, refusal, text, unfit};
use crate::stream::Stream;
use core::fmt::Write as _;
use core::num::NonZero;
use embassy_futures::select::{Either, select};
use rust_mqtt::buffer::BumpBuffer;
use rust_mqtt::client::event::{Event, Publish};
use rust_mqtt::client::options::{
    AckOptions, ConnectOptions, DisconnectOptions, PublicationOptions, SubscriptionOptions, TopicReference, WillOptions,
};
use rust_mqtt::client::{Client, MqttError};
use rust_mqtt::config::KeepAlive;
use rust_mqtt::io::Transport;
use rust_mqtt::types::{IdentifiedQoS, MqttBinary, QoS, ReasonCode, TopicFilter, TopicName};

/// One step of a connection: opening it, CONNACK, SUBACK, the rest of a packet.
const STEP_MS: u32 = 20_000;
/// Pause before the second attempt; each further one waits twice as long.
const PAUSE_MS: u32 = 250;
const PAUSE_MS_MAX: u32 = 8_000;
/// Topic, properties and header of a packet, around the frame.
const PACKET_EXTRA_BYTES: u32 = 96;
/// `tg/v1/`, what, and three identifiers of 64 with their slashes.
const TOPIC_BYTES: usize = 216;
/// Largest prompt in CBOR.
const PROMPT_BYTES: usize = 1024;
/// What the MQTT client keeps of one packet; it is used anew for each.
const BUFFER_BYTES: usize = 4096;

type Mqtt<'c, N> = Client<'c, 'c, N, BumpBuffer<'c>, 1, 8, 1, 1, 1, 0, 0>;
type Topic = Bounded<TOPIC_BYTES>;

/// One prompt and what is known of it.
pub struct Ask<'a, C, S> {
    settings: Settings<'a>,
    id: &'a str,
    clock: C,
    say: S,
    stream: Stream,
    began_ms: u64,
    attempts: u8,
    met: bool,
    asked: bool,
    acknowledged: bool,
    /// Messages that made no sense, or were not ours.
    dropped: u32,
}

impl<'a, C: Clock, S: FnMut(Said<'_>)> Ask<'a, C, S> {
    /// `say` is told of every frame of this prompt.
    pub fn new(settings: Settings<'a>, id: &'a str, clock: C, say: S) -> Self {
        let began_ms = clock.now_ms();
        let (stream, [met, asked, acknowledged]) = (Stream::default(), [false; 3]);
        Self { settings, id, clock, say, stream, began_ms, attempts: 0, met, asked, acknowledged, dropped: 0 }
    }

    /// Messages so far that made no sense, or were not ours.
    #[must_use]
    pub fn dropped(&self) -> u32 {
        self.dropped
    }

    /// Asks until there is an outcome. Ends within the deadline and a grace, whatever the gateway does.
    pub async fn run(&mut self, dial: &mut impl Dial) -> End {
        loop {
            let why = match self.once(dial).await {
                Step::Decided(end) => return end,
                Step::Lost(why) => why,
            };
            self.attempts += 1;
            if self.left_ms() == 0 {
                return self.too_late();
            }
            if self.attempts >= self.settings.attempts_max {
                return End { outcome: Outcome::Unreachable, why };
            }
            let pause = PAUSE_MS << u32::from(self.attempts - 1).min(5);
            self.clock.sleep_ms(pause.min(PAUSE_MS_MAX).min(self.left_ms())).await;
        }
    }

    fn too_late(&self) -> End {
        if self.met {
            End { outcome: Outcome::Silent, why: "no outcome in time" }
        } else {
            End { outcome: Outcome::Unreachable, why: "no connection in time" }
        }
    }

    fn left_ms(&self) -> u32 {
        let end = self.began_ms + u64::from(self.settings.deadline_ms) + u64::from(self.settings.grace_ms);
        u32::try_from(end.saturating_sub(self.clock.now_ms())).unwrap_or(u32::MAX)
    }

    async fn once(&mut self, dial: &mut impl Dial) -> Step {
        let link = match select(dial.open(), self.clock.sleep_ms(STEP_MS.min(self.left_ms()))).await {
            Either::First(Some(link)) => link,
            Either::First(None) => return Step::Lost("no connection"),
            Either::Second(()) => return Step::Lost("nobody answers"),
        };
        let mut backing = [0; BUFFER_BYTES];
        let mut buffer = BumpBuffer::new(&mut backing);
        let mut client = Mqtt::new(&mut buffer);
        client.ack_manually_when(&|_| true);
        match self.converse(&mut client, link).await {
            Ok(end) => Step::Decided(end),
            Err(step) => step,
        }
    }

    /// Runs what is one step of a connection.
    async fn step<T>(&self, what: impl Future<Output = T>, why: &'static str) -> Result<T, Step> {
        match select(what, self.clock.sleep_ms(STEP_MS.min(self.left_ms()))).await {
            Either::First(done) => Ok(done),
            Either::Second(()) => Err(Step::Lost(why)),
        }
    }

    async fn converse<N: Transport>(&mut self, client: &mut Mqtt<'_, N>, link: N) -> Result<End, Step> {
        self.connect(client, link).await?;
        self.met = true;
        if let Some(end) = self.subscribe(client).await? {
            return Ok(self.leave(client, end).await);
        }
        if !self.asked {
            // As the gateway counts: from the prompt on.
            (self.asked, self.began_ms) = (true, self.clock.now_ms());
        }
        if !self.acknowledged {
            self.publish(client).await?;
        }
        let end = self.listen(client).await?;
        Ok(self.leave(client, end).await)
    }

    /// The outcome is decided; whether the gateway hears our farewell changes nothing.
    async fn leave<N: Transport>(&self, client: &mut Mqtt<'_, N>, end: End) -> End {
        let _ = self.step(client.disconnect(&DisconnectOptions::new()), "").await;
        end
    }

    async fn connect<N: Transport>(&self, client: &mut Mqtt<'_, N>, link: N) -> Result<(), Step> {
        let keep_alive = NonZero::new(self.settings.keep_alive_s).map_or(KeepAlive::Infinite, KeepAlive::Seconds);
        let mut options = ConnectOptions::new().clean_start().keep_alive(keep_alive).request_problem_information();
        options =
            options.maximum_packet_size(NonZero::new(self.settings.packet_bytes_max).unwrap_or(NonZero::<u32>::MIN));
        if let (Some(user), Some(password)) = (self.settings.user, self.settings.password) {
            options = options.user_name(text(user)?);
            options = options.password(MqttBinary::from_slice(password.as_bytes()).map_err(|_| unfit())?);
        }
        if let Some(topic) = self.settings.will {
            let lost = MqttBinary::from_slice(b"lost").map_err(|_| unfit())?;
            let topic = TopicName::new(text(topic)?).ok_or_else(unfit)?;
            options = options.will(WillOptions::new(topic, lost).qos(QoS::AtLeastOnce));
        }
        let name = Some(text(self.settings.device)?);
        let done = self.step(client.connect(link, &options, name), "the gateway does not answer").await?;
        done.map(|_| ()).map_err(|error| match error {
            MqttError::Disconnect { reason, .. } => refusal(reason),
            _ => Step::Lost("the connection broke"),
        })
    }

    fn topic(&self, what: &str) -> Result<Topic, Step> {
        let mut topic = Topic::new();
        let (gateway, device) = (self.settings.gateway, self.settings.device);
        write!(topic, "tg/v1/{gateway}/{what}/{device}").map_err(|_| unfit())?;
        Ok(topic)
    }

    /// The end, if the outcome of an earlier connection comes before SUBACK (MQTT 5.0, 3.8.4).
    async fn subscribe<N: Transport>(&mut self, client: &mut Mqtt<'_, N>) -> Result<Option<End>, Step> {
        let topic = self.topic("answer")?;
        let filter = TopicFilter::new(text(topic.as_str())?).ok_or_else(unfit)?;
        let options = SubscriptionOptions::new().at_least_once();
        let sent = self.step(client.subscribe(filter, &options), "the gateway does not answer").await?;
        sent.map_err(|_| Step::Lost("the connection broke"))?;
        loop {
            let event = self.step(client.poll(), "the gateway does not answer").await?;
            let next = match event {
                Ok(Event::Suback(suback)) if suback.reason_code.is_success() => return Ok(None),
                Ok(Event::Suback(_)) => {
                    let why = "not our topic: the subscription was refused";
                    return Err(Step::Decided(End { outcome: Outcome::Refused, why }));
                }
                // Bare text has no id to be known by.
                Ok(event) if !self.settings.bare => self.take(event),
                Ok(_) => Next::Nothing,
                Err(_) => return Err(Step::Lost("the connection broke")),
            };
            if let Some(end) = self.follow(client, next).await? {
                return Ok(Some(end));
            }
        }
    }

    async fn publish<N: Transport>(&self, client: &mut Mqtt<'_, N>) -> Result<(), Step> {
        let topic = self.topic("prompt")?;
        let mut out = [0; PROMPT_BYTES];
        let payload = self.payload(&mut out).ok_or_else(unfit)?;
        let name = TopicName::new(text(topic.as_str())?).ok_or_else(unfit)?;
        let options = PublicationOptions::new(TopicReference::Name(name)).at_least_once();
        let sent = self.step(client.publish(&options, payload.into()), "the gateway does not answer").await?;
        sent.map(|_| ()).map_err(|_| Step::Lost("the connection broke"))
    }

    /// What is published, the same bytes each time. `None`: it does not fit `out`.
    pub fn payload<'o>(&'o self, out: &'o mut [u8]) -> Option<&'o [u8]> {
        if self.settings.bare {
            return Some(self.settings.text.as_bytes());
        }
        let len = self.prompt().encode(out)?;
        out.get(..len)
    }

    /// Another deadline would be another prompt.
    fn prompt(&self) -> Prompt<'a> {
        let set = &self.settings;
        Prompt {
            id: Some(self.id),
            task: set.task,
            input: set.text,
            max_tokens: set.max_tokens,
            max_bytes: set.packet_bytes_max.saturating_sub(PACKET_EXTRA_BYTES).max(64),
            deadline_ms: set.deadline_ms,
            stream: set.stream,
            local: set.local,
        }
    }

    async fn listen<N: Transport>(&mut self, client: &mut Mqtt<'_, N>) -> Result<End, Step> {
        let half_ms = u32::from(self.settings.keep_alive_s) * 500;
        let mut pinged = false;
        loop {
            let wait = half_ms.min(self.left_ms());
            let header = match select(client.poll_header(), self.clock.sleep_ms(wait)).await {
                Either::First(header) => header.map_err(|_| Step::Lost("the connection broke"))?,
                Either::Second(()) if self.left_ms() == 0 => return Ok(self.too_late()),
                Either::Second(()) if pinged => return Err(Step::Lost("the gateway does not answer any more")),
                Either::Second(()) => {
                    let sent = self.step(client.ping(), "the gateway does not answer any more").await?;
                    sent.map_err(|_| Step::Lost("the connection broke"))?;
                    pinged = true;
                    continue;
                }
            };
            pinged = false;
            let event = self.step(client.poll_body(header), "half a packet and no more").await?;
            let next = self.take(event.map_err(|error| match error {
                MqttError::Alloc => Step::Lost("a packet larger than the gateway was told"),
                _ => Step::Lost("what came is no MQTT"),
            })?);
            if let Some(end) = self.follow(client, next).await? {
                return Ok(end);
            }
        }
    }

    /// Does what a packet asks for, once it was taken.
    async fn follow<N: Transport>(&self, client: &mut Mqtt<'_, N>, next: Next) -> Result<Option<End>, Step> {
        let end = match next {
            Next::Acknowledge(packet, end) => {
                let options = AckOptions::new();
                let done = client.manual_acknowledge(packet, ReasonCode::Success, &options);
                self.step(done, "the connection broke").await?.map_err(|_| Step::Lost("the connection broke"))?;
                end
            }
            Next::End(end) => Some(end),
            Next::Again(pause) => {
                self.clock.sleep_ms(pause.min(self.left_ms())).await;
                return Err(Step::Lost("the gateway is busy"));
            }
            Next::Nothing => None,
        };
        // SAFETY: nothing of the last packet lives any more: `take` gave back numbers only, and the event is gone.
        unsafe { client.buffer_mut().reset() };
        Ok(end)
    }

    fn take(&mut self, event: Event<'_, 1, 1>) -> Next {
        match event {
            Event::Publish(publish) | Event::Duplicate(publish) => {
                let verdict = self.take_publish(&publish);
                match (publish.identified_qos, verdict) {
                    (_, Verdict::Again(pause)) => Next::Again(pause),
                    (IdentifiedQoS::AtLeastOnce(packet), Verdict::End(end)) => Next::Acknowledge(packet, Some(end)),
                    (IdentifiedQoS::AtLeastOnce(packet), Verdict::More) => Next::Acknowledge(packet, None),
                    (_, Verdict::End(end)) => Next::End(end),
                    (_, Verdict::More) => Next::Nothing,
                }
            }
            Event::PublishAcknowledged(_) => {
                self.acknowledged = true;
                Next::Nothing
            }
            Event::PublishRejected(rejected) => {
                let message = rejected.reason_string.as_ref().map_or("", |text| text.as_str());
                (self.say)(Said::Error("rejected", message));
                Next::End(End { outcome: Outcome::Refused, why: "the gateway refused" })
            }
            _ => Next::Nothing,
        }
    }

    fn take_publish(&mut self, publish: &Publish<'_, 1, 1>) -> Verdict {
        let ours = match (&publish.topic, self.topic("answer")) {
            (TopicReference::Name(name), Ok(topic)) => name.as_ref().as_str() == topic.as_str(),
            _ => false,
        };
        let payload = publish.message.as_bytes();
        let verdict = if !ours {
            None
        } else if self.settings.bare {
            self.take_text(payload)
        } else {
            self.take_frame(payload)
        };
        if verdict.is_none() {
            self.dropped += 1;
        }
        verdict.unwrap_or(Verdict::More)
    }

    fn take_text(&mut self, payload: &[u8]) -> Option<Verdict> {
        let line = Line::read(payload)?;
        (self.say)(line.said());
        Some(Verdict::End(match line {
            Line::Refusal(_) => End { outcome: Outcome::Refused, why: "the gateway refused" },
            Line::Answer(_) => End { outcome: Outcome::Answered, why: "answered" },
        }))
    }

    /// `None`: it makes no sense, or is not for our prompt.
    fn take_frame(&mut self, payload: &[u8]) -> Option<Verdict> {
        let (id, frame) = decode(payload)?;
        // An error without an id means a prompt whose id could not be read: it can only be ours.
        if !(id == Some(self.id) || id.is_none() && matches!(frame, Frame::Error { .. })) {
            return None;
        }
        match frame {
            Frame::Accepted { position, .. } => (self.say)(Said::Accepted(position)),
            Frame::Token { attempt, seq, text } => {
                if self.stream.add(attempt, seq, text) {
                    (self.say)(Said::Token(self.stream.text()));
                }
            }
            Frame::Answer { body, route, provisional: true } => (self.say)(Said::Provisional(route, Shown::Body(body))),
            Frame::Answer { body, route, provisional: false } => {
                (self.say)(Said::Answer(route, Shown::Body(body)));
                return Some(Verdict::End(End { outcome: Outcome::Answered, why: "answered" }));
            }
            Frame::Error { code, message, retry_after_ms } => {
                (self.say)(Said::Error(code, message));
                let pause = retry_after_ms.and_then(|ms| u32::try_from(ms).ok()).filter(|_| code == "busy");
                if let Some(pause) = pause.filter(|ms| *ms < self.left_ms()) {
                    self.acknowledged = false;
                    return Some(Verdict::Again(pause));
                }
                return Some(Verdict::End(End { outcome: Outcome::Refused, why: "the gateway refused" }));
            }
        }
        Some(Verdict::More)
    }
}
