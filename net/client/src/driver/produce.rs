//! The links that carry a producer's batches, and what its handles share with them.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use corelog_model::TopicId;
use corelog_wire::Response;
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::time::timeout;

use crate::config::{ClientConfig, ProducerConfig};
use crate::core::backoff::to_us;
use crate::core::buffers::Pool;
use crate::core::connection::{Connection, Reply};
use crate::core::control::topics_of;
use crate::core::effects::Effects;
use crate::core::lane::Identity;
use crate::core::producer::{Ask, Producer};
use crate::core::rng::Rng;
use crate::driver::clock::Clock;
use crate::driver::dial::Dialer;
use crate::driver::link::{OUTBOX_BYTES, Role, Setting, run};
use crate::error::{ClientError, ProduceError, Refused};
use crate::topic::Topic;

/// Replies to produce requests are small.
const CHUNK_BYTES: usize = 64 << 10;

struct State {
    core: Producer,
    /// By address.
    links: HashMap<String, usize>,
    names: HashMap<TopicId, String>,
    rng: Rng,
}

/// Shared by the handles of a producer and its links.
pub(crate) struct Shared {
    state: Mutex<State>,
    news: Mutex<Vec<Arc<Notify>>>,
    /// The first link's notify: with one broker core the only one, found without a lock.
    first_news: OnceLock<Arc<Notify>>,
    pub(crate) batch_bytes: usize,
    pub(crate) clock: Clock,
    config: ClientConfig,
    runtime: Handle,
    dropped: AtomicBool,
    /// Told whenever it was answered where the partitions of a topic are.
    places: Notify,
}

impl Shared {
    pub(crate) fn new(
        client: &ClientConfig,
        config: ProducerConfig,
        clock: Clock,
        runtime: Handle,
        seed: u64,
    ) -> Arc<Self> {
        let mut rng = Rng::new(seed);
        let batch_bytes = config.batch_bytes;
        let (patience_us, age_us) = (to_us(client.request_timeout), to_us(client.metadata_age));
        let core = Producer::new(config, client.backoff, patience_us, age_us, rng.next_u64());
        Arc::new(Self {
            state: Mutex::new(State { core, links: HashMap::new(), names: HashMap::new(), rng }),
            news: Mutex::default(),
            first_news: OnceLock::new(),
            batch_bytes,
            clock,
            config: client.clone(),
            runtime,
            dropped: AtomicBool::new(false),
            places: Notify::new(),
        })
    }

    /// Runs `act` under the lock, and what it leads to after.
    pub(crate) fn with<R>(&self, act: impl FnOnce(&mut Producer, &mut Effects) -> R) -> R {
        let mut effects = Effects::default();
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let result = act(&mut state.core, &mut effects);
        state.core.take_kicks(&mut effects);
        drop(state);
        if effects.has_kicks() {
            self.notify(&mut effects);
        }
        effects.perform();
        result
    }

    fn notify(&self, effects: &mut Effects) {
        let news = self.news.lock().unwrap_or_else(PoisonError::into_inner);
        if let (1, Some(only)) = (news.len(), self.first_news.get()) {
            drop(news);
            effects.take_kicks(1).for_each(|_| only.notify_one());
            return;
        }
        let kicked: Vec<Arc<Notify>> =
            effects.take_kicks(news.len()).map(|link| Arc::clone(&news[link])).collect();
        drop(news);
        kicked.iter().for_each(|news| news.notify_one());
    }

