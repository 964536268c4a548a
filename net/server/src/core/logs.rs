//! The logs that a core serves: each with its shard, its files, and what the shard wants done.
//!
//! **Invariant:** a block of a log's memory belongs to that log for good, so whoever is done with a slice finds the shard
//! that lent it by the block's name.

use corelog_model::time::Now;
use corelog_model::{Block, BlockId, LogId, Slice, Term, TopicId};
use corelog_shard::{Actions, ConnId, Event, Mail, Principal, Shard, ShardStatus};
use corelog_uring::arena;

use super::disk::Disk;
use super::parcel::Parcel;

/// One log.
pub(crate) struct Served {
    pub(crate) log: LogId,
    pub(crate) shard: Shard,
    pub(crate) disk: Disk,
    pub(crate) actions: Actions,
    /// Blocks that other cores were asked to let go, and until when they are not asked again, in microseconds. A turn is due
    /// then: a block may have gone abroad once more meanwhile, to one who keeps it.
    pub(crate) evicted: Vec<(BlockId, u64)>,
}

/// All logs of a core, by their place, which is their number on this core.
pub(crate) struct Logs {
    served: Vec<Served>,
    owners: Owners,
    /// The number of this core.
    me: usize,
    /// For other cores, each with its core.
    pub(crate) parcels: Vec<(usize, Parcel)>,
}

/// Which log each block belongs to, by name.
#[derive(Debug, Default)]
pub(crate) struct Owners(Vec<Option<u16>>);

impl Owners {
    /// These blocks are of the log in this place.
    pub(crate) fn add(&mut self, place: usize, blocks: impl IntoIterator<Item = BlockId>) {
        let place = Some(u16::try_from(place).expect("a core serves few logs"));
        for block in blocks {
            let at = arena::place_of(block).1;
            if self.0.len() <= at {
                self.0.resize(at + 1, None);
            }
            assert!(self.0[at].is_none(), "a block has one owner");
            self.0[at] = place;
        }
    }

    /// The place of the log that lent a block of this core.
    pub(crate) fn of(&self, block: BlockId) -> usize {
        let owner = self.0.get(arena::place_of(block).1).copied().flatten();
        usize::from(owner.expect("a log's block has an owner"))
    }
}

impl Logs {
    pub(crate) fn new(me: usize, served: Vec<Served>, owners: Owners) -> Self {
        assert!(!served.is_empty(), "a core serves a log");
        Self { served, owners, me, parcels: Vec::new() }
    }

    pub(crate) fn len(&self) -> usize {
        self.served.len()
    }

    pub(crate) fn at(&mut self, place: usize) -> &mut Served {
        &mut self.served[place]
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Served> {
        self.served.iter()
    }

    fn any(&self) -> &Shard {
        &self.served[0].shard
    }

    /// Where a log is served on this core, if it is.
    pub(crate) fn place_of(&self, log: LogId) -> Option<usize> {
        self.served.iter().position(|served| served.log == log)
    }

    /// The pin of one slice of this block is over.
    pub(crate) fn release(&mut self, now: Now, block: BlockId) {
        if let Some(core) = self.abroad(block) {
            self.parcels.push((core, Parcel::Released(block)));
            return;
        }
        let owner = self.owners.of(block);
        self.served[owner].shard.on(now, Event::Released { block });
    }

    /// The core whose memory a block is of, if it is another.
    pub(crate) fn abroad(&self, block: BlockId) -> Option<usize> {
        let core = arena::place_of(block).0;
        (core != self.me).then_some(core)
    }

    /// The bytes of a pinned slice of this core's memory.
    pub(crate) fn bytes(&self, slice: Slice) -> &[u8] {
        self.served[self.owners.of(slice.block)].shard.bytes(slice)
    }

    /// More memory for the live window of the log in `place`.
    pub(crate) fn grow(&mut self, now: Now, place: usize, window: Vec<Block>) {
        self.owners.add(place, window.iter().map(Block::id));
        self.served[place].shard.on(now, Event::Memory(window));
    }

    /// A connection is open: every shard may be asked on it.
    pub(crate) fn connected(&mut self, now: Now, conn: ConnId, principal: Principal) {
        for served in &mut self.served {
            served.shard.on(now, Event::Connected { conn, principal });
        }
    }

    /// A connection is gone.
    pub(crate) fn disconnected(&mut self, now: Now, conn: ConnId) {
        for served in &mut self.served {
            served.shard.on(now, Event::Disconnected { conn });
        }
    }

    /// Fetches of this connection wait no longer.
    pub(crate) fn hurry(&mut self, now: Now, conn: ConnId) {
        for Served { shard, actions, .. } in &mut self.served {
            shard.hurry(now, conn, actions);
        }
    }

    /// This connection has taken what was pushed to it.
    pub(crate) fn drained(&mut self, now: Now, conn: ConnId) {
        for Served { shard, actions, .. } in &mut self.served {
            shard.drained(now, conn, actions);
        }
    }

    /// A handle of this connection leads elsewhere: if the log has a subscription of it, that ends. `false` if another core
    /// serves the log.
    pub(crate) fn unsubscribe(&mut self, now: Now, log: LogId, conn: ConnId, handle: u32) -> bool {
        let Some(place) = self.place_of(log) else { return false };
        let Served { shard, actions, .. } = self.at(place);
        shard.end_subscription(now, conn, handle, actions);
        true
    }

    /// Hands a letter to the shard of a log, if this core serves it.
    pub(crate) fn deliver(&mut self, now: Now, from: LogId, to: LogId, mail: Mail) -> Result<(), Mail> {
        match self.place_of(to) {
            Some(place) => {
                self.served[place].shard.on(now, Event::Mail { from, mail });
                Ok(())
            }
            None => Err(mail),
        }
    }

    /// Whether all logs of the store have started, and what clients may see is known here.
    pub(crate) fn are_joined(&self) -> bool {
        self.served.iter().all(|served| served.shard.is_joined())
    }

    /// The log whose shard answers what is nobody's in particular.
    pub(crate) fn here(&self) -> LogId {
        self.served[0].log
    }

    /// The log that keeps a partition, where that is known.
    pub(crate) fn home(&self, topic: TopicId, partition: u32) -> Option<LogId> {
        self.any().home(topic, partition)
    }

    /// The term of a log of the store, 0 before it has started.
    pub(crate) fn term(&self, log: LogId) -> Term {
        self.any().term_of(log)
    }

    /// What all shards here count together.
    pub(crate) fn status(&self) -> ShardStatus {
        let mut all = self.any().status();
        self.served[1..].iter().for_each(|served| all += served.shard.status());
        all
    }

    /// When a turn is due although nothing happens.
    pub(crate) fn next_deadline(&self) -> Option<u64> {
        let of = |served: &Served| {
            let asked = served.evicted.iter().map(|&(_, until_us)| until_us);
            asked.chain(served.shard.next_deadline()).min()
        };
        self.served.iter().filter_map(of).min()
    }

    /// Whether no operation of the commit or the background class is in flight.
    pub(crate) fn are_settled(&self) -> bool {
        self.served.iter().all(|served| served.disk.commits() == 0 && served.disk.background() == 0)
    }
}
