//! The links that carry a consumer's fetches, and what it shares with them.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use corelog_wire::{Api, Request, Response, Which};
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::time::timeout;

use crate::config::{ClientConfig, ConsumerConfig};
use crate::core::backoff::to_us;
use crate::core::buffers::Pool;
use crate::core::connection::{Connection, Reply};
use crate::core::consumer::{Ask, Consumer, Token};
use crate::core::control::topics_of;
use crate::core::effects::Effects;
use crate::core::rng::Rng;
use crate::driver::clock::Clock;
use crate::driver::dial::Dialer;
use crate::driver::link::{Role, Setting, run};
use crate::error::ClientError;
use crate::topic::Topic;

/// Room in a receive chunk beside one full fetch.
const CHUNK_EXTRA_BYTES: usize = 64 << 10;
/// Receive chunks kept for reuse.
const SPARE_CHUNKS: usize = 8;

/// Shared by a consumer and its links.
pub(crate) struct Shared {
    core: Mutex<Consumer>,
    links: Mutex<Links>,
    dropped: AtomicBool,
    client: ClientConfig,
    topic: Topic,
    /// What its positions are kept under.
    name: Option<String>,
    chunk_bytes: usize,
    clock: Clock,
    runtime: Handle,
    /// Told whenever it was answered what partitions there are.
    places: Notify,
}

/// The connections, in the order of the core's numbers.
struct Links {
    addresses: Vec<String>,
    news: Vec<Arc<Notify>>,
    rng: Rng,
}

impl Shared {
    /// Runs `act` under the lock, and what it leads to after.
    pub(crate) fn with<R>(&self, act: impl FnOnce(&mut Consumer, &mut Effects) -> R) -> R {
        let mut effects = Effects::default();
        let mut core = self.core.lock().unwrap_or_else(PoisonError::into_inner);
        let result = act(&mut core, &mut effects);
        core.take_kicks(&mut effects);
        drop(core);
        if effects.has_kicks() {
            let links = self.links();
            effects.take_kicks(links.news.len()).for_each(|link| links.news[link].notify_one());
        }
        effects.perform();
        result
    }

    fn links(&self) -> MutexGuard<'_, Links> {
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The core asks for positions only with a name.
    fn name(&self) -> &str {
        self.name.as_deref().unwrap_or_default()
    }

    /// The consumer is gone.
    pub(crate) fn drop_handle(&self) {
        self.dropped.store(true, Ordering::Release);
        self.links().news.iter().for_each(|news| news.notify_one());
    }

    /// The partitions are served where the topic says now.
    fn located(self: &Arc<Self>, topic: &Topic) {
        let mut links = self.links();
        let mut numbers = Vec::with_capacity(topic.partitions().len());
        for partition in topic.partitions() {
            let known = links.addresses.iter().position(|known| *known == partition.address);
            numbers.push(known.unwrap_or_else(|| {
                let link = self.core.lock().unwrap_or_else(PoisonError::into_inner).add_link();
                self.start_link(&mut links, link, partition.address.clone());
                link
            }));
        }
        drop(links);
        self.with(|core, effects| core.on_located(&numbers, effects));
    }

    /// Asks what partitions the topic has now and waits for the answer; how many are read then.
    pub(crate) async fn refresh(&self) -> Result<u32, ClientError> {
        let asked = self.with(|core, _| core.refresh());
        let answer = async {
            loop {
                let answered = self.places.notified();
                let (answers, count) = self.with(|core, _| core.refreshed()).ok_or(ClientError::Closed)?;
                if answers != asked {
                    return Ok(count);
                }
                answered.await;
            }
        };
        timeout(self.client.request_timeout, answer).await.unwrap_or(Err(ClientError::Timeout))
    }

    fn start_link(self: &Arc<Self>, links: &mut Links, link: usize, address: String) {
        let news = Arc::new(Notify::new());
        links.news.push(Arc::clone(&news));
        links.addresses.push(address.clone());
        let pool = Pool::new(SPARE_CHUNKS * self.chunk_bytes);
        let dialer = Dialer::new(&self.client, vec![address], self.chunk_bytes, pool);
        let rng = Rng::new(links.rng.next_u64());
        let setting = Setting { dialer, backoff: self.client.backoff, clock: self.clock, rng };
        let role = ConsumeRole { shared: Arc::clone(self), link, news, asks: Vec::new() };
        self.runtime.spawn(run(role, setting, None));
    }
}

