//! The recorded broker: answers a client of today as it answered the recorded one.
//!
//! A request is one of those recorded if it is the same but for its correlation (and, in Hello, the client's version). It
//! gets the recorded answers, each as soon as everything is asked that had changed something before it. What was never
//! asked is not answered. Pushes go out while the client's credit lasts, which is given in pieces that depend on the
//! moment: Credit is answered without being looked up.

use std::collections::HashMap;
use std::io::Write as _;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Mutex, MutexGuard, PoisonError};

use corelog_wire::{Api, Request, Response, decode_request, decode_response, encode_response};
use tokio::sync::watch;
use tokio::time::timeout;

use crate::conversation::{Conversation, Entry, Frame, Side};
use crate::host::host;
use crate::player::{is_last, is_push};
use crate::record::{PATIENCE, run};
use crate::script::hold;

/// Requests that change nothing which another one is answered by.
const ASKS: [Api; 11] = [
    Api::Hello,
    Api::Ping,
    Api::Metadata,
    Api::Open,
    Api::Fetch,
    Api::OffsetForTime,
    Api::ProducerId,
    Api::Status,
    Api::Subscribe,
    Api::Credit,
    Api::ReadPositions,
];
/// Requests of the recording that are shown beside one that is not among them.
const SHOWN: usize = 5;

/// What a client of today tells its user when it is answered as recorded; or what it asked that was not.
pub(crate) fn answer(conversation: &Conversation) -> Result<Vec<String>, String> {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let at = listener.local_addr().expect("it listens");
    let (said, mut fault) = watch::channel(None);
    let answerer = Answerer::new(conversation, at, said);
    let told = Mutex::new(Vec::new());
    let tell = |what| told.lock().unwrap_or_else(PoisonError::into_inner).push(what);
    let ended = host(
        &listener,
        |connection, stream| answerer.serve(connection, stream),
        |open| {
            run(async {
                tokio::select! {
                    biased;
                    fault = fault.wait_for(Option::is_some) => Err(fault.ok().and_then(|fault| fault.clone())),
                    held = timeout(PATIENCE, hold(at, &conversation.chapters, open, &tell)) => held.map_err(|_| None),
                }
            })
        },
    );
    let told = told.into_inner().unwrap_or_else(PoisonError::into_inner);
    let stuck = || format!("it comes to no end after {told:#?}");
    match ended {
        Ok(()) => Ok(told),
        Err(fault) => Err(fault.unwrap_or_else(stuck)),
    }
}

struct Answerer<'a> {
    conversation: &'a Conversation,
    at: SocketAddr,
    /// Recorded answers that reached the recorded client: the entry of the answer, and of its request.
    answers: Vec<(usize, usize)>,
    state: Mutex<State>,
    fault: watch::Sender<Option<String>>,
}

#[derive(Default)]
struct State {
    /// What was asked, by the entry of the recording.
    asked: HashMap<usize, Asked>,
    /// Entries that were sent.
    sent: Vec<usize>,
    streams: HashMap<usize, TcpStream>,
}

/// A recorded request that a client of today made.
struct Asked {
    connection: usize,
    handle: u32,
    correlation: u64,
    /// Of a subscription: bytes that may be pushed.
    credit: i64,
    /// Of a subscription: the client wants no more.
    is_over: bool,
}

impl<'a> Answerer<'a> {
    fn new(conversation: &'a Conversation, at: SocketAddr, fault: watch::Sender<Option<String>>) -> Self {
        let (mut requests, mut answers, mut gone) = (HashMap::new(), Vec::new(), Vec::new());
        for (number, entry) in conversation.entries.iter().enumerate() {
            match entry {
                Entry::Said { connection, by: Side::Client, frame } => {
                    requests.insert((*connection, frame.header.correlation), number);
                }
                Entry::Said { connection, frame, .. } if !gone.contains(connection) => {
                    answers.push((number, requests[&(*connection, frame.header.correlation)]));
                }
                Entry::Ended { connection, by: Side::Client } => gone.push(*connection),
                Entry::Said { .. } | Entry::Ended { .. } | Entry::Told(_) => {}
            }
        }
        Self { conversation, at, answers, state: Mutex::default(), fault }
    }

