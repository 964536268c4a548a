//! One connection: which request is whose, frames out, frames in.
//!
//! **Invariant:** every request has exactly one entry in `pending` until its (last) answer; an answer that nobody waits
//! for, or of another api than was asked, ends the connection. `T` says what to do with the answer.

use std::ops::Range;
use std::sync::Arc;

use corelog_model::limits::round_up;
use corelog_wire::frame::{FRAME_ALIGN, FRAME_OVERHEAD_BYTES, HELLO_FRAME_BYTES, MAX_FRAME_BYTES};
use corelog_wire::request::HOT_REQUEST_BYTES;
use corelog_wire::{
    Api, Call, ErrorBody, Hello, HelloReply, Request, Response, decode_response, encode_request,
    encode_request_head,
};

use crate::core::buffers::{Chunk, Pool};
use crate::core::inbox::{Inbox, Received};
use crate::core::outbox::Outbox;
use crate::error::{LinkError, Refused};

struct Slot<T> {
    generation: u32,
    asked: Option<Asked<T>>,
}

struct Asked<T> {
    api: Api,
    token: T,
    /// The token again, for each answer but the last of a request that has many.
    again: Option<fn(&T) -> T>,
}

pub(crate) struct Connection<T> {
    pub(crate) inbox: Inbox,
    pub(crate) outbox: Outbox,
    pending: Vec<Slot<T>>,
    free: Vec<u32>,
    /// Version to use per api, by the api's place in `Api::ALL`; 0: the broker does not serve it.
    versions: Vec<u8>,
}

/// An answer, in the chunk it was received into.
pub(crate) struct Reply<'a, T> {
    pub(crate) token: T,
    pub(crate) response: Response<'a>,
    pub(crate) chunk: &'a Arc<Chunk>,
    /// Where the batches lie in the chunk.
    pub(crate) payload: Range<usize>,
}

impl<T> Connection<T> {
    /// A connection that has said nothing yet. It reads `chunk_bytes` at once.
    pub(crate) fn new(pool: Arc<Pool>, chunk_bytes: usize) -> Self {
        Self {
            inbox: Inbox::new(pool, chunk_bytes, HELLO_FRAME_BYTES),
            outbox: Outbox::default(),
            pending: Vec::new(),
            free: Vec::new(),
            versions: vec![1; Api::ALL.len()],
        }
    }

    /// Says Hello.
    pub(crate) fn greet(&mut self, name: &str, max_frame_bytes: u32, token: T) {
        // The reply is not longer than any frame may be before Hello, but for the list of what a newer broker serves.
        self.inbox.limit = HELLO_FRAME_BYTES + FRAME_OVERHEAD_BYTES;
        let hello = Hello { client: name, client_version: env!("CARGO_PKG_VERSION"), max_frame_bytes };
        self.ask(&Request::Hello(hello), token);
    }

    /// Takes over what Hello negotiated.
    pub(crate) fn greeted(&mut self, limit: u32, versions: Vec<u8>) {
        self.inbox.limit = (limit as usize).min(MAX_FRAME_BYTES);
        self.versions = versions;
    }

    /// Whether the broker serves an api: one that is older than this client has fewer.
    pub(crate) fn serves(&self, api: Api) -> bool {
        self.version(api) > 0
    }

    pub(crate) fn ask(&mut self, request: &Request<'_>, token: T) {
        self.send(request, token, None);
    }

