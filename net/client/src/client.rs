//! The client: connecting, asking, administering.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use corelog_model::Durability;
use corelog_wire::{At, ErrorCode, Status};
use tokio::runtime::Handle;
use tokio::time::{sleep, timeout};

use crate::config::{ClientConfig, ConsumerConfig, Partitions, Position, ProducerConfig};
use crate::consumer::Consumer;
use crate::core::backoff::{pause_us, to_us};
use crate::core::buffers::Pool;
use crate::core::control::{About, Question, Token, Told};
use crate::core::rng::Rng;
use crate::driver::clock::Clock;
use crate::driver::consume;
use crate::driver::control::{ControlRole, Questions};
use crate::driver::dial::Dialer;
use crate::driver::link::{Setting, run};
use crate::each::of_each;
use crate::error::{ClientError, LinkError};
use crate::producer::Producer;
use crate::topic::{Topic, TopicChange, TopicConfig};

/// Answers to questions are read in chunks of this size.
const CHUNK_BYTES: usize = 64 << 10;

/// A connection to a store, to be shared: cloning is cheap, and every clone may be used from any thread.
///
/// Its tasks live on the runtime that [`connect`](Self::connect) was called on. Producers and consumers live on without it.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

struct Inner {
    config: ClientConfig,
    questions: Arc<Questions>,
    /// Of broker cores that serve partitions which the one behind `questions` does not, by address.
    elsewhere: Mutex<HashMap<String, Arc<Questions>>>,
    /// As the broker said when the client connected.
    max_batch_bytes: u32,
    clock: Clock,
    runtime: Handle,
    seed: u64,
    children: AtomicU64,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.questions.drop_client();
        let elsewhere = self.elsewhere.get_mut().unwrap_or_else(PoisonError::into_inner);
        elsewhere.values().for_each(|questions| questions.drop_client());
    }
}

impl Client {
    /// Connects to the first server that answers; each is tried once, while there is time. Must be called on a tokio runtime
    /// with I/O and time enabled. Later losses of the connection are mended in the background.
    pub async fn connect(config: ClientConfig) -> Result<Self, ClientError> {
        let seed = config.seed.unwrap_or_else(|| RandomState::new().hash_one(0));
        let clock = Clock::start();
        let mut rng = Rng::new(seed);
        let pool = Pool::new(2 * CHUNK_BYTES);
        let dialer = Dialer::new(&config, config.servers.clone(), CHUNK_BYTES, pool);
        let mut failure = ClientError::NoServers;
        let deadline_us = clock.now_us().saturating_add(to_us(config.request_timeout));
        for attempt in 0..dialer.addresses.len() {
            let left = Duration::from_micros(deadline_us.saturating_sub(clock.now_us()));
            if attempt > 0 && left.is_zero() {
                break;
            }
            let dialed = timeout(left, dialer.dial(attempt, Token::Whole(0))).await;
            match dialed.unwrap_or(Err(LinkError::Timeout)) {
                Ok(dialed) => {
                    let questions = Questions::new(config.backoff, Rng::new(rng.next_u64()));
                    let role = ControlRole::new(Arc::clone(&questions));
                    let setting =
                        Setting { dialer, backoff: config.backoff, clock, rng: Rng::new(rng.next_u64()) };
                    let runtime = Handle::current();
                    let max_batch_bytes = dialed.max_batch_bytes;
                    runtime.spawn(run(role, setting, Some(dialed)));
                    let (seed, children) = (rng.next_u64(), AtomicU64::new(0));
                    let elsewhere = Mutex::default();
                    let inner = Inner {
                        config,
                        questions,
                        elsewhere,
                        max_batch_bytes,
                        clock,
                        runtime,
                        seed,
                        children,
                    };
                    return Ok(Self { inner: Arc::new(inner) });
                }
                Err(cause) => {
                    let server = dialer.address(attempt).to_owned();
                    failure = ClientError::Unreachable { server, cause };
                }
            }
        }
        Err(failure)
    }

    async fn ask(&self, question: Question) -> Result<Told, ClientError> {
        self.ask_at(&self.inner.questions, question, self.deadline_us()).await
    }

    /// When a request that begins now must be answered.
    fn deadline_us(&self) -> u64 {
        let Inner { config, clock, .. } = &*self.inner;
        clock.now_us().saturating_add(to_us(config.request_timeout))
    }

    async fn ask_at(
        &self,
        questions: &Arc<Questions>,
        question: Question,
        deadline_us: u64,
    ) -> Result<Told, ClientError> {
        let asking = questions.ask(question, deadline_us);
        let left = Duration::from_micros(deadline_us.saturating_sub(self.inner.clock.now_us()));
        match timeout(left, asking.answer()).await {
            Ok(answer) => answer,
            Err(_) => {
                questions.distrust();
                Err(ClientError::Timeout)
            }
        }
    }

