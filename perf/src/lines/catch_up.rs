//! A consumer that reads a stretch of every partition of a topic, every record of it, as fast as it can.

use std::io;
use std::net::SocketAddr;
use std::thread;
use std::time::Instant;

use corelog_client::{Client, ClientConfig, Consumer, ConsumerConfig, Position};
use corelog_uring::affinity;

/// What is read, and what it must hold.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stretch<'a> {
    pub(super) topic: &'a str,
    /// All of them from 0 on, or one.
    pub(super) partitions: Partitions,
    /// Offsets of each.
    pub(super) from: u64,
    pub(super) end: u64,
    pub(super) value_bytes: usize,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Partitions {
    All(u32),
    One(u32),
}

impl Stretch<'_> {
    pub(super) fn records(&self) -> u64 {
        let partitions = match self.partitions {
            Partitions::All(count) => u64::from(count),
            Partitions::One(_) => 1,
        };
        (self.end - self.from) * partitions
    }

    /// Of its values.
    pub(super) fn bytes(&self) -> u64 {
        self.records() * self.value_bytes as u64
    }

    /// A consumer at its begin.
    pub(super) async fn consumer(&self, address: SocketAddr) -> io::Result<Consumer> {
        let client =
            Client::connect(ClientConfig::new([address.to_string()])).await.map_err(io::Error::other)?;
        let topic = client.topic(self.topic).await.map_err(io::Error::other)?;
        let mut config = ConsumerConfig::new(&topic, Position::Offset(self.from));
        if let Partitions::One(partition) = self.partitions {
            config.partitions = corelog_client::Partitions::Only(vec![partition]);
        }
        client.consumer(config).await.map_err(io::Error::other)
    }

    /// Reads all of it.
    pub(super) async fn read(&self, consumer: &mut Consumer) -> io::Result<()> {
        let (mut seen, wanted) = (0, self.records());
        while seen < wanted {
            seen += self.read_batch(consumer).await?;
        }
        Ok(())
    }

    /// Reads the next batch; the records of it that belong to the stretch.
    pub(super) async fn read_batch(&self, consumer: &mut Consumer) -> io::Result<u64> {
        let mut batch = consumer.next().await.map_err(io::Error::other)?;
        let mut seen = 0;
        for record in batch.records().map_err(io::Error::other)? {
            if record.value.map_or(0, <[u8]>::len) != self.value_bytes {
                return Err(io::Error::other("a record that was not written"));
            }
            seen += u64::from(record.offset < self.end);
        }
        Ok(seen)
    }

    /// Reads all of it on a thread of its own that stays on `core`; how long that took, in seconds.
    pub(super) fn time(&self, address: SocketAddr, core: usize) -> io::Result<f64> {
        on_core(core, || {
            alone(async {
                let began = Instant::now();
                let mut consumer = self.consumer(address).await?;
                self.read(&mut consumer).await?;
                Ok(began.elapsed().as_secs_f64())
            })
        })
    }
}

/// Runs a future, and everything it spawns, on this thread.
pub(super) fn alone<T>(work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(work)
}

/// Runs `work` on a thread of its own that stays on `core`.
pub(super) fn on_core<T: Send>(core: usize, work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    thread::scope(|scope| {
        let thread = scope.spawn(|| {
            affinity::pin(core);
            work()
        });
        thread.join().unwrap_or_else(|_| Err(io::Error::other("the consumer panicked")))
    })
}
