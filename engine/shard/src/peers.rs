//! The other logs of the store, as one of them sees them: who has started, and who has heard what.

use std::collections::VecDeque;
use std::sync::Arc;

use corelog_model::{LogId, TopicId};

use crate::event::Actions;
use crate::mail::{Letter, Mail, News};
use crate::response::DamageView;
use crate::shard::Shard;

/// What is known of another log's shard.
#[derive(Clone, Copy, Debug, Default)]
struct Peer {
    started: bool,
    /// The version of the news it has confirmed last.
    heard: u64,
}

/// All logs of the store but this one, and letters on their way to them.
#[derive(Debug)]
pub(crate) struct Peers {
    own: LogId,
    /// By log; this one's entry is not used.
    peers: Vec<Peer>,
    announced: bool,
    /// How much damage was known when it was last said what is damaged.
    damaged_ranges: usize,
    letters: Vec<Letter>,
    /// News that are not confirmed yet, by version, and the frame that must be durable first. Bounded by log 0's changes.
    unconfirmed: VecDeque<(u64, u64)>,
}

impl Peers {
    pub(crate) fn new(own: LogId, logs: u16) -> Self {
        let peers = vec![Peer::default(); logs.into()];
        Self {
            own,
            peers,
            announced: false,
            damaged_ranges: 0,
            letters: Vec::new(),
            unconfirmed: VecDeque::new(),
        }
    }

    pub(crate) fn post(&mut self, to: LogId, mail: Mail) {
        self.letters.push(Letter { to, mail });
    }

    /// The same to all that have started; the others are told everything when they have.
    fn post_all(&mut self, mail: &Mail) {
        for to in self.others() {
            if self.has_started(to) {
                self.post(to, mail.clone());
            }
        }
    }

    fn others(&self) -> impl Iterator<Item = LogId> + use<> {
        let own = self.own;
        let logs = u16::try_from(self.peers.len()).expect("made from a u16");
        (0..logs).map(LogId).filter(move |&log| log != own)
    }

    pub(crate) fn has_started(&self, log: LogId) -> bool {
        self.peers.get(usize::from(log.0)).is_some_and(|peer| peer.started)
    }

    /// Whether all that have started know everything up to `version`.
    pub(crate) fn have_heard(&self, version: u64) -> bool {
        self.peers.iter().all(|peer| !peer.started || peer.heard >= version)
    }
}

impl Shard {
    /// Takes in a letter of another log's shard.
    pub(crate) fn on_mail(&mut self, from: LogId, mail: Mail) {
        match mail {
            Mail::Started { term, damage } => {
                self.directory.know(from, Some(term), damage);
                self.peers.peers[usize::from(from.0)].started = true;
                if self.is_first() {
                    self.peers.post(from, Mail::Told(Arc::new(self.directory.whole())));
                }
            }
            Mail::Damaged(damage) => self.directory.know(from, None, damage),
            Mail::Open(spec) => self.holdings.ask_to_open(spec),
            Mail::Close(topic) => self.holdings.ask_to_close(topic),
            Mail::Restore(spec) => self.holdings.ask_to_restore(spec),
            Mail::Opened(topic) => self.changes.part_opened(topic, from),
            Mail::Closed(topic) => self.changes.part_closed(topic, from),
            Mail::Refused(topic, refusal) => self.changes.part_refused(topic, refusal),
            Mail::Told(news) => {
                self.directory.hear(&news);
                let frame = self.set_levels(&news);
                self.peers.unconfirmed.push_back((news.version, frame));
            }
            Mail::Heard { version } => self.peers.peers[usize::from(from.0)].heard = version,
        }
    }

    /// Whether this is the shard of log 0, which decides on topics.
    pub(crate) fn is_first(&self) -> bool {
        self.config.log.log == LogId(0)
    }

    /// Whether all logs have started and this one knows what clients may see.
    pub fn is_joined(&self) -> bool {
        let others = self.peers.others().all(|log| self.peers.has_started(log));
        self.directory.version() > 0 && self.peers.announced && others
    }

    /// Tells everybody, this log included, what clients may see from now on. The frame of this log that must be durable
    /// before a client is answered.
    pub(crate) fn publish(&mut self, news: News) -> u64 {
        self.directory.hear(&news);
        let frame = self.set_levels(&news);
        self.peers.post_all(&Mail::Told(Arc::new(news)));
        frame
    }

    /// Confirms news whose frame is durable. A log that is read-only has nothing that could become durable.
    fn confirm_news(&mut self) {
        let (durable, read_only) = (self.log.durable_frame(), self.log.is_read_only());
        while let Some((version, _)) =
            self.peers.unconfirmed.pop_front_if(|(_, frame)| *frame <= durable || read_only)
        {
            self.peers.post(LogId(0), Mail::Heard { version });
        }
    }

    /// Says what the others must know of this log, and hands over all letters.
    pub(crate) fn write_letters(&mut self, recycled: bool, out: &mut Actions) {
        if !self.peers.announced {
            self.peers.announced = true;
            self.peers.damaged_ranges = self.log.damaged_ranges();
            let (term, damage) = (self.log.term(), self.damage());
            for to in self.peers.others() {
                self.peers.post(to, Mail::Started { term, damage: damage.clone() });
            }
            self.directory.know(self.config.log.log, Some(term), damage);
        }
        let ranges = self.log.damaged_ranges();
        if ranges > self.peers.damaged_ranges || recycled && ranges > 0 {
            self.peers.damaged_ranges = ranges;
            let damage = self.damage();
            self.peers.post_all(&Mail::Damaged(damage.clone()));
            self.directory.know(self.config.log.log, None, damage);
        }
        self.confirm_news();
        out.letters.append(&mut self.peers.letters);
    }

    /// All that is known to be damaged. What retention has taken since is not missed any more.
    pub fn damage(&self) -> Vec<(TopicId, DamageView)> {
        let known = self.log.damage().filter_map(|(slot, first, last)| {
            let partition = self.partitions.get(*self.by_log_slot.get(&slot)?)?;
            let missed = last >= partition.cursors().log_start;
            missed.then_some((partition.topic, DamageView { partition: partition.partition, first, last }))
        });
        let mut damage: Vec<_> = known.collect();
        damage.sort_unstable();
        damage.dedup();
        damage
    }
}