    /// Creates a topic and waits until its partitions can be written to. If the future is dropped or fails with
    /// `OutcomeUnknown` or `Timeout`, the topic may have been created.
    pub async fn create_topic(
        &self,
        name: &str,
        partitions: u32,
        durability: Durability,
    ) -> Result<Topic, ClientError> {
        self.create_topic_with(name, TopicConfig { partitions, durability, ..TopicConfig::default() }).await
    }

    /// The same for a topic that does not keep its records for ever. A broker that cannot do this refuses it
    /// ([`ErrorCode::UnsupportedVersion`]), and so does one whose store is not final ([`ErrorCode::NotFinal`]).
    pub async fn create_topic_with(&self, name: &str, config: TopicConfig) -> Result<Topic, ClientError> {
        let TopicConfig { partitions, durability, .. } = config;
        let (name_asked, retention) = (name.to_owned(), config.kept());
        self.ask(Question::CreateTopic { name: name_asked, partitions, durability, retention }).await?;
        self.topic(name).await
    }

    /// Gives a topic more partitions, another level, or both, and waits until all cores of the broker know. `None` leaves it as
    /// it is; so does what it is already. The topic is used throughout. Partitions cannot be taken away
    /// ([`ErrorCode::FewerPartitions`]), and where a key goes depends on how many there are: see
    /// [`Partition::Auto`](crate::Partition::Auto). If the future is dropped or fails with `OutcomeUnknown` or `Timeout`, the
    /// topic may have been altered; asking again is harmless.
    pub async fn alter_topic(
        &self,
        name: &str,
        partitions: Option<u32>,
        durability: Option<Durability>,
    ) -> Result<Topic, ClientError> {
        self.alter_topic_with(name, TopicChange { partitions, durability, ..TopicChange::default() }).await
    }

    /// The same for all that may be altered, such as how long records are kept: what is too old then may go at once.
    pub async fn alter_topic_with(&self, name: &str, change: TopicChange) -> Result<Topic, ClientError> {
        let TopicChange { partitions, durability, .. } = change;
        let (name_asked, retention) = (name.to_owned(), change.kept());
        self.ask(Question::AlterTopic { name: name_asked, partitions, durability, retention }).await?;
        self.topic(name).await
    }

    /// Deletes a topic with its records. If the future is dropped or fails with `OutcomeUnknown` or `Timeout`, it may have
    /// been deleted.
    pub async fn delete_topic(&self, name: &str) -> Result<(), ClientError> {
        self.ask(Question::DeleteTopic(name.to_owned())).await.map(drop)
    }

    /// All topics, by name.
    pub async fn topics(&self) -> Result<Vec<Topic>, ClientError> {
        match self.ask(Question::Topics).await? {
            Told::Topics(topics) => Ok(topics),
            _ => Err(self.unexpected()),
        }
    }

    /// The topic of this name; `UnknownTopic` when there is none.
    pub async fn topic(&self, name: &str) -> Result<Topic, ClientError> {
        match self.ask(Question::Topic(name.to_owned())).await? {
            Told::Topics(topics) => {
                topics.into_iter().find(|topic| topic.name() == name).ok_or(ClientError::UnknownTopic)
            }
            _ => Err(self.unexpected()),
        }
    }

    /// The offset a position stands for now: log start, high watermark, or for a time an offset at or before that of the
    /// first record that is not earlier, by less than a frame of the log (the high watermark if there is none).
    pub async fn offset(
        &self,
        topic: &Topic,
        partition: u32,
        position: Position,
    ) -> Result<u64, ClientError> {
        let at = match position {
            Position::Offset(offset) => return Ok(offset),
            Position::Start => At::Start,
            Position::End => At::End,
            Position::Time(us) => At::Time(us),
        };
        match self.ask_about(topic, partition, About::Offset(at)).await? {
            Told::Offset(offset) => Ok(offset),
            _ => Err(self.unexpected()),
        }
    }

    /// What [`offset`](Self::offset) says of every partition of the topic, in their order; 64 of them are asked at a time.
    pub async fn offsets(&self, topic: &Topic, position: Position) -> Result<Vec<u64>, ClientError> {
        let each = |partition| {
            let (client, topic) = (self.clone(), topic.clone());
            async move { client.offset(&topic, partition, position).await }
        };
        of_each(topic.partition_count(), each).await
    }

    /// Takes the records of a partition below an offset away, durably; the oldest offset that is left, which may lie further
    /// on. The offset may be the high watermark, and not lie beyond it ([`ErrorCode::OffsetOutOfRange`]). What is gone already
    /// is no error. If the future is dropped or fails with `Timeout`, they may be gone; asking again is harmless.
    pub async fn delete_records(
        &self,
        topic: &Topic,
        partition: u32,
        before_offset: u64,
    ) -> Result<u64, ClientError> {
        match self.ask_about(topic, partition, About::Delete(before_offset)).await? {
            Told::Offset(log_start) => Ok(log_start),
            _ => Err(self.unexpected()),
        }
    }

