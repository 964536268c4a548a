//! The recorded client: says what it said then to a broker of today, as soon as it has heard what it had heard then.

use std::collections::HashMap;
use std::io::Write as _;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use corelog_model::TopicId;
use corelog_wire::{Api, Request, Response, decode_request, decode_response};

use crate::compare::{Batches, Times, compare};
use crate::conversation::{Conversation, Entry, Frame, Side};

/// How long the broker may take for what it has to say.
const PATIENCE: Duration = Duration::from_secs(20);

/// Plays the client's part; all that the broker says has to be as recorded, as far as [`compare`] asks for it.
pub(crate) fn play(conversation: &Conversation, broker: SocketAddr) -> Result<(), String> {
    let mut lines: HashMap<usize, Line> = HashMap::new();
    let (mut times, mut batches) = (Times::default(), Vec::new());
    for entry in &conversation.entries {
        match entry {
            Entry::Said { connection, by: Side::Client, frame } => {
                lines.entry(*connection).or_insert_with(|| Line::connect(broker)).say(frame, &mut times)?;
            }
            Entry::Said { connection, by: Side::Broker, frame } => {
                let line = lines.get_mut(connection).ok_or("an answer comes after a question")?;
                line.hear(frame, &mut times, &mut batches)?;
            }
            Entry::Ended { connection, by: Side::Client } => {
                let line = lines.get(connection).ok_or("a client ends what it began")?;
                line.stream.shutdown(Shutdown::Write).map_err(|error| error.to_string())?;
            }
            Entry::Ended { connection, by: Side::Broker } => {
                let line = lines.remove(connection).ok_or("a connection ends once")?;
                batches.extend(line.end()?);
            }
            Entry::Told(_) => {}
        }
    }
    assert!(lines.is_empty(), "a recording ends with its connections");
    batches.iter().try_for_each(|batches| batches.compare(&times))
}

/// One connection.
struct Line {
    stream: TcpStream,
    /// What the handles stand for.
    handles: HashMap<u32, (TopicId, u32)>,
    /// Answers that came before others which were recorded before them.
    early: Vec<Frame>,
    /// By correlation.
    subscriptions: HashMap<u64, Subscription>,
}

/// The pushes of a subscription.
struct Subscription {
    topic: TopicId,
    partition: u32,
    recorded: Vec<Frame>,
    now: Vec<Frame>,
}

