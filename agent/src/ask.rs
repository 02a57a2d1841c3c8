//! `tidegate ask`: an MQTT client like any other, that prints an answer as it comes. With an id and no text it asks
//! nothing: see [`crate::lookup`].

use crate::cli::AskArgs;
use crate::failure::Failure;
use crate::link::{Epoch, LinkEvent, from_args};
use crate::lookup;
use crate::terminal::{Progress, print};
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{Packet, PubAckReason, SubscribeReasonCode};
use std::time::Duration;
use tidegate_schemas::{
    Answer, DeadlineMs, DeviceId, DeviceTopic, Encoding, ErrorFrame, Frame, Origin, Prompt, PromptId, StateKind, Token,
    Topic,
};
use tokio::time::{Instant, timeout_at};

/// Between two looks at how long it takes.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Finds the card of whatever gateway is behind the door.
const CARD_FILTER: &str = "tg/v1/+/+/state/card";

/// Runs the command: ends well only with an answer.
pub(crate) async fn run(args: &AskArgs) -> Result<(), Failure> {
    let Some(text) = &args.text else { return lookup::run(args) };
    let name = args.device.clone().or_else(|| args.link.user.clone());
    let name = name.unwrap_or_else(|| format!("local-cli-{}", std::process::id()));
    let device: DeviceId = name.parse().map_err(Failure::other)?;
    let prompt = prompt(args, text)?;
    let broker = from_args(&args.url, &args.link, format!("tidegate-ask-{}", std::process::id()));
    let mut options = broker.and_then(|broker| broker.options()).map_err(Failure::other)?;
    options.set_clean_start(true);
    let mut talk = Talk {
        epoch: Epoch::open(options),
        url: args.url.clone(),
        until: Instant::now() + Duration::from_secs(args.timeout),
        seconds: args.timeout,
        shown: Shown { json: args.json, attempt: 0, open: false },
        progress: None,
    };
    talk.connected().await?;
    let origin = match (&args.site, &args.gateway) {
        (Some(site), Some(gateway)) => {
            Origin { site: site.parse().map_err(Failure::other)?, gateway: gateway.parse().map_err(Failure::other)? }
        }
        _ => talk.origin().await?,
    };
    talk.subscribe(&Topic::device(&origin, DeviceTopic::Answer, &device).name()).await?;
    let payload = serde_json::to_vec(&prompt).map_err(Failure::other)?;
    let topic = Topic::device(&origin, DeviceTopic::Prompt, &device).name();
    let sent = talk.epoch.client.try_publish(topic, QoS::AtLeastOnce, false, payload);
    sent.map_err(|e| Failure::other(format!("the prompt cannot be sent: {e}")))?;
    talk.outcome(prompt.id.as_ref()).await
}

fn prompt(args: &AskArgs, text: &str) -> Result<Prompt, Failure> {
    let task = args.task.as_ref().map(|task| task.parse()).transpose().map_err(Failure::other)?;
    let deadline_ms = match args.deadline_ms {
        None => None,
        Some(ms) => Some(DeadlineMs::new(ms).ok_or_else(|| {
            Failure::other(format!("--deadline-ms is {ms}, allowed are 1 to {}", tidegate_schemas::DEADLINE_MS_MAX))
        })?),
    };
    let id = args.id.clone().map_or_else(random_id, Ok)?;
    let id: PromptId = id.parse().map_err(Failure::other)?;
    let bare = Prompt::bare(text);
    if text.is_empty() {
        return Err(Failure::other("the prompt is empty, at least one byte is needed"));
    }
    Ok(Prompt { id: Some(id), task, deadline_ms, stream: true, local: args.local, ..bare })
}

fn random_id() -> Result<String, Failure> {
    let random = getrandom::u64().map_err(|e| Failure::other(format!("no randomness for an id: {e}")))?;
    Ok(format!("ask-{random:016x}"))
}

struct Talk {
    epoch: Epoch,
    url: String,
    until: Instant,
    seconds: u64,
    shown: Shown,
    progress: Option<Progress>,
}

/// What the person has seen so far.
struct Shown {
    json: bool,
    attempt: u32,
    /// Whether the cursor stands behind streamed text.
    open: bool,
}

impl Talk {
    /// The next packet.
    async fn packet(&mut self, what: &str) -> Result<Packet, Failure> {
        loop {
            let look = self.until.min(Instant::now() + LOOK_EVERY);
            let event = timeout_at(look, self.epoch.next()).await;
            match event {
                Err(_) if Instant::now() < self.until => self.waits(what),
                Err(_) => {
                    let sentence = format!("no {what} from {} within {} s", self.url, self.seconds);
                    return Err(Failure::other(sentence)
                        .next("look up what became of it with --device and --id, or wait longer with --timeout"));
                }
                Ok(LinkEvent::Down(why)) => {
                    let next =
                        "see that the gateway runs (`tidegate status`), and that --url, user and certificate are right";
                    return Err(Failure::other(format!("{}: {why}", self.url)).next(next));
                }
                Ok(LinkEvent::Sent(_)) => {}
                Ok(LinkEvent::Packet(packet)) => {
                    // An answer to our ping says nothing about what is waited for.
                    if !matches!(*packet, Packet::PingResp(_)) {
                        self.progress = None;
                    }
                    return Ok(*packet);
                }
            }
        }
    }