    /// The same for a request that is answered again and again.
    pub(crate) fn subscribe(&mut self, request: &Request<'_>, token: T)
    where
        T: Copy,
    {
        self.send(request, token, Some(|token| *token));
    }

    fn send(&mut self, request: &Request<'_>, token: T, again: Option<fn(&T) -> T>) {
        let call = self.call((request.api(), request.version()), token, again);
        let mut head = [0; HOT_REQUEST_BYTES];
        match encode_request_head(request, call, &mut head) {
            Ok(length) => self.outbox.head(head, length),
            Err(_) => {
                let mut bytes = Vec::new();
                encode_request(request, call, &mut bytes);
                self.outbox.long(bytes);
            }
        }
    }

    /// Produce with one sealed batch, which is sent from where it is.
    pub(crate) fn produce(&mut self, handle: u32, expected_offset: Option<u64>, batch: Arc<Chunk>, token: T) {
        let call = self.call((Api::Produce, 1), token, None);
        let request = Request::Produce { handle, expected_offset, batches: &batch };
        let mut head = [0; HOT_REQUEST_BYTES];
        let length = encode_request_head(&request, call, &mut head).expect("a hot request fits");
        self.outbox.head(head, length);
        assert!(batch.len().is_multiple_of(FRAME_ALIGN), "a sealed batch is padded");
        self.outbox.batch(batch);
    }

    fn version(&self, api: Api) -> u8 {
        self.versions[Api::ALL.iter().position(|&known| known == api).expect("all are listed")]
    }

    /// What the broker does not serve, and whoever asks cannot do without, is asked for all the same: it is then refused by
    /// name.
    fn call(&mut self, (api, least): (Api, u8), token: T, again: Option<fn(&T) -> T>) -> Call {
        let version = match self.version(api) {
            0 => api.versions().max,
            common => common.max(least),
        };
        let slot = self.free.pop().unwrap_or_else(|| {
            self.pending.push(Slot { generation: 0, asked: None });
            u32::try_from(self.pending.len() - 1).expect("requests are bounded")
        });
        let entry = &mut self.pending[slot as usize];
        entry.generation = entry.generation.wrapping_add(1);
        entry.asked = Some(Asked { api, token, again });
        let correlation = u64::from(entry.generation) << 32 | u64::from(slot);
        Call { correlation, version }
    }

    /// The next answer among the bytes received.
    pub(crate) fn next(&mut self) -> Result<Option<Reply<'_, T>>, LinkError> {
        let Some(received) = self.inbox.next().map_err(LinkError::Protocol)? else { return Ok(None) };
        let header = received.header;
        if header.correlation == 0 {
            return Err(self.ended(&received));
        }
        let slot = header.correlation as u32;
        let entry = self.pending.get_mut(slot as usize).ok_or(LinkError::Unexpected)?;
        if entry.generation != (header.correlation >> 32) as u32 {
            return Err(LinkError::Unexpected);
        }
        let asked = entry.asked.take().ok_or(LinkError::Unexpected)?;
        let start = received.body.start + round_up(header.head_bytes as usize, FRAME_ALIGN);
        let payload = start..start + header.payload_bytes as usize;
        let chunk = self.inbox.chunk();
        let response = decode_response(&header, &chunk[received.body]).map_err(LinkError::Protocol)?;
        if response.api().is_some_and(|answered| answered != asked.api) {
            return Err(LinkError::Unexpected);
        }
        let token = match (&response, asked.again) {
            (Response::Pushed { is_last: false, .. }, Some(again)) => {
                let token = again(&asked.token);
                entry.asked = Some(asked);
                token
            }
            _ => {
                self.free.push(slot);
                asked.token
            }
        };
        Ok(Some(Reply { token, response, chunk, payload }))
    }

    /// What was not asked for is the broker's last word.
    fn ended(&self, received: &Received) -> LinkError {
        match decode_response(&received.header, &self.inbox.chunk()[received.body.clone()]) {
            Ok(Response::Error(body)) => LinkError::Ended { code: body.code, details: body.details },
            _ => LinkError::Unexpected,
        }
    }

    /// Requests without answer.
    #[cfg(test)]
    pub(crate) fn outstanding(&self) -> usize {
        self.pending.len() - self.free.len()
    }
}

/// The last api of the first release: all brokers serve these.
const LAST_OF_FIRST: u16 = Api::Status as u16;

/// The version to use per api, 0 for one that came later and that the broker does not serve; or `Version` if one that all
/// brokers serve has none in common.
pub(crate) fn negotiate(reply: &HelloReply<'_>) -> Result<Vec<u8>, LinkError> {
    let version = |&api: &Api| match corelog_wire::api::negotiate(api, reply.served) {
        None if api as u16 > LAST_OF_FIRST => Ok(0),
        version => version.ok_or(LinkError::Version),
    };
    Api::ALL.iter().map(version).collect()
}

impl From<&ErrorBody<'_>> for Refused {
    fn from(body: &ErrorBody<'_>) -> Self {
        Self { code: body.code, message: body.message.into(), detail: body.details }
    }
}

#[cfg(test)]
mod tests {
    use corelog_model::Term;
    use corelog_wire::api::SERVED;
    use corelog_wire::{ErrorCode, ReplyTo, encode_response};

    use super::*;

    fn connection() -> Connection<u32> {
        Connection::new(Pool::new(1 << 20), 32 << 10)
    }

    fn answer(connection: &mut Connection<u32>, response: &Response<'_>, api: Api, correlation: u64) {
        let mut bytes = Vec::new();
        encode_response(
            response,
            ReplyTo { api: api as u16, version: 1, handle: 0, correlation },
            &mut bytes,
        );
        connection.inbox.space()[..bytes.len()].copy_from_slice(&bytes);
        connection.inbox.filled(bytes.len());
    }