    /// Asks about a partition: whoever answers first, and if that one does not serve it, the core that the metadata name,
    /// again and again until the deadline, since metadata may be behind.
    pub(crate) async fn ask_about(
        &self,
        topic: &Topic,
        partition: u32,
        about: About,
    ) -> Result<Told, ClientError> {
        let question = Question::OfPartition { topic: topic.id(), partition, about };
        let deadline_us = self.deadline_us();
        let Inner { config, clock, questions, .. } = &*self.inner;
        let mut rng = Rng::new(self.child_seed());
        let mut owner = Arc::clone(questions);
        let mut attempt = 0;
        loop {
            let refused = match self.ask_at(&owner, question.clone(), deadline_us).await {
                Err(ClientError::Refused(refused)) if refused.code == ErrorCode::NotHere => refused,
                answer => return answer,
            };
            let fresh =
                match self.ask_at(questions, Question::Topic(topic.name().to_owned()), deadline_us).await? {
                    Told::Topics(topics) => topics.into_iter().find(|fresh| fresh.id() == topic.id()),
                    _ => return Err(self.unexpected()),
                };
            let fresh = fresh.ok_or(ClientError::UnknownTopic)?;
            let place = fresh.partitions().get(partition as usize).ok_or(ClientError::UnknownPartition)?;
            owner = self.questions_at(&place.address);
            if attempt > 0 {
                let pause_us = pause_us(config.backoff, attempt, &mut rng);
                if clock.now_us().saturating_add(pause_us) >= deadline_us {
                    return Err(ClientError::Refused(refused));
                }
                sleep(Duration::from_micros(pause_us)).await;
            }
            attempt += 1;
        }
    }

    /// The connection for questions to the broker core at this address.
    fn questions_at(&self, address: &str) -> Arc<Questions> {
        let Inner { config, clock, runtime, elsewhere, .. } = &*self.inner;
        let mut elsewhere = elsewhere.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = elsewhere.get(address) {
            return Arc::clone(known);
        }
        let mut rng = Rng::new(self.child_seed());
        let questions = Questions::new(config.backoff, Rng::new(rng.next_u64()));
        let dialer = Dialer::new(config, vec![address.to_owned()], CHUNK_BYTES, Pool::new(2 * CHUNK_BYTES));
        let setting = Setting { dialer, backoff: config.backoff, clock: *clock, rng };
        runtime.spawn(run(ControlRole::new(Arc::clone(&questions)), setting, None));
        elsewhere.insert(address.to_owned(), Arc::clone(&questions));
        questions
    }

    /// What the broker core behind the connection says of itself: CPU, frames, bytes, memory.
    pub async fn status(&self) -> Result<Status, ClientError> {
        match self.ask(Question::Status).await? {
            Told::Status(status) => Ok(*status),
            _ => Err(self.unexpected()),
        }
    }

    /// One round trip.
    pub async fn ping(&self) -> Result<(), ClientError> {
        self.ask(Question::Ping).await.map(drop)
    }

    /// A producer with a connection of its own to each broker core it sends to, made when it is first needed.
    pub fn producer(&self, config: ProducerConfig) -> Producer {
        let Inner { config: client, clock, runtime, .. } = &*self.inner;
        let config = config.bounded(self.max_batch_bytes());
        Producer::new(client, config, *clock, runtime.clone(), self.child_seed())
    }

    /// The longest batch that the broker takes, in bytes, as it said when the client connected.
    pub fn max_batch_bytes(&self) -> usize {
        self.inner.max_batch_bytes as usize
    }

    /// A consumer with a connection of its own to each broker core it reads from.
    pub async fn consumer(&self, config: ConsumerConfig) -> Result<Consumer, ClientError> {
        let mut topic = config.topic.clone();
        let wanted: Vec<u32> = match &config.partitions {
            Partitions::All => (0..topic.partition_count()).collect(),
            Partitions::Only(partitions) => partitions.clone(),
        };
        if wanted.iter().any(|&partition| partition >= topic.partition_count()) {
            // They may have been added since the topic was asked for.
            let fresh = self.topic(topic.name()).await?;
            topic = if fresh.id() == topic.id() { fresh } else { topic };
        }
        let all = topic.partitions();
        let mut places = Vec::with_capacity(wanted.len());
        for partition in wanted {
            let info = all.get(partition as usize).ok_or(ClientError::UnknownPartition)?;
            places.push((partition, info.address.clone()));
        }
        places.sort_unstable();
        places.dedup();
        let Inner { config: client, clock, runtime, .. } = &*self.inner;
        Ok(Consumer::new(consume::start(client, config, &places, *clock, runtime, self.child_seed())))
    }

    fn child_seed(&self) -> u64 {
        let child = self.inner.children.fetch_add(1, Ordering::Relaxed);
        Rng::new(self.inner.seed.wrapping_add(child)).next_u64()
    }

    pub(crate) fn unexpected(&self) -> ClientError {
        let server = self.inner.config.servers.first().cloned().unwrap_or_default();
        ClientError::Unreachable { server, cause: LinkError::Unexpected }
    }
}