    fn serve(&self, connection: usize, mut stream: TcpStream) {
        self.lock().streams.insert(connection, stream.try_clone().expect("a socket"));
        while let Ok(Some(frame)) = Frame::read(&mut stream) {
            let mut state = self.lock();
            if let Err(fault) = self.take(&mut state, connection, &frame) {
                self.fault.send_replace(Some(fault));
                break;
            }
            self.answer(&mut state);
        }
        self.lock().streams.remove(&connection);
        // The client may be gone altogether.
        let _ = stream.shutdown(Shutdown::Both);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn frame(&self, number: usize) -> Option<&Frame> {
        match &self.conversation.entries[number] {
            Entry::Said { frame, .. } => Some(frame),
            Entry::Ended { .. } | Entry::Told(_) => None,
        }
    }

    /// Requests of the recording, in its order.
    fn requests(&self) -> impl Iterator<Item = (usize, &Frame)> {
        self.conversation.entries.iter().enumerate().filter_map(|(number, entry)| match entry {
            Entry::Said { by: Side::Client, frame, .. } => Some((number, frame)),
            _ => None,
        })
    }

    fn take(&self, state: &mut State, connection: usize, frame: &Frame) -> Result<(), String> {
        let body = frame.body();
        let request =
            decode_request(&frame.header, &body).map_err(|error| format!("{error:?}: {}", frame.line()))?;
        let handle = request.handle();
        if let Request::Credit { bytes, ends, .. } = request
            && let Some(asked) = self.subscription(state, connection, handle)
        {
            asked.credit += i64::from(bytes);
            asked.is_over |= ends;
            let mut bytes = Vec::new();
            encode_response(&Response::Credited, frame.header.reply_to(), &mut bytes);
            return state.send(connection, &bytes);
        }
        let mut credit = 0;
        if let Request::Subscribe { credit: given, .. } = request {
            credit = i64::from(given);
            if let Some(before) = self.subscription(state, connection, handle) {
                before.is_over = true;
            }
        }
        let open = |number: &usize| !state.asked.contains_key(number);
        let mut left = self.requests().filter(|(number, _)| open(number));
        let found = left.find(|(_, recorded)| is_same(recorded, frame)).map(|(number, _)| number);
        let number = found.ok_or_else(|| self.unknown(state, frame))?;
        let correlation = frame.header.correlation;
        state.asked.insert(number, Asked { connection, handle, correlation, credit, is_over: false });
        Ok(())
    }

    /// The subscription that a handle of the client's has, or had last.
    fn subscription<'s>(
        &self,
        state: &'s mut State,
        connection: usize,
        handle: u32,
    ) -> Option<&'s mut Asked> {
        let subscribes = |number: &usize| {
            self.frame(*number).is_some_and(|frame| frame.header.api == Api::Subscribe as u16)
        };
        let of_handle = |asked: &Asked| (asked.connection, asked.handle) == (connection, handle);
        let mut all = state.asked.iter_mut().filter(|(number, asked)| subscribes(number) && of_handle(asked));
        let mut last = all.next()?;
        for next in all {
            if next.0 > last.0 {
                last = next;
            }
        }
        Some(last.1)
    }

    fn unknown(&self, state: &State, frame: &Frame) -> String {
        let left = self.requests().filter(|(number, recorded)| {
            recorded.header.api == frame.header.api && !state.asked.contains_key(number)
        });
        let left: Vec<_> = left.take(SHOWN).map(|(_, recorded)| recorded.line()).collect();
        format!("asked\n{}\nrecorded, and not asked before\n{}", frame.line(), left.join("\n"))
    }

    /// Sends whatever can be sent now.
    fn answer(&self, state: &mut State) {
        let changes = |frame: &Frame| ASKS.iter().all(|&api| frame.header.api != api as u16);
        let mut missing =
            self.requests().filter(|(number, frame)| changes(frame) && !state.asked.contains_key(number));
        let until = missing.next().map_or(usize::MAX, |(number, _)| number);
        for &(number, request) in self.answers.iter().take_while(|(number, _)| *number < until) {
            let Some(frame) = self.frame(number).filter(|_| !state.sent.contains(&number)) else { continue };
            let Some(asked) = state.asked.get_mut(&request) else { continue };
            if is_push(frame) {
                let waits = if is_last(frame) { !asked.is_over } else { asked.credit <= 0 };
                if waits || asked.is_over && !is_last(frame) {
                    continue;
                }
                asked.credit -= i64::from(frame.header.payload_bytes);
            }
            let (connection, correlation) = (asked.connection, asked.correlation);
            state.sent.push(number);
            let frame = Frame::new(
                corelog_wire::FrameHeader { correlation, ..frame.header },
                self.head(frame),
                frame.payload.clone(),
            );
            // Who has gone needs no answer.
            let _ = state.send(connection, &frame.bytes());
        }
    }

    /// The head, with this broker's address in place of the recorded one.
    fn head(&self, frame: &Frame) -> Vec<u8> {
        let body = frame.body();
        let Ok(Response::Metadata(mut reply)) = decode_response(&frame.header, &body) else {
            return frame.head.clone();
        };
        assert_eq!(frame.with(&Response::Metadata(reply.clone())), *frame, "nothing gets lost");
        let (recorded, host) = (self.conversation.endpoint, self.at.ip().to_string());
        for endpoint in &mut reply.endpoints {
            assert_eq!((endpoint.host, endpoint.port), (recorded.ip().to_string().as_str(), recorded.port()));
            (endpoint.host, endpoint.port) = (&host, self.at.port());
        }
        frame.with(&Response::Metadata(reply)).head
    }
}

impl State {
    fn send(&mut self, connection: usize, bytes: &[u8]) -> Result<(), String> {
        let stream = self.streams.get_mut(&connection).ok_or("the connection is over")?;
        stream.write_all(bytes).map_err(|error| error.to_string())
    }
}

/// Whether a request is the recorded one. Which version of the client asks does not matter.
fn is_same(recorded: &Frame, asked: &Frame) -> bool {
    let (before, after) = (recorded.body(), asked.body());
    match (decode_request(&recorded.header, &before), decode_request(&asked.header, &after)) {
        (Ok(Request::Hello(before)), Ok(Request::Hello(after))) => {
            recorded.header.version == asked.header.version
                && (before.client, before.max_frame_bytes) == (after.client, after.max_frame_bytes)
        }
        _ => recorded.asks_the_same(asked),
    }
}
