//! What a disk does besides working: how often, and how often it did.

use std::fmt;
use std::ops::AddAssign;

use corelog_storage::DiskOp;

/// The rates of what goes wrong. All of them may be changed while the disk runs.
#[derive(Clone, Copy, Debug)]
pub struct Faults {
    /// Longest delay of an operation, in microseconds.
    pub delay_us: u64,
    /// Commit writes and flushes that fail, in a million.
    pub write_errors: u64,
    /// Reads that fail, in a million.
    pub read_errors: u64,
    /// Extents that are not made, zeros and superblock copies that are not written, in a million.
    pub background_errors: u64,
    /// What makes frames durable, a flush or a write through, does not end while this is set.
    pub hold_flushes: bool,
    /// Bytes that all files together may take.
    pub capacity: u64,
    /// Writes of which only a beginning arrives, and which say so, in a million.
    pub short_writes: u64,
    /// Reads that give fewer bytes than there are, in a million.
    pub short_reads: u64,
    /// Operations with which a slow period begins, in a million.
    pub slow: u64,
    /// Operations with which the disk is full for a while, in a million.
    pub full: u64,
    /// Writes that go somewhere else and are said to be done, in a million.
    pub misdirected: u64,
    /// Reads of which a part is what was there before, in a million.
    pub stale_reads: u64,
    /// Operations beside which a bit flips somewhere, in a million.
    pub rot: u64,
    /// Operations beside which a sector becomes unreadable until it is written again, in a million.
    pub latent: u64,
    /// Flushes and writes through that confirm nothing and are said to be done, in a million.
    pub lies: u64,
    /// Faults of the medium leave what a start cannot do without; see `atlas`.
    pub atlas: bool,
}

impl Default for Faults {
    fn default() -> Self {
        Self {
            delay_us: 300,
            write_errors: 0,
            read_errors: 0,
            background_errors: 0,
            hold_flushes: false,
            capacity: u64::MAX,
            short_writes: 0,
            short_reads: 0,
            slow: 0,
            full: 0,
            misdirected: 0,
            stale_reads: 0,
            rot: 0,
            latent: 0,
            lies: 0,
            atlas: true,
        }
    }
}

impl Faults {
    /// Whether operations may fail.
    pub fn fail(&self) -> bool {
        self.write_errors > 0
            || self.read_errors > 0
            || self.background_errors > 0
            || self.short_writes > 0
            || self.short_reads > 0
    }

    /// Nothing goes wrong any more; delays stay, and what is held back.
    pub fn stop(&mut self) {
        let Self { delay_us, hold_flushes, capacity, atlas, .. } = *self;
        *self = Self { delay_us, hold_flushes, capacity, atlas, ..Self::default() };
    }

    /// The rates of media faults of another; the others stay.
    pub fn take_media(&mut self, other: &Self) {
        let Self { misdirected, stale_reads, rot, latent, lies, atlas, .. } = *other;
        *self = Self { misdirected, stale_reads, rot, latent, lies, atlas, ..*self };
    }

    pub(super) fn holds(&self, op: &DiskOp) -> bool {
        self.hold_flushes && matches!(op, DiskOp::Sync { .. } | DiskOp::WriteFrame { flush: true, .. })
    }
}

macro_rules! counts {
    ($($(#[$doc:meta])* $name:ident: $words:literal,)*) => {
        /// How often each fault was injected.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct Injected {
            $($(#[$doc])* pub $name: u64,)*
        }

        impl Injected {
            /// Each count with its name.
            pub fn counts(&self) -> impl Iterator<Item = (&'static str, u64)> {
                [$(($words, self.$name)),*].into_iter()
            }
        }

        impl AddAssign for Injected {
            fn add_assign(&mut self, other: Self) {
                $(self.$name += other.$name;)*
            }
        }
    };
}

counts! {
    /// Writes of which some sectors arrived and others did not.
    torn: "torn",
    /// Writes that were lost whole: not flushed when the power failed.
    vanished: "vanished",
    /// Writes that ended before one that was asked for earlier.
    reordered: "reordered",
    /// Writes that failed.
    write_errors: "write errors",
    /// Flushes that failed.
    flush_errors: "flush errors",
    /// Reads that failed, and were not of an unreadable sector.
    read_errors: "read errors",
    /// Extents that were not made or not removed, zeros and superblock copies that were not written.
    background_errors: "background errors",
    /// Writes of which a beginning arrived.
    short_writes: "short writes",
    /// Reads that gave fewer bytes than there were.
    short_reads: "short reads",
    /// Extents for which there was no room.
    no_space: "no space",
    /// Operations that took 10 to 100 times as long.
    slow: "slow operations",
    /// Writes that went somewhere else.
    misdirected: "misdirected",
    /// Reads of something older.
    stale_reads: "stale reads",
    /// Bits that flipped.
    rot: "rotten bits",
    /// Sectors that became unreadable.
    latent: "latent sectors",
    /// Reads that failed for an unreadable sector.
    latent_reads: "latent errors",
    /// Flushes and writes through that confirmed nothing.
    lies: "lying flushes",
}

impl Injected {
    /// All of them.
    pub fn total(&self) -> u64 {
        self.counts().map(|(_, count)| count).sum()
    }
}

impl fmt::Display for Injected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut between = "";
        for (name, count) in self.counts() {
            write!(f, "{between}{name} {count}")?;
            between = ", ";
        }
        Ok(())
    }
}
