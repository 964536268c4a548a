//! One consumer of the load: reads its partitions from the first record on and checks every record.

use std::rc::Rc;

use corelog_client::{Batch, Client, ConsumeError, Consumer, ConsumerConfig, Partitions, Position};

use crate::error::LoadError;
use crate::shared::Shared;
use crate::verify::PartitionCheck;

pub(crate) struct LoadConsumer {
    shared: Rc<Shared>,
    consumer: Consumer,
    /// The partitions that this consumer reads.
    checks: Vec<(u32, PartitionCheck)>,
    /// The last place that could not be read: partition and offset.
    unreadable: Option<(u32, u64)>,
}

impl LoadConsumer {
    pub(crate) async fn new(
        client: &Client,
        config: ConsumerConfig,
        shared: Rc<Shared>,
    ) -> Result<Self, LoadError> {
        let partitions = match &config.partitions {
            Partitions::All => (0..shared.assignment.partitions()).collect(),
            Partitions::Only(partitions) => partitions.clone(),
        };
        let consumer = client.consumer(config).await?;
        let check = |partition| (partition, PartitionCheck::new(partition, shared.assignment));
        let checks = Vec::from_iter(partitions.into_iter().map(check));
        Ok(Self { shared, consumer, checks, unreadable: None })
    }

    /// Reads and checks until it is dropped or fails.
    pub(crate) async fn read(&mut self) -> Result<(), LoadError> {
        loop {
            match self.consumer.next().await {
                Ok(batch) => self.check_batch(batch)?,
                Err(ConsumeError::OffsetOutOfRange { partition, offset, log_start, .. })
                    if log_start > offset =>
                {
                    self.check_of(partition).expire(log_start - offset);
                    self.shared.set_position(partition, log_start);
                    self.consumer.seek(partition, Position::Offset(log_start)).await?;
                }
                Err(ConsumeError::Batch { partition, offset, .. }) => {
                    self.go_past(partition, offset, offset + 1).await?;
                }
                Err(ConsumeError::Damaged { partition, first, last }) => {
                    self.go_past(partition, first, last + 1).await?;
                }
                Err(error) => return Err(error.into()),
            }
            // A consumer with a full queue would never wait, and the producers would be late.
            tokio::task::yield_now().await;
        }
    }

    /// What cannot be read is asked for once more, since it may be the way that spoils it, and then left out: the verdict
    /// counts its records as lost, and the run still has a result.
    async fn go_past(&mut self, partition: u32, offset: u64, past: u64) -> Result<(), LoadError> {
        let again = self.unreadable.replace((partition, offset)) == Some((partition, offset));
        let next = if again { past } else { offset };
        self.shared.set_position(partition, next);
        self.consumer.seek(partition, Position::Offset(next)).await?;
        Ok(())
    }

    /// The checks of its partitions.
    pub(crate) fn checks(&self) -> impl Iterator<Item = &PartitionCheck> {
        self.checks.iter().map(|(_, check)| check)
    }

    fn check_batch(&mut self, mut batch: Batch) -> Result<(), LoadError> {
        let shared = self.shared.clone();
        let now = shared.clock.now_ns();
        let partition = batch.partition();
        let next_offset = batch.next_offset();
        let check = self.check_of(partition);
        let mut latencies = shared.latencies();
        let (mut records, mut bytes) = (0, 0);
        for record in batch.records()? {
            records += 1;
            bytes += record.value.map_or(0, <[u8]>::len) as u64;
            let intended = check.see(&shared.payload, record.value).and_then(|id| shared.intended_ns(id));
            if let Some(intended) = intended {
                latencies.end_to_end.record(now.saturating_sub(intended), 1);
            }
        }
        shared.count_consumed(records, bytes);
        shared.set_position(partition, next_offset);
        Ok(())
    }

    fn check_of(&mut self, partition: u32) -> &mut PartitionCheck {
        let own = self.checks.iter_mut().find(|(own, _)| *own == partition);
        &mut own.expect("a consumer yields the partitions it was asked for").1
    }
}