    fn next(connection: &mut Connection<u32>) -> Result<Option<u32>, LinkError> {
        connection.next().map(|reply| reply.map(|reply| reply.token))
    }

    #[test]
    fn the_brokers_last_word_is_why_the_connection_ends() {
        let mut connection = connection();
        let body = ErrorBody { details: [90_000, 65_536], ..ErrorBody::new(ErrorCode::SlowConsumer, "slow") };
        let mut bytes = Vec::new();
        encode_response(
            &Response::Error(body),
            ReplyTo { api: 0, version: 0, handle: 0, correlation: 0 },
            &mut bytes,
        );
        connection.inbox.space()[..bytes.len()].copy_from_slice(&bytes);
        connection.inbox.filled(bytes.len());
        let ended = next(&mut connection).unwrap_err();
        assert_eq!(ended, LinkError::Ended { code: ErrorCode::SlowConsumer, details: [90_000, 65_536] });
        let words = "the broker ended the connection: SLOW_CONSUMER, bytes 90000, max 65536";
        assert_eq!(ended.to_string(), words);
    }

    #[test]
    fn answers_find_their_request_in_any_order() {
        let mut connection = connection();
        for token in 0..3 {
            connection.ask(&Request::Ping, token);
        }
        for slot in [2, 0, 1] {
            answer(&mut connection, &Response::Pong, Api::Ping, 1 << 32 | slot);
            assert_eq!(next(&mut connection), Ok(Some(slot as u32)));
        }
        assert_eq!(next(&mut connection), Ok(None));
        assert_eq!(connection.outstanding(), 0);
    }

    #[test]
    fn a_subscription_has_answers_until_the_last() {
        let pushed = |is_last| Response::Pushed {
            log_start: 0,
            high_watermark: 0,
            leader_epoch: Term(1),
            is_last,
            batches: &[],
        };
        let request =
            Request::Subscribe { handle: 1, offset: 0, leader_epoch: None, max_bytes: 1, credit: 1 };
        let error = Response::Error(ErrorBody::new(ErrorCode::Damaged, ""));
        for last in [pushed(true), error] {
            let mut connection = connection();
            connection.subscribe(&request, 7);
            for _ in 0..3 {
                answer(&mut connection, &pushed(false), Api::Subscribe, 1 << 32);
                assert_eq!(next(&mut connection), Ok(Some(7)));
                assert_eq!(connection.outstanding(), 1);
            }
            answer(&mut connection, &last, Api::Subscribe, 1 << 32);
            assert_eq!(next(&mut connection), Ok(Some(7)));
            assert_eq!(connection.outstanding(), 0);
            answer(&mut connection, &pushed(false), Api::Subscribe, 1 << 32);
            assert_eq!(next(&mut connection), Err(LinkError::Unexpected), "one more");
        }
    }

    #[test]
    fn an_older_broker_lacks_what_came_later_and_nothing_else() {
        let reply = |served| HelloReply {
            server: "",
            store: 1,
            term: Term(1),
            max_frame_bytes: 1 << 20,
            max_batch_bytes: 1 << 20,
            served,
        };
        let first = &SERVED[..LAST_OF_FIRST as usize];
        let mut connection = connection();
        connection.greeted(1 << 20, negotiate(&reply(first)).unwrap());
        assert!(connection.serves(Api::Fetch) && !connection.serves(Api::Subscribe));
        connection.greeted(1 << 20, negotiate(&reply(SERVED)).unwrap());
        assert!(connection.serves(Api::Subscribe));
        assert_eq!(negotiate(&reply(&first[1..])), Err(LinkError::Version));
    }

    #[test]
    fn an_answer_that_was_not_asked_for_ends_the_connection() {
        let stories: [(&str, u64, Api, Response<'_>); 3] = [
            ("unknown slot", 1 << 32 | 7, Api::Ping, Response::Pong),
            ("earlier generation", 0, Api::Ping, Response::Pong),
            ("another api", 1 << 32, Api::DeleteTopic, Response::TopicDeleted),
        ];
        for (story, correlation, api, response) in stories {
            let mut connection = connection();
            connection.ask(&Request::Ping, 0);
            answer(&mut connection, &response, api, correlation);
            assert_eq!(next(&mut connection), Err(LinkError::Unexpected), "{story}");
        }
        let mut twice = connection();
        twice.ask(&Request::Ping, 0);
        answer(&mut twice, &Response::Pong, Api::Ping, 1 << 32);
        answer(&mut twice, &Response::Pong, Api::Ping, 1 << 32);
        assert_eq!(next(&mut twice), Ok(Some(0)));
        assert_eq!(next(&mut twice), Err(LinkError::Unexpected), "the same answer twice");
    }
}
