//! What the user may choose: plain values with defaults that need no thought.

use std::time::Duration;

use corelog_model::batch::Codec;
use corelog_model::limits::MAX_BATCH_BYTES_LIMIT;

use crate::topic::Topic;

/// What a batch has room for at least.
const MIN_BATCH_BYTES: usize = 1 << 10;

/// How to reach a store.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// `HOST:PORT` of at least one broker; they are tried in turn until one answers.
    pub servers: Vec<String>,
    /// What this program calls itself. The broker is told in Hello and does not keep it.
    pub name: String,
    /// Time for one attempt to connect and greet.
    pub connect_timeout: Duration,
    /// Time for an administrative request, all attempts together, and for [`Client::connect`](crate::Client::connect), all
    /// servers together.
    pub request_timeout: Duration,
    /// Pauses between attempts.
    pub backoff: Backoff,
    /// How old producers and consumers let what they know of a topic become: partitions that are added are found then at
    /// the latest. [`Duration::MAX`]: they ask only when they are told to or meet a partition they do not know.
    pub metadata_age: Duration,
    /// Largest frame the client accepts, in bytes; the broker is told so.
    pub max_frame_bytes: u32,
    /// Seed of every random choice (jitter, sticky partitions). `None` takes one from the system.
    pub seed: Option<u64>,
}

/// Pauses between attempts: doubled each time from `first` to `most`, then scaled by a random 0.8 to 1.2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// The pause after the first failure.
    pub first: Duration,
    /// No pause is longer than this, before the random factor.
    pub most: Duration,
}

/// How records become batches and for how long a batch is tried.
#[derive(Clone, Debug)]
pub struct ProducerConfig {
    /// A batch is closed when its sealed size would exceed this many bytes. At least 1 KiB and at most what the broker takes;
    /// [`Producer::batch_bytes`](crate::Producer::batch_bytes) is what it came to.
    pub batch_bytes: usize,
    /// When a batch that is not full is sent.
    pub linger: Linger,
    /// Compression of batch bodies.
    pub codec: Codec,
    /// Whether the broker drops repeated batches. Without it a lost connection may lead to duplicates, and a
    /// refusal may change the order of records.
    pub idempotent: bool,
    /// A record is acknowledged or refused for good within this time of the opening of its batch.
    pub deadline: Duration,
    /// Bytes of records that may wait for acknowledgement; beyond it `send` waits and `try_send` says so.
    pub max_buffer_bytes: usize,
    /// Requests of one partition that may be unacknowledged; at most 5, what a broker can tell apart after a retry.
    pub max_in_flight: usize,
}

/// When a batch that is not full is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Linger {
    /// At once while fewer than 2 requests are unacknowledged on the connection, else when a reply arrives or
    /// the batch is full: small batches when idle, large ones under load, and no timer.
    Adaptive,
    /// This many microseconds after its first record (in steps of the runtime's timer, 1 ms).
    Fixed(u64),
}

/// Where a consumer starts or jumps to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Position {
    /// The first record kept.
    Start,
    /// The high watermark: only what is appended from now on.
    End,
    /// This offset.
    Offset(u64),
    /// The first record whose timestamp is this one or later, in microseconds since 1970. A consumer begins with exactly
    /// that one, and passes on all that follow it.
    Time(u64),
}

/// What a consumer does when its offset is below the first record kept, or beyond the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reset {
    /// `next` answers `OffsetOutOfRange` once; the partition then stands still until `seek`.
    Fail,
    /// It goes on from the first record kept.
    Start,
    /// It goes on from the high watermark.
    End,
}

/// Which partitions of a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Partitions {
    /// Every partition of the topic, also those that are added later: these are read from their start, since no record of
    /// them can have been read before.
    All,
    /// These.
    Only(Vec<u32>),
}

/// What to read, and how far ahead.
#[derive(Clone, Debug)]
pub struct ConsumerConfig {
    /// The topic.
    pub topic: Topic,
    /// Its partitions.
    pub partitions: Partitions,
    /// Where each partition starts.
    pub from: Position,
    /// Bytes pushed or fetched at once; at least one batch comes, whatever its size.
    pub max_bytes: u32,
    /// Up to 1: the broker pushes batches as they become visible. More: it is asked for this many bytes at a time, and
    /// answers when it has them or `max_wait` is over.
    pub min_bytes: u32,
    /// How long the broker may wait for `min_bytes`.
    pub max_wait: Duration,
    /// Bytes per partition that may wait for [`Consumer::next`](crate::Consumer::next) while `max_bytes` more are on their
    /// way.
    pub prefetch_bytes: usize,
    /// What to do when the offset asked for is not kept.
    pub reset: Reset,
    /// Under which name the consumer keeps how far it has come. Each partition then goes on from the position committed
    /// under it, and from `from` where there is none.
    pub name: Option<String>,
}

impl ClientConfig {
    /// Defaults, and these servers.
    pub fn new<S: Into<String>>(servers: impl IntoIterator<Item = S>) -> Self {
        Self {
            servers: servers.into_iter().map(Into::into).collect(),
            name: "corelog-client".to_owned(),
            connect_timeout: Duration::from_secs(5),
            request_timeout: Duration::from_secs(30),
            backoff: Backoff::default(),
            metadata_age: Duration::from_secs(60),
            max_frame_bytes: 32 << 20,
            seed: None,
        }
    }
}

impl Default for Backoff {
    fn default() -> Self {
        Self { first: Duration::from_millis(20), most: Duration::from_secs(1) }
    }
}

impl Default for ProducerConfig {
    fn default() -> Self {
        Self {
            batch_bytes: 128 << 10,
            linger: Linger::Adaptive,
            codec: Codec::None,
            idempotent: true,
            deadline: Duration::from_secs(120),
            max_buffer_bytes: 32 << 20,
            max_in_flight: 5,
        }
    }
}

impl ProducerConfig {
    /// The values within what is possible: a batch fits the broker's limit and the buffer holds one.
    pub(crate) fn bounded(mut self, max_batch_bytes: usize) -> Self {
        let most = max_batch_bytes.clamp(MIN_BATCH_BYTES, MAX_BATCH_BYTES_LIMIT);
        self.batch_bytes = self.batch_bytes.clamp(MIN_BATCH_BYTES, most);
        self.max_buffer_bytes = self.max_buffer_bytes.max(self.batch_bytes);
        self.max_in_flight = self.max_in_flight.clamp(1, 5);
        self
    }
}

impl ConsumerConfig {
    /// Every partition of `topic` from `from`, with 1 MiB fetches.
    pub fn new(topic: &Topic, from: Position) -> Self {
        Self {
            topic: topic.clone(),
            partitions: Partitions::All,
            from,
            max_bytes: 1 << 20,
            min_bytes: 1,
            max_wait: Duration::from_millis(500),
            prefetch_bytes: 2 << 20,
            reset: Reset::Fail,
            name: None,
        }
    }

    /// The same, to go on from what was committed under this name: 1 to 255 bytes without control characters. What was read
    /// is committed by [`Consumer::commit`](crate::Consumer::commit).
    #[must_use]
    pub fn named(self, name: impl Into<String>) -> Self {
        Self { name: Some(name.into()), ..self }
    }
}