impl Line {
    fn connect(broker: SocketAddr) -> Self {
        let stream = TcpStream::connect(broker).expect("the broker listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
        stream.set_nodelay(true).expect("a socket");
        Self { stream, handles: HashMap::new(), early: Vec::new(), subscriptions: HashMap::new() }
    }

    fn say(&mut self, frame: &Frame, times: &mut Times) -> Result<(), String> {
        let body = frame.body();
        let request = decode_request(&frame.header, &body).map_err(|error| format!("{error:?}"))?;
        match request {
            Request::Open { handle, topic, partition } => {
                self.handles.insert(handle, (topic, partition));
            }
            Request::Subscribe { handle, .. } => {
                let &(topic, partition) = self.handles.get(&handle).ok_or("a handle is opened first")?;
                let subscription = Subscription { topic, partition, recorded: Vec::new(), now: Vec::new() };
                self.subscriptions.insert(frame.header.correlation, subscription);
            }
            Request::CommitPosition { handle, name, .. } => {
                let &(topic, partition) = self.handles.get(&handle).ok_or("a handle is opened first")?;
                times.commits(topic, partition, name);
            }
            _ => {}
        }
        self.stream.write_all(&frame.bytes()).map_err(|error| format!("{error} at {}", frame.line()))
    }

    /// Waits for the answer that was recorded.
    fn hear(
        &mut self,
        recorded: &Frame,
        times: &mut Times,
        batches: &mut Vec<Batches>,
    ) -> Result<(), String> {
        let correlation = recorded.header.correlation;
        if is_push(recorded) {
            let waits = |line: &Self| !line.subscriptions[&correlation].covers();
            let subscription =
                self.subscriptions.get_mut(&correlation).ok_or("pushes come after Subscribe")?;
            subscription.recorded.push(recorded.clone());
            while waits(self) {
                let frame = self.next(recorded)?.ok_or_else(|| closed(recorded))?;
                self.take(frame)?;
            }
            return Ok(());
        }
        let now = loop {
            if let Some(at) = self.early.iter().position(|frame| frame.header.correlation == correlation) {
                break self.early.remove(at);
            }
            let frame = self.next(recorded)?.ok_or_else(|| closed(recorded))?;
            self.take(frame)?;
        };
        compare(recorded, &now, self.handles.get(&recorded.header.handle).copied(), times)?;
        if recorded.header.api == Api::Fetch as u16 && !recorded.header.is_error() {
            let &(topic, partition) = self.handles.get(&recorded.header.handle).ok_or("of an open handle")?;
            let (recorded, now) = (recorded.payload.clone(), now.payload);
            batches.push(Batches { topic, partition, recorded, now, may_go_on: false });
        }
        Ok(())
    }

    /// Reads on; `recorded` is waited for.
    fn next(&mut self, recorded: &Frame) -> Result<Option<Frame>, String> {
        Frame::read(&mut self.stream).map_err(|error| format!("{error} instead of {}", recorded.line()))
    }

    fn take(&mut self, frame: Frame) -> Result<(), String> {
        if !is_push(&frame) {
            self.early.push(frame);
            return Ok(());
        }
        let subscription = self.subscriptions.get_mut(&frame.header.correlation);
        let subscription = subscription.ok_or_else(|| format!("nobody subscribed: {}", frame.line()))?;
        subscription.now.push(frame);
        Ok(())
    }

    /// The broker says no more than pushes that were on their way, and closes; what was pushed in all.
    fn end(mut self) -> Result<Vec<Batches>, String> {
        while let Some(frame) =
            Frame::read(&mut self.stream).map_err(|error| format!("{error} instead of an end"))?
        {
            self.take(frame)?;
        }
        if let Some(frame) = self.early.first() {
            return Err(format!("not recorded: {}", frame.line()));
        }
        self.subscriptions.into_values().map(Subscription::end).collect()
    }
}

impl Subscription {
    /// Whether at least as much was pushed as was recorded so far.
    fn covers(&self) -> bool {
        let bytes = |frames: &[Frame]| frames.iter().map(|frame| frame.payload.len()).sum::<usize>();
        let ended = |frames: &[Frame]| frames.last().is_some_and(is_last);
        !self.now.is_empty()
            && bytes(&self.now) >= bytes(&self.recorded)
            && (ended(&self.now) || !ended(&self.recorded))
    }

    /// Heads say the same of the partition in the end, and an end is an end.
    fn end(self) -> Result<Batches, String> {
        let Self { topic, partition, recorded, now } = self;
        let is_behind =
            |frames: &[Frame]| frames.iter().position(is_last).is_some_and(|at| at + 1 < frames.len());
        let place = |frame: Option<&Frame>| frame.map(|frame| frame.head[..PLACE_BYTES].to_vec());
        let grows = now.windows(2).all(|pair| watermark(&pair[0]) <= watermark(&pair[1]));
        let same = place(recorded.last()) == place(now.last()) && !is_behind(&now) && grows;
        if !same || recorded.last().is_some_and(is_last) != now.last().is_some_and(is_last) {
            let lines = |frames: &[Frame]| frames.iter().map(Frame::line).collect::<Vec<_>>().join("\n");
            return Err(format!("recorded\n{}\npushed\n{}", lines(&recorded), lines(&now)));
        }
        let payload = |frames: Vec<Frame>| frames.into_iter().flat_map(|frame| frame.payload).collect();
        Ok(Batches { topic, partition, recorded: payload(recorded), now: payload(now), may_go_on: true })
    }
}

/// Start and end of the log, and epoch, in the head of a push.
const PLACE_BYTES: usize = 8 + 8 + 4;

fn watermark(push: &Frame) -> u64 {
    let body = push.body();
    match decode_response(&push.header, &body) {
        Ok(Response::Pushed { high_watermark, .. }) => high_watermark,
        _ => 0,
    }
}

/// One of perhaps many answers to a Subscribe; an error is its only one, or its last.
pub(crate) const fn is_push(frame: &Frame) -> bool {
    frame.header.api == Api::Subscribe as u16 && !frame.header.is_error()
}

pub(crate) fn is_last(push: &Frame) -> bool {
    let body = push.body();
    matches!(decode_response(&push.header, &body), Ok(Response::Pushed { is_last: true, .. }))
}

fn closed(recorded: &Frame) -> String {
    format!("the broker closes instead of {}", recorded.line())
}