    /// Makes the lanes of a topic and the links they need, as far as they are not there.
    pub(crate) fn know(self: &Arc<Self>, topic: &Topic) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.core.knows(topic.id(), topic.partition_count()) {
            return;
        }
        let (links, fresh) = self.links_of(&mut state, topic);
        state.core.add_topic(topic.id(), &links);
        state.names.insert(topic.id(), topic.name().to_owned());
        drop(state);
        self.spawn(fresh);
    }

    /// The partitions of the topic are served where it says now.
    fn located(self: &Arc<Self>, topic: &Topic) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (links, fresh) = self.links_of(&mut state, topic);
        drop(state);
        self.spawn(fresh);
        let now_us = self.clock.now_us();
        self.with(|core, effects| core.on_located(topic.id(), &links, now_us, effects));
    }

    /// Asks what partitions a topic has now and waits for the answer; how many it has then.
    pub(crate) async fn refresh(self: &Arc<Self>, topic: &Topic) -> Result<u32, ClientError> {
        self.know(topic);
        let asked = self.with(|core, _| core.refresh(topic.id())).ok_or(ClientError::UnknownTopic)?;
        let answer = async {
            loop {
                let answered = self.places.notified();
                let ((located, count), closed) =
                    self.with(|core, _| (core.located(topic.id()), core.is_closed()));
                if closed {
                    return Err(ClientError::Closed);
                }
                if located != asked {
                    return Ok(count);
                }
                answered.await;
            }
        };
        timeout(self.config.request_timeout, answer).await.unwrap_or(Err(ClientError::Timeout))
    }

    fn name_of(&self, topic: TopicId) -> Option<String> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).names.get(&topic).cloned()
    }

    /// The link of each partition, and the links that are new.
    fn links_of(&self, state: &mut State, topic: &Topic) -> (Vec<usize>, Vec<FreshLink>) {
        let mut fresh = Vec::new();
        let mut links = Vec::with_capacity(topic.partitions().len());
        for partition in topic.partitions() {
            let link = match state.links.get(&partition.address) {
                Some(&link) => link,
                None => {
                    let link = state.core.add_link();
                    state.links.insert(partition.address.clone(), link);
                    let news = Arc::new(Notify::new());
                    self.first_news.get_or_init(|| Arc::clone(&news));
                    self.news.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(&news));
                    let (address, rng) = (partition.address.clone(), Rng::new(state.rng.next_u64()));
                    fresh.push(FreshLink { link, address, news, rng });
                    link
                }
            };
            links.push(link);
        }
        (links, fresh)
    }

    fn spawn(self: &Arc<Self>, fresh: Vec<FreshLink>) {
        for FreshLink { link, address, news, rng } in fresh {
            let dialer = Dialer::new(&self.config, vec![address], CHUNK_BYTES, Pool::new(4 * CHUNK_BYTES));
            let setting = Setting { dialer, backoff: self.config.backoff, clock: self.clock, rng };
            let role = ProduceRole { shared: Arc::clone(self), link, news, asks: Vec::new() };
            self.runtime.spawn(run(role, setting, None));
        }
    }

    /// The last handle is gone: what was accepted is still sent.
    pub(crate) fn drop_handle(&self) {
        self.dropped.store(true, Ordering::Release);
        let now_us = self.clock.now_us();
        self.with(|core, effects| core.flush(now_us, effects, &mut Vec::new()));
        let news = self.news.lock().unwrap_or_else(PoisonError::into_inner).clone();
        news.iter().for_each(|news| news.notify_one());
    }
}

/// A link whose task is to be started.
struct FreshLink {
    link: usize,
    address: String,
    news: Arc<Notify>,
    rng: Rng,
}

/// What an answer belongs to.
pub(crate) enum Token {
    Hello,
    ProducerId,
    Located { topic: TopicId },
    Open { lane: usize },
    Produce { lane: usize, number: u64 },
}

/// The role of one link.
struct ProduceRole {
    shared: Arc<Shared>,
    link: usize,
    news: Arc<Notify>,
    asks: Vec<Ask>,
}

impl Role for ProduceRole {
    type Token = Token;

    fn greeting(&self) -> Token {
        Token::Hello
    }

    fn connected(&mut self, now_us: u64) {
        self.shared.with(|core, effects| core.on_connected(self.link, now_us, effects));
    }

