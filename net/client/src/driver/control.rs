//! The link that carries questions.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, oneshot};

use crate::config::Backoff;
use crate::core::connection::{Connection, Reply};
use crate::core::control::{Answered, Control, Question, Then, Ticket, Token, Told};
use crate::core::rng::Rng;
use crate::driver::link::Role;
use crate::error::ClientError;

type Answer = Result<Told, ClientError>;

struct State {
    core: Control,
    askers: HashMap<Ticket, oneshot::Sender<Answer>>,
    last_ticket: Ticket,
    closed: bool,
}

/// Shared by the client and its link.
pub(crate) struct Questions {
    state: Mutex<State>,
    news: Notify,
    dropped: AtomicBool,
    stuck: AtomicBool,
}

/// A question under way; dropping it forgets the question as far as it was not sent.
pub(crate) struct Asking {
    questions: Arc<Questions>,
    ticket: Ticket,
    answer: oneshot::Receiver<Answer>,
}

impl Questions {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn new(backoff: Backoff, rng: Rng) -> Arc<Self> {
        let core = Control::new(backoff, rng);
        let state = State { core, askers: HashMap::new(), last_ticket: 0, closed: false };
        let (news, dropped, stuck) = (Notify::new(), AtomicBool::new(false), AtomicBool::new(false));
        Arc::new(Self { state: Mutex::new(state), news, dropped, stuck })
    }

    pub(crate) fn ask(self: &Arc<Self>, question: Question, deadline_us: u64) -> Asking {
        let (asker, answer) = oneshot::channel();
        let mut state = self.lock();
        state.last_ticket += 1;
        let ticket = state.last_ticket;
        if !state.closed {
            state.askers.insert(ticket, asker);
            state.core.ask(ticket, question, deadline_us);
        }
        drop(state);
        self.news.notify_one();
        Asking { questions: Arc::clone(self), ticket, answer }
    }

    /// A question was not answered in time: the connection may be dead without anybody having said so.
    pub(crate) fn distrust(&self) {
        self.stuck.store(true, Ordering::Release);
        self.news.notify_one();
    }

    /// The last client is gone.
    pub(crate) fn drop_client(&self) {
        self.dropped.store(true, Ordering::Release);
        self.news.notify_one();
    }
}

impl Asking {
    pub(crate) async fn answer(mut self) -> Answer {
        (&mut self.answer).await.unwrap_or(Err(ClientError::Closed))
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        let mut state = self.questions.lock();
        let asker = state.askers.remove(&self.ticket);
        state.core.forget(self.ticket);
        drop(state);
        drop(asker);
    }
}

/// The role of the link.
pub(crate) struct ControlRole {
    questions: Arc<Questions>,
    connected: bool,
    then: Vec<Then>,
    done: Vec<Answered>,
}

impl ControlRole {
    pub(crate) const fn new(questions: Arc<Questions>) -> Self {
        Self { questions, connected: false, then: Vec::new(), done: Vec::new() }
    }
}

impl Role for ControlRole {
    type Token = Token;

    fn greeting(&self) -> Token {
        Token::Whole(0)
    }

    fn connected(&mut self, _now_us: u64) {
        self.connected = true;
        self.questions.stuck.store(false, Ordering::Release);
    }

    fn lost(&mut self, _now_us: u64) {
        self.connected = false;
        self.then.clear();
        self.questions.lock().core.on_lost(&mut self.done);
        self.answered();
    }

    fn tick(&mut self, _now_us: u64) {}

    fn fill(&mut self, connection: &mut Connection<Token>, now_us: u64) {
        for then in self.then.drain(..) {
            then.send(connection);
        }
        self.questions.lock().core.fill(connection, now_us);
    }

    fn answer(&mut self, reply: Reply<'_, Token>, now_us: u64) {
        let (token, response) = (reply.token, &reply.response);
        let then = self.questions.lock().core.on_answer(token, response, now_us, &mut self.done);
        self.then.extend(then);
    }

    fn answered(&mut self) {
        for (ticket, answer) in self.done.drain(..) {
            let asker = self.questions.lock().askers.remove(&ticket);
            if let Some(asker) = asker {
                // Whoever asked may be gone by now.
                let _ = asker.send(answer);
            }
        }
    }

    /// Without a connection nothing can be asked, whatever is due.
    fn deadline_us(&self, _now_us: u64) -> Option<u64> {
        self.questions.lock().core.next_due_us().filter(|_| self.connected)
    }

    fn news(&self) -> &Notify {
        &self.questions.news
    }

    fn stuck(&self) -> bool {
        self.questions.stuck.load(Ordering::Acquire)
    }

    fn finished(&self) -> bool {
        self.questions.dropped.load(Ordering::Acquire) && self.questions.lock().askers.is_empty()
    }
}

impl Drop for ControlRole {
    fn drop(&mut self) {
        let mut state = self.questions.lock();
        state.closed = true;
        let askers = std::mem::take(&mut state.askers);
        drop(state);
        // Each asker is told by the loss of its sender.
        drop(askers);
    }
}