/// Starts the links of a consumer. `places` are the partitions to read, each with its address.
pub(crate) fn start(
    client: &ClientConfig,
    config: ConsumerConfig,
    places: &[(u32, String)],
    clock: Clock,
    runtime: &Handle,
    seed: u64,
) -> Arc<Shared> {
    let mut addresses: Vec<&String> = places.iter().map(|(_, address)| address).collect();
    addresses.sort_unstable();
    addresses.dedup();
    let link = |address| addresses.binary_search(&address).expect("taken from the same list");
    let linked: Vec<(u32, usize)> =
        places.iter().map(|(partition, address)| (*partition, link(address))).collect();
    let chunk_bytes = config.max_bytes as usize + CHUNK_EXTRA_BYTES;
    let (topic, name) = (config.topic.clone(), config.name.clone());
    let mut rng = Rng::new(seed);
    let core = Consumer::new(
        config,
        client.backoff,
        (to_us(client.request_timeout), to_us(client.metadata_age)),
        rng.next_u64(),
        &linked,
        addresses.len(),
    );
    let shared = Arc::new(Shared {
        core: Mutex::new(core),
        links: Mutex::new(Links { addresses: Vec::new(), news: Vec::new(), rng }),
        dropped: AtomicBool::new(false),
        client: client.clone(),
        topic,
        name,
        chunk_bytes,
        clock,
        runtime: runtime.clone(),
        places: Notify::new(),
    });
    let mut links = shared.links();
    for (link, address) in addresses.into_iter().enumerate() {
        shared.start_link(&mut links, link, address.clone());
    }
    drop(links);
    shared
}

/// The role of one link.
struct ConsumeRole {
    shared: Arc<Shared>,
    link: usize,
    news: Arc<Notify>,
    asks: Vec<Ask>,
}

/// What an answer belongs to.
#[derive(Clone, Copy)]
pub(crate) enum Asked {
    Hello,
    Cursor(Token),
    Located,
    Aside,
}

impl Role for ConsumeRole {
    type Token = Asked;

    fn greeting(&self) -> Asked {
        Asked::Hello
    }

    fn connected(&mut self, _now_us: u64) {
        self.shared.with(|core, _| core.on_connected(self.link));
    }

    fn lost(&mut self, _now_us: u64) {
        self.shared.with(|core, _| core.on_lost(self.link));
    }

    fn tick(&mut self, _now_us: u64) {}

    fn fill(&mut self, connection: &mut Connection<Asked>, now_us: u64) {
        let subscribes = connection.serves(Api::Subscribe);
        self.shared.with(|core, _| core.poll(self.link, subscribes, now_us, &mut self.asks));
        for ask in self.asks.drain(..) {
            match ask {
                Ask::Partition { token, request: request @ Request::Subscribe { .. } } => {
                    connection.subscribe(&request, Asked::Cursor(token));
                }
                Ask::Partition { token, request } => connection.ask(&request, Asked::Cursor(token)),
                Ask::Aside(request) => connection.ask(&request, Asked::Aside),
                Ask::Recall { token, handle } => {
                    let which = Which::One(self.shared.name());
                    connection.ask(&Request::ReadPositions { handle, which }, Asked::Cursor(token));
                }
                Ask::Commit { token, handle, reached } => {
                    let (offset, leader_epoch) = (reached.offset, reached.epoch);
                    let name = self.shared.name();
                    let request =
                        Request::CommitPosition { handle, name, offset, leader_epoch, metadata: "" };
                    connection.ask(&request, Asked::Cursor(token));
                }
                Ask::Locate => {
                    let request = Request::Metadata { topic: Some(self.shared.topic.name()) };
                    connection.ask(&request, Asked::Located);
                }
            }
        }
    }

    fn answer(&mut self, reply: Reply<'_, Asked>, now_us: u64) {
        let token = match (reply.token, &reply.response) {
            (Asked::Cursor(token), _) => token,
            (Asked::Located, response) => {
                // A topic that nobody knows any more: the cursor is told so when it opens its partition again.
                if let Response::Metadata(metadata) = response {
                    let id = self.shared.topic.id();
                    let found = topics_of(metadata).into_iter().find(|found| found.id() == id);
                    found.iter().for_each(|topic| self.shared.located(topic));
                }
                self.shared.with(|core, _| core.on_place_answered());
                self.shared.places.notify_waiters();
                return;
            }
            (Asked::Aside, _) => return self.shared.with(|core, _| core.on_alive(self.link, now_us)),
            (Asked::Hello, _) => return,
        };
        self.shared.with(|core, effects| {
            core.on_answer(token, &reply.response, reply.chunk, reply.payload, now_us, effects);
        });
    }

    fn answered(&mut self) {}

    fn deadline_us(&self, now_us: u64) -> Option<u64> {
        self.shared.with(|core, _| core.next_deadline(self.link, now_us))
    }

    fn news(&self) -> &Notify {
        &self.news
    }

    fn stuck(&self) -> bool {
        self.shared.with(|core, _| core.is_stuck(self.link))
    }

    fn finished(&self) -> bool {
        self.shared.dropped.load(Ordering::Acquire)
    }
}

impl Drop for ConsumeRole {
    /// Either nobody reads any more, or the runtime has ended.
    fn drop(&mut self) {
        self.shared.with(|core, effects| core.close(effects));
        self.shared.places.notify_waiters();
    }
}
