//! Questions: administrative requests, each with one answer, over one connection.
//!
//! **Invariant:** a question that could change something is never sent twice: if the connection is lost after it was sent,
//! its outcome is unknown and said to be.

use std::collections::VecDeque;

use corelog_model::{Durability, TopicId};
use corelog_wire::request::MAX_HANDLE;
use corelog_wire::{At, ErrorBody, ErrorCode, Request, Response, Status};

use crate::core::connection::Connection;
use crate::error::{ClientError, Refused};
use crate::topic::{PartitionInfo, Topic};

/// Names a question; chosen by whoever asks.
pub(crate) type Ticket = u64;

/// What may be asked.
#[derive(Clone, Debug)]
pub(crate) enum Question {
    Ping,
    Topics,
    Topic(String),
    CreateTopic { name: String, partitions: u32, durability: Durability },
    DeleteTopic(String),
    Offset { topic: TopicId, partition: u32, at: At },
    Status,
}

/// What is answered.
#[derive(Debug)]
pub(crate) enum Told {
    Done,
    Topics(Vec<Topic>),
    Offset(u64),
    Status(Box<Status>),
}

pub(crate) type Answered = (Ticket, Result<Told, ClientError>);

struct Asked {
    ticket: Ticket,
    question: Question,
}

/// What an answer belongs to.
pub(crate) enum Token {
    Whole(Ticket),
    /// The handle that an `Offset` question is then asked with.
    Handle(Ticket, u32),
}

#[derive(Default)]
pub(crate) struct Control {
    waiting: VecDeque<Asked>,
    out: Vec<Asked>,
    last_handle: u32,
}

impl Question {
    /// Whether asking twice does the same as asking once.
    const fn repeats(&self) -> bool {
        !matches!(self, Self::CreateTopic { .. } | Self::DeleteTopic(_))
    }
}

impl Control {
    pub(crate) fn ask(&mut self, ticket: Ticket, question: Question) {
        self.waiting.push_back(Asked { ticket, question });
    }

    /// Nobody waits for this answer any more. What is already sent is answered to nobody.
    pub(crate) fn forget(&mut self, ticket: Ticket) {
        self.waiting.retain(|asked| asked.ticket != ticket);
    }

    /// Sends what waits.
    pub(crate) fn fill(&mut self, connection: &mut Connection<Token>) {
        while let Some(asked) = self.waiting.pop_front() {
            let whole = Token::Whole(asked.ticket);
            match &asked.question {
                Question::Ping => connection.ask(&Request::Ping, whole),
                Question::Topics => connection.ask(&Request::Metadata { topic: None }, whole),
                Question::Topic(name) => connection.ask(&Request::Metadata { topic: Some(name) }, whole),
                Question::CreateTopic { name, partitions, durability } => {
                    let (partitions, durability) = (*partitions, *durability);
                    connection.ask(&Request::CreateTopic { name, partitions, durability }, whole);
                }
                Question::DeleteTopic(name) => connection.ask(&Request::DeleteTopic { name }, whole),
                Question::Status => connection.ask(&Request::Status, whole),
                &Question::Offset { topic, partition, .. } => {
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
        done: &mut Vec<Answered>,
    ) -> Option<Then> {
        let (Token::Whole(ticket) | Token::Handle(ticket, _)) = token;
        let at = self.out.iter().position(|asked| asked.ticket == ticket)?;
        if let (Token::Handle(_, handle), Response::Opened { .. }, Question::Offset { at, .. }) =
            (&token, response, &self.out[at].question)
        {
            return Some(Then { ticket, handle: *handle, at: *at });
        }
        let asked = self.out.swap_remove(at);
        done.push((ticket, told(&asked.question, response)));
        None
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

/// A second request of the same question.
pub(crate) struct Then {
    ticket: Ticket,
    handle: u32,
    at: At,
}

impl Then {
    pub(crate) fn send(self, connection: &mut Connection<Token>) {
        let request = Request::OffsetForTime { handle: self.handle, at: self.at };
        connection.ask(&request, Token::Whole(self.ticket));
    }
}

fn told(question: &Question, response: &Response<'_>) -> Result<Told, ClientError> {
    match response {
        Response::Error(body) => Err(refused(question, body)),
        Response::Metadata(reply) => {
            Ok(Told::Topics(reply.topics.iter().map(|view| topic(reply, view)).collect()))
        }
        Response::OffsetFound { offset, .. } => Ok(Told::Offset(*offset)),
        Response::Status(status) => Ok(Told::Status(status.clone())),
        // The connection has seen to it that the answer is of the api that was asked.
        _ => Ok(Told::Done),
    }
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
    Topic::new(view.name.to_owned(), view.topic, view.durability, view.partitions.iter().map(place).collect())
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
    use super::*;
    use crate::core::buffers::Pool;

    #[test]
    fn after_a_lost_connection_only_harmless_questions_are_asked_again() {
        let mut control = Control::default();
        let create =
            Question::CreateTopic { name: "a".into(), partitions: 1, durability: Durability::Durable };
        control.ask(1, Question::Topics);
        control.ask(2, create.clone());
        control.ask(3, Question::Ping);
        let mut first = Connection::new(Pool::new(0), 32 << 10);
        control.fill(&mut first);
        assert_eq!(first.outstanding(), 3);
        control.ask(4, create);

        let mut done = Vec::new();
        control.on_lost(&mut done);
        assert_eq!(done.len(), 1);
        assert!(matches!(done[0], (2, Err(ClientError::OutcomeUnknown))));
        let mut second = Connection::new(Pool::new(0), 32 << 10);
        control.fill(&mut second);
        assert_eq!(second.outstanding(), 3, "two again, and the one that was never sent");
        assert_eq!(control.out.iter().map(|asked| asked.ticket).collect::<Vec<_>>(), [1, 3, 4]);
    }
}
