//! Questions: administrative requests, each with one answer, over one connection.
//!
//! A refusal that time can mend is not an answer: the question is asked again after a pause, as long as there is time.
//!
//! **Invariant:** a question that could change something is never sent again unless it was refused: if the connection is
//! lost after it was sent, its outcome is unknown and said to be.

use std::collections::VecDeque;

use corelog_model::{Durability, RetentionChange, TopicId};
use corelog_wire::error::bound;
use corelog_wire::request::MAX_HANDLE;
use corelog_wire::{At, ErrorBody, ErrorCode, Request, Response, Status, Which};

use crate::config::Backoff;
use crate::core::backoff::pause_us;
use crate::core::connection::Connection;
use crate::core::rng::Rng;
use crate::error::{ClientError, Refused};
use crate::position::Committed;
use crate::topic::{Damage, PartitionInfo, Topic};

/// Names a question; chosen by whoever asks.
pub(crate) type Ticket = u64;

/// What may be asked.
#[derive(Clone, Debug)]
pub(crate) enum Question {
    Ping,
    Topics,
    Topic(String),
    CreateTopic {
        name: String,
        partitions: u32,
        durability: Durability,
        retention: RetentionChange,
    },
    AlterTopic {
        name: String,
        partitions: Option<u32>,
        durability: Option<Durability>,
        retention: RetentionChange,
    },
    DeleteTopic(String),
    OfPartition {
        topic: TopicId,
        partition: u32,
        about: About,
    },
    Status,
}

/// What may be asked about a partition, once it has a handle.
#[derive(Clone, Debug)]
pub(crate) enum About {
    Offset(At),
    /// The position of this name.
    Position(String),
    /// Those whose names come after this one.
    Positions(String),
    Commit {
        name: String,
        offset: u64,
        metadata: String,
    },
    Forget(String),
    /// Records below this offset are to go.
    Delete(u64),
}

/// What is answered.
#[derive(Debug, PartialEq)]
pub(crate) enum Told {
    Done,
    Topics(Vec<Topic>),
    Offset(u64),
    /// Positions of a partition, and whether there are more.
    Positions {
        positions: Vec<Committed>,
        more: bool,
    },
    Status(Box<Status>),
}

pub(crate) type Answered = (Ticket, Result<Told, ClientError>);

struct Asked {
    ticket: Ticket,
    question: Question,
    /// After this time nobody waits for the answer, in microseconds.
    deadline_us: u64,
    /// It is not asked before, in microseconds.
    not_before_us: u64,
    refusals: u32,
}

/// What an answer belongs to.
pub(crate) enum Token {
    Whole(Ticket),
    /// The handle that a question about a partition is then asked with.
    Handle(Ticket, u32),
}

pub(crate) struct Control {
    waiting: VecDeque<Asked>,
    out: Vec<Asked>,
    last_handle: u32,
    backoff: Backoff,
    rng: Rng,
}

impl Question {
    /// Whether asking twice does the same as asking once. A position that is set twice is the same position.
    const fn repeats(&self) -> bool {
        !matches!(self, Self::CreateTopic { .. } | Self::AlterTopic { .. } | Self::DeleteTopic(_))
    }
}

impl Control {
    pub(crate) const fn new(backoff: Backoff, rng: Rng) -> Self {
        Self { waiting: VecDeque::new(), out: Vec::new(), last_handle: 0, backoff, rng }
    }

    pub(crate) fn ask(&mut self, ticket: Ticket, question: Question, deadline_us: u64) {
        self.waiting.push_back(Asked { ticket, question, deadline_us, not_before_us: 0, refusals: 0 });
    }

    /// Nobody waits for this answer any more. What is already sent is answered to nobody.
    pub(crate) fn forget(&mut self, ticket: Ticket) {
        self.waiting.retain(|asked| asked.ticket != ticket);
    }