    /// Nothing came: a terminal sees how long it may take. Text that is being written stands on the same line, so it
    /// is left alone.
    fn waits(&mut self, what: &str) {
        if !self.shown.open {
            let progress = self.progress.get_or_insert_with(|| Progress::new(format!("waiting for {what}")));
            progress.until(self.until.into_std());
        }
    }

    async fn connected(&mut self) -> Result<(), Failure> {
        while !matches!(self.packet("CONNACK").await?, Packet::ConnAck(_)) {}
        Ok(())
    }

    async fn subscribe(&mut self, filter: &str) -> Result<(), Failure> {
        let asked = self.epoch.client.try_subscribe(filter, QoS::AtLeastOnce);
        asked.map_err(|e| Failure::other(format!("cannot subscribe {filter}: {e}")))?;
        loop {
            let Packet::SubAck(ack) = self.packet("SUBACK").await? else { continue };
            return match ack.return_codes.first() {
                Some(SubscribeReasonCode::Success(_)) => Ok(()),
                Some(reason) => {
                    Err(Failure::other(format!("{} refuses the subscription {filter}: {reason:?}", self.url)))
                }
                None => Err(Failure::other(format!("{} answers the subscription {filter} with no code", self.url))),
            };
        }
    }

    /// The gateway behind this door, by its retained card.
    async fn origin(&mut self) -> Result<Origin, Failure> {
        let asked = self.epoch.client.try_subscribe(CARD_FILTER, QoS::AtMostOnce);
        asked.map_err(|e| Failure::other(format!("cannot subscribe {CARD_FILTER}: {e}")))?;
        loop {
            let Packet::Publish(publish) = self.packet("gateway's card").await? else { continue };
            let topic = std::str::from_utf8(&publish.topic).ok().and_then(|name| Topic::parse(name).ok());
            if let Some(Topic::State { origin, kind: StateKind::Card }) = topic {
                return Ok(origin);
            }
        }
    }

    async fn outcome(&mut self, id: Option<&PromptId>) -> Result<(), Failure> {
        let mut refused = None;
        loop {
            match self.packet("outcome").await? {
                Packet::PubAck(ack)
                    if !matches!(ack.reason, PubAckReason::Success | PubAckReason::NoMatchingSubscribers) =>
                {
                    refused = Some(format!("{:?}", ack.reason));
                }
                Packet::Publish(publish) => {
                    let Ok(frame) = serde_json::from_slice::<Frame>(&publish.payload) else { continue };
                    // An error about a payload whose id could not be read is about ours: the topic is ours alone.
                    if frame.id().is_some() && frame.id() != id {
                        continue;
                    }
                    if let Some(end) = self.shown.frame(frame)? {
                        return end;
                    }
                }
                _ => {}
            }
            if let Some(reason) = refused.take() {
                // The error frame comes before the refusal; without one there is only the reason.
                return Err(Failure::other(format!("the gateway refused the prompt: {reason}")));
            }
        }
    }
}

impl Shown {
    /// Shows a frame. Some when it is the outcome.
    fn frame(&mut self, frame: Frame) -> Result<Option<Result<(), Failure>>, Failure> {
        if self.json
            && let Some(line) = Encoding::Json.frame(&frame)
        {
            print(&format!("{}\n", String::from_utf8_lossy(&line)))?;
        }
        match frame {
            Frame::Accepted(_) => Ok(None),
            Frame::Token(token) => self.token(&token).map(|()| None),
            Frame::Answer(answer) => {
                self.answer(&answer)?;
                Ok((!answer.provisional).then_some(Ok(())))
            }
            Frame::Error(error) => Ok(Some(Err(failure(&error)))),
        }
    }

    fn token(&mut self, token: &Token) -> Result<(), Failure> {
        if self.json {
            return Ok(());
        }
        if self.open && token.attempt != self.attempt {
            print(" [interrupted, once more]\n")?;
        }
        self.attempt = token.attempt;
        self.open = true;
        print(token.text.reveal())
    }

    fn answer(&mut self, answer: &Answer) -> Result<(), Failure> {
        if self.json {
            return Ok(());
        }
        // What was streamed stands there already, unless the answer came from elsewhere or from an earlier run.
        let body = answer.body.to_line();
        let streamed = self.open && answer.route == tidegate_schemas::Route::Local && !answer.provisional;
        if self.open {
            print("\n")?;
        }
        if !streamed {
            print(&format!("{}\n", body.reveal()))?;
        }
        self.open = false;
        print(&format!("{}\n", summary(answer)))
    }
}

/// Where it came from, why, how sure, how long.
fn summary(answer: &Answer) -> String {
    let route = format!("{:?}", answer.route).to_lowercase();
    let confidence = answer.confidence.map_or_else(|| "unknown".to_owned(), |c| format!("{c:.2}"));
    let t = &answer.timing;
    let mark = if answer.provisional { ", provisional" } else { "" };
    format!(
        "[{route}, {}{mark}, confidence {confidence}, {}, {} tokens, {} ms: {} waiting, {} reading, {} writing]",
        answer.reason, answer.model, answer.usage.completion_tokens, t.total_ms, t.queued_ms, t.prefill_ms, t.decode_ms
    )
}

fn failure(error: &ErrorFrame) -> Failure {
    let retry = error.retry_after_ms.map_or_else(String::new, |ms| format!(", try again in {ms} ms"));
    Failure::other(format!("{}: {}{retry}", error.code, error.message))
}
