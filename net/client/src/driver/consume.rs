//! The links that carry a consumer's fetches, and what it shares with them.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::runtime::Handle;
use tokio::sync::Notify;

use crate::config::{ClientConfig, ConsumerConfig};
use crate::core::backoff::to_us;
use crate::core::buffers::Pool;
use crate::core::connection::{Connection, Reply};
use crate::core::consumer::{Ask, Consumer, Token};
use crate::core::effects::Effects;
use crate::core::rng::Rng;
use crate::driver::clock::Clock;
use crate::driver::dial::Dialer;
use crate::driver::link::{Role, Setting, run};

/// Room in a receive chunk beside one full fetch.
const CHUNK_EXTRA_BYTES: usize = 64 << 10;
/// Receive chunks kept for reuse.
const SPARE_CHUNKS: usize = 8;

/// Shared by a consumer and its links.
pub(crate) struct Shared {
    core: Mutex<Consumer>,
    news: Vec<Notify>,
    dropped: AtomicBool,
}

impl Shared {
    /// Runs `act` under the lock, and what it leads to after.
    pub(crate) fn with<R>(&self, act: impl FnOnce(&mut Consumer, &mut Effects) -> R) -> R {
        let mut effects = Effects::default();
        let mut core = self.core.lock().unwrap_or_else(PoisonError::into_inner);
        let result = act(&mut core, &mut effects);
        core.take_kicks(&mut effects);
        drop(core);
        effects.take_kicks(self.news.len()).for_each(|link| self.news[link].notify_one());
        effects.perform();
        result
    }

    /// The consumer is gone.
    pub(crate) fn drop_handle(&self) {
        self.dropped.store(true, Ordering::Release);
        self.news.iter().for_each(Notify::notify_one);
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
    let mut rng = Rng::new(seed);
    let core = Consumer::new(
        config,
        client.backoff,
        to_us(client.request_timeout),
        rng.next_u64(),
        &linked,
        addresses.len(),
    );
    let news = addresses.iter().map(|_| Notify::new()).collect();
    let shared = Arc::new(Shared { core: Mutex::new(core), news, dropped: AtomicBool::new(false) });
    for (link, address) in addresses.into_iter().enumerate() {
        let pool = Pool::new(SPARE_CHUNKS * chunk_bytes);
        let dialer = Dialer::new(client, vec![address.clone()], chunk_bytes, pool);
        let setting = Setting { dialer, backoff: client.backoff, clock, rng: Rng::new(rng.next_u64()) };
        let role = ConsumeRole { shared: Arc::clone(&shared), link, asks: Vec::new() };
        runtime.spawn(run(role, setting, None));
    }
    shared
}

/// The role of one link.
struct ConsumeRole {
    shared: Arc<Shared>,
    link: usize,
    asks: Vec<Ask>,
}

/// Hello, or an answer to a cursor.
type Asked = Option<Token>;

impl Role for ConsumeRole {
    type Token = Asked;

    fn greeting(&self) -> Asked {
        None
    }

    fn connected(&mut self, _now_us: u64) {
        self.shared.with(|core, _| core.on_connected(self.link));
    }

    fn lost(&mut self, _now_us: u64) {
        self.shared.with(|core, _| core.on_lost(self.link));
    }

    fn tick(&mut self, _now_us: u64) {}

    fn fill(&mut self, connection: &mut Connection<Asked>, now_us: u64) {
        self.shared.with(|core, _| core.poll(self.link, now_us, &mut self.asks));
        for ask in self.asks.drain(..) {
            connection.ask(&ask.request, Some(ask.token));
        }
    }

    fn answer(&mut self, reply: Reply<'_, Asked>, now_us: u64) {
        let Some(token) = reply.token else { return };
        self.shared.with(|core, effects| {
            core.on_answer(token, &reply.response, reply.chunk, reply.payload, now_us, effects);
        });
    }

    fn answered(&mut self) {}

    fn deadline_us(&self, now_us: u64) -> Option<u64> {
        self.shared.with(|core, _| core.next_deadline(self.link, now_us))
    }

    fn news(&self) -> &Notify {
        &self.shared.news[self.link]
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
    }
}