    /// Sends what waits and whose time has come.
    pub(crate) fn fill(&mut self, connection: &mut Connection<Token>, now_us: u64) {
        for _ in 0..self.waiting.len() {
            let asked = self.waiting.pop_front().expect("counted");
            if asked.not_before_us > now_us {
                self.waiting.push_back(asked);
                continue;
            }
            let whole = Token::Whole(asked.ticket);
            match &asked.question {
                Question::Ping => connection.ask(&Request::Ping, whole),
                Question::Topics => connection.ask(&Request::Metadata { topic: None }, whole),
                Question::Topic(name) => connection.ask(&Request::Metadata { topic: Some(name) }, whole),
                Question::CreateTopic { name, partitions, durability, retention } => {
                    let (partitions, durability, retention) = (*partitions, *durability, *retention);
                    connection.ask(&Request::CreateTopic { name, partitions, durability, retention }, whole);
                }
                Question::AlterTopic { name, partitions, durability, retention } => {
                    let (partitions, durability, retention) = (*partitions, *durability, *retention);
                    connection.ask(&Request::AlterTopic { name, partitions, durability, retention }, whole);
                }
                Question::DeleteTopic(name) => connection.ask(&Request::DeleteTopic { name }, whole),
                Question::Status => connection.ask(&Request::Status, whole),
                &Question::OfPartition { topic, partition, .. } => {
                    let handle = self.last_handle % MAX_HANDLE + 1;
                    self.last_handle = handle;
                    connection.ask(
                        &Request::Open { handle, topic, partition },
                        Token::Handle(asked.ticket, handle),
                    );
                }
            }
            self.out.push(asked);
        }
    }

    /// Takes an answer. A second request that it leads to is returned with the place to send it from.
    pub(crate) fn on_answer(
        &mut self,
        token: Token,
        response: &Response<'_>,
        now_us: u64,
        done: &mut Vec<Answered>,
    ) -> Option<Then> {
        let (Token::Whole(ticket) | Token::Handle(ticket, _)) = token;
        let at = self.out.iter().position(|asked| asked.ticket == ticket)?;
        if let (Token::Handle(_, handle), Response::Opened { .. }, Question::OfPartition { about, .. }) =
            (&token, response, &self.out[at].question)
        {
            return Some(Then { ticket, handle: *handle, about: about.clone() });
        }
        let mut asked = self.out.swap_remove(at);
        if let Response::Error(body) = response
            && time_can_mend(body)
        {
            asked.refusals += 1;
            let pause = pause_us(self.backoff, asked.refusals, &mut self.rng);
            asked.not_before_us = now_us.saturating_add(pause.max(body.retry_after_us.into()));
            if asked.not_before_us < asked.deadline_us {
                self.waiting.push_back(asked);
                return None;
            }
        }
        done.push((ticket, told(&asked.question, response)));
        None
    }

    /// When the next of the questions that were refused is to be asked again, in microseconds.
    pub(crate) fn next_due_us(&self) -> Option<u64> {
        self.waiting.iter().map(|asked| asked.not_before_us).min()
    }

    /// The connection is gone: repeats what can be repeated.
    pub(crate) fn on_lost(&mut self, done: &mut Vec<Answered>) {
        for asked in self.out.drain(..).rev() {
            if asked.question.repeats() {
                self.waiting.push_front(asked);
            } else {
                done.push((asked.ticket, Err(ClientError::OutcomeUnknown)));
            }
        }
    }
}

/// Whether the same question can be answered in a while without anybody doing anything for it. Not where the broker means
/// another place, and not at a bound that only a deletion moves.
fn time_can_mend(body: &ErrorBody<'_>) -> bool {
    let full = body.code == ErrorCode::TooMany
        && matches!(body.details[0], bound::TOPICS | bound::PARTITIONS | bound::POSITIONS);
    body.code.retryable() && body.code != ErrorCode::NotHere && !full
}

/// A second request of the same question.
pub(crate) struct Then {
    ticket: Ticket,
    handle: u32,
    about: About,
}