    fn lost(&mut self, now_us: u64) {
        self.shared.with(|core, effects| core.on_lost(self.link, now_us, effects));
    }

    fn tick(&mut self, now_us: u64) {
        self.shared.with(|core, effects| core.poll(self.link, now_us, 0, &mut self.asks, effects));
    }

    fn fill(&mut self, connection: &mut Connection<Token>, now_us: u64) {
        let room = OUTBOX_BYTES - connection.outbox.bytes();
        self.shared.with(|core, effects| core.poll(self.link, now_us, room, &mut self.asks, effects));
        for ask in self.asks.drain(..) {
            match ask {
                Ask::ProducerId => connection.ask(&corelog_wire::Request::ProducerId, Token::ProducerId),
                Ask::Locate { topic } => {
                    let name = self.shared.name_of(topic);
                    let request = corelog_wire::Request::Metadata { topic: name.as_deref() };
                    connection.ask(&request, Token::Located { topic });
                }
                Ask::Open { lane, handle, topic, partition } => {
                    connection
                        .ask(&corelog_wire::Request::Open { handle, topic, partition }, Token::Open { lane });
                }
                Ask::Produce { lane, handle, number, bytes, expected_offset } => {
                    connection.produce(handle, expected_offset, bytes, Token::Produce { lane, number });
                }
            }
        }
    }

    fn answer(&mut self, reply: Reply<'_, Token>, now_us: u64) {
        let link = self.link;
        if let Token::Located { topic } = reply.token {
            // A topic that nobody knows any more: the lane is told so when it opens its partition again.
            if let Response::Metadata(metadata) = &reply.response {
                let found = topics_of(metadata).into_iter().find(|found| found.id() == topic);
                found.iter().for_each(|topic| self.shared.located(topic));
            }
            self.shared.with(|core, _| core.on_place_answered(link, topic));
            self.shared.places.notify_waiters();
            return;
        }
        self.shared.with(|core, effects| match (reply.token, &reply.response) {
            (Token::ProducerId, &Response::ProducerId { id, epoch }) => {
                core.on_identity(link, Identity { id, epoch })
            }
            (Token::ProducerId, _) => core.on_identity_refused(link, now_us),
            (Token::Open { lane }, Response::Error(body)) => {
                core.on_open_refused(lane, Refused::from(body), now_us, effects);
            }
            (Token::Open { lane }, _) => core.on_opened(lane),
            (
                Token::Produce { lane, number },
                &Response::Produced { base_offset, append_timestamp_us, .. },
            ) => {
                core.on_produced(lane, number, base_offset, append_timestamp_us, now_us, effects);
            }
            (Token::Produce { lane, number }, Response::Error(body)) => {
                let after_us = u64::from(body.retry_after_us);
                core.on_refused(lane, number, Refused::from(body), after_us, now_us, effects);
            }
            // The connection has seen to it that the answer is of the api that was asked.
            (Token::Hello | Token::Located { .. } | Token::Produce { .. }, _) => {}
        });
    }

    fn answered(&mut self) {}

    fn deadline_us(&self, _now_us: u64) -> Option<u64> {
        self.shared.with(|core, _| core.next_deadline(self.link))
    }

    fn news(&self) -> &Notify {
        &self.news
    }

    fn stuck(&self) -> bool {
        self.shared.with(|core, _| core.is_stuck(self.link))
    }

    fn finished(&self) -> bool {
        self.shared.dropped.load(Ordering::Acquire) && self.shared.with(|core, _| core.is_idle())
    }
}

impl Drop for ProduceRole {
    /// Either nothing is left to answer, or the runtime has ended and nobody will.
    fn drop(&mut self) {
        let now_us = self.shared.clock.now_us();
        self.shared.with(|core, effects| core.close(&ProduceError::Closed, now_us, effects));
        self.shared.places.notify_waiters();
    }
}