impl Then {
    pub(crate) fn send(self, connection: &mut Connection<Token>) {
        let handle = self.handle;
        let request = match &self.about {
            About::Offset(at) => Request::OffsetForTime { handle, at: *at },
            About::Position(name) => Request::ReadPositions { handle, which: Which::One(name) },
            About::Positions(after) => Request::ReadPositions { handle, which: Which::After(after) },
            About::Commit { name, offset, metadata } => {
                Request::CommitPosition { handle, name, offset: *offset, leader_epoch: None, metadata }
            }
            About::Forget(name) => Request::DeletePosition { handle, name },
            About::Delete(before_offset) => Request::DeleteRecords { handle, before_offset: *before_offset },
        };
        connection.ask(&request, Token::Whole(self.ticket));
    }
}

fn told(question: &Question, response: &Response<'_>) -> Result<Told, ClientError> {
    match response {
        Response::Error(body) => Err(refused(question, body)),
        Response::Positions(reply) => {
            let partition =
                if let Question::OfPartition { partition, .. } = question { *partition } else { 0 };
            Ok(Told::Positions { positions: committed(partition, reply), more: reply.more })
        }
        Response::Metadata(reply) => Ok(Told::Topics(topics_of(reply))),
        Response::OffsetFound { offset, .. } | Response::RecordsDeleted { log_start: offset } => {
            Ok(Told::Offset(*offset))
        }
        Response::Status(status) => Ok(Told::Status(status.clone())),
        // The connection has seen to it that the answer is of the api that was asked.
        _ => Ok(Told::Done),
    }
}

/// What a ReadPositions answer about a partition says.
fn committed(partition: u32, reply: &corelog_wire::PositionsReply<'_>) -> Vec<Committed> {
    let one = |view: &corelog_wire::PositionView<'_>| Committed {
        name: view.name.to_owned(),
        partition,
        offset: view.offset,
        leader_epoch: view.leader_epoch.map(|term| term.0),
        commit_timestamp_us: view.commit_timestamp_us,
        metadata: view.metadata.to_owned(),
        log_start: reply.log_start,
        high_watermark: reply.high_watermark,
    };
    reply.positions.iter().map(one).collect()
}

/// What a Metadata answer says.
pub(crate) fn topics_of(reply: &corelog_wire::MetadataReply<'_>) -> Vec<Topic> {
    reply.topics.iter().map(|view| topic(reply, view)).collect()
}

fn topic(reply: &corelog_wire::MetadataReply<'_>, view: &corelog_wire::TopicView<'_>) -> Topic {
    let place = |place: &corelog_wire::PartitionPlace| {
        let endpoint = &reply.endpoints[place.endpoint()];
        let host = endpoint.host;
        let bracketed = host.contains(':') && !host.starts_with('[');
        let address = if bracketed {
            format!("[{host}]:{}", endpoint.port)
        } else {
            format!("{host}:{}", endpoint.port)
        };
        PartitionInfo { address }
    };
    let range = |range: &corelog_wire::DamagedRange| Damage {
        partition: range.partition(),
        first: range.first(),
        last: range.last(),
    };
    let partitions = view.partitions.iter().map(place).collect();
    let damage = view.damage.iter().map(range).collect();
    Topic::new(view.name.to_owned(), view.topic, view.durability, view.retention, partitions, damage)
}

fn refused(question: &Question, body: &ErrorBody<'_>) -> ClientError {
    match (body.code, question) {
        (ErrorCode::UnknownTopic | ErrorCode::UnknownTopicId, _) => ClientError::UnknownTopic,
        (ErrorCode::UnknownPartition, _) => ClientError::UnknownPartition,
        (ErrorCode::TopicExists, Question::CreateTopic { .. }) => ClientError::TopicExists,
        _ => ClientError::Refused(Refused::from(body)),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::core::buffers::Pool;

    fn control() -> Control {
        let backoff = Backoff { first: Duration::from_micros(100), most: Duration::from_micros(400) };
        Control::new(backoff, Rng::new(1))
    }

    /// Asks what is due and refuses it; when it was asked, and the answer if it was the last time.
    fn refuse(control: &mut Control, now_us: u64, body: ErrorBody<'_>) -> (bool, Vec<Answered>) {
        let mut connection = Connection::new(Pool::new(0), 32 << 10);
        let mut done = Vec::new();
        control.fill(&mut connection, now_us);
        let asked = !control.out.is_empty();
        if asked {
            let ticket = control.out[0].ticket;
            control.on_answer(Token::Whole(ticket), &Response::Error(body), now_us, &mut done);
        }
        (asked, done)
    }

    #[test]
    fn what_time_can_mend_is_asked_again_after_ever_longer_pauses_until_the_deadline() {
        let mut control = control();
        let create = Question::CreateTopic {
            name: "a".into(),
            partitions: 1,
            durability: Durability::Durable,
            retention: RetentionChange::NONE,
        };
        control.ask(1, create, 2_000);
        let body = ErrorBody::new(ErrorCode::NotReady, "");
        let (mut now_us, mut pauses) = (0, Vec::new());
        let answer = loop {
            let (asked, mut done) = refuse(&mut control, now_us, body);
            assert!(asked, "it is due at {now_us}");
            if let Some(answer) = done.pop() {
                break answer;
            }
            let due_us = control.next_due_us().expect("it waits");
            assert_eq!(refuse(&mut control, due_us - 1, body), (false, Vec::new()), "not before its time");
            pauses.push(due_us - now_us);
            now_us = due_us;
        };
        assert!(pauses.len() >= 4 && pauses[2] > pauses[0], "{pauses:?}");
        assert!(pauses.iter().all(|pause| (80..=480).contains(pause)), "{pauses:?}");
        assert!((1_500..2_000).contains(&now_us), "the last attempt was at {now_us}");
        let Err(ClientError::Refused(refused)) = answer.1 else { panic!("{answer:?}") };
        assert_eq!(refused.code, ErrorCode::NotReady, "the cause, not just that time is over");
        assert_eq!(control.next_due_us(), None);
    }

    #[test]
    fn the_broker_may_name_a_longer_pause() {
        let mut control = control();
        control.ask(1, Question::Topics, u64::MAX);
        let body = ErrorBody { retry_after_us: 5_000, ..ErrorBody::new(ErrorCode::StorageFull, "") };
        assert_eq!(refuse(&mut control, 7, body), (true, Vec::new()));
        assert_eq!(control.next_due_us(), Some(5_007));
    }

    #[test]
    fn what_time_cannot_mend_is_the_answer_at_once() {
        let full = ErrorBody { details: [bound::TOPICS, 10], ..ErrorBody::new(ErrorCode::TooMany, "") };
        let rows = [full, ErrorBody::new(ErrorCode::NotHere, ""), ErrorBody::new(ErrorCode::ReadOnly, "")];
        for body in rows {
            let mut control = control();
            control.ask(1, Question::Topics, u64::MAX);
            let (_, done) = refuse(&mut control, 0, body);
            assert_eq!(done, [(1, Err(ClientError::Refused(Refused::from(&body))))]);
        }
    }

    #[test]
    fn after_a_lost_connection_only_harmless_questions_are_asked_again() {
        let mut control = control();
        let create = Question::CreateTopic {
            name: "a".into(),
            partitions: 1,
            durability: Durability::Durable,
            retention: RetentionChange::NONE,
        };
        control.ask(1, Question::Topics, 1000);
        control.ask(2, create.clone(), 1000);
        control.ask(3, Question::Ping, 1000);
        let mut first = Connection::new(Pool::new(0), 32 << 10);
        control.fill(&mut first, 0);
        assert_eq!(first.outstanding(), 3);
        control.ask(4, create, 1000);

        let mut done = Vec::new();
        control.on_lost(&mut done);
        assert_eq!(done.len(), 1);
        assert!(matches!(done[0], (2, Err(ClientError::OutcomeUnknown))));
        let mut second = Connection::new(Pool::new(0), 32 << 10);
        control.fill(&mut second, 0);
        assert_eq!(second.outstanding(), 3, "two again, and the one that was never sent");
        assert_eq!(control.out.iter().map(|asked| asked.ticket).collect::<Vec<_>>(), [1, 3, 4]);
    }
}
