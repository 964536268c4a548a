//! The reply to Status: counters, each a tagged field, so that old and new tools and brokers understand each
//! other without a version. A counter that the broker does not send reads 0. The one table of their numbers.

use crate::fault::WireError;
use crate::reader::Reader;
use crate::writer::Writer;

/// How a counter of the broker comes from those of its cores: their sum ...
const fn sum(all: &mut u64, core: u64) {
    *all += core;
}

/// ... the largest of them ...
const fn most(all: &mut u64, core: u64) {
    if core > *all {
        *all = core;
    }
}

/// ... what any of them says ...
const fn any(all: &mut u64, core: u64) {
    *all |= core;
}

/// ... or what each of them says of all.
const fn one(_: &mut u64, _: u64) {}

macro_rules! status {
    ($($(#[$doc:meta])* $tag:literal $name:ident $merge:ident,)*) => {
        /// Counters since the start of the broker, and gauges of now. Times are in microseconds.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct Status {
            $($(#[$doc])* pub $name: u64,)*
        }

        impl Status {
            /// Tag and name of every counter, by tag.
            pub const TAGS: &'static [(u16, &'static str)] = &[$(($tag, stringify!($name))),*];

            /// Every counter with its name, in the order of the tags.
            pub fn counters(&self) -> impl Iterator<Item = (&'static str, u64)> {
                [$((stringify!($name), self.$name)),*].into_iter()
            }

            /// Adds what another core of the same broker says of itself.
            pub fn merge(&mut self, other: &Self) {
                $($merge(&mut self.$name, other.$name);)*
            }

            fn set(&mut self, tag: u16, value: u64) {
                match tag {
                    $($tag => self.$name = value,)*
                    _ => {}
                }
            }
        }
    };
}

status! {
    /// How the reactor waits: 0 poll, 1 adaptive, 2 park.
    1 mode one,
    /// What the machine refused: the sum of [`REFUSED_REGISTRATION`] and [`REFUSED_DIRECT`].
    2 refused any,
    /// Since the ready line.
    3 uptime_us one,
    /// CPU time of the broker's threads, user and system.
    4 cpu_us one,
    /// Part of it in which the reactors had work.
    5 busy_us sum,
    /// Part of it in which the reactors looked for work and found none.
    6 polling_us sum,
    /// System calls of the reactors: enters and parks of their rings, files and sockets taken over or given back, and
    /// turns after which the core was offered to other threads. Those of background work are not counted.
    7 system_calls sum,
    /// Ring enters; parks are apart.
    8 enters sum,
    /// Resident memory of the process, in bytes.
    9 resident_bytes one,
    /// Frames written to disk.
    10 frames sum,
    /// Bytes written to disk, everything included: headers, padding, zeros ahead, checkpoints.
    11 bytes_written sum,
    /// Bytes of appended batches, without padding.
    12 bytes_accepted sum,
    /// Batches appended.
    13 batches sum,
    /// Records appended.
    14 records sum,
    /// Bytes of batches sent to consumers.
    15 bytes_fetched sum,
    /// Requests taken.
    16 requests sum,
    /// Requests refused.
    17 refusals sum,
    /// Memory of the live window, in bytes.
    18 window_bytes sum,
    /// Reads answered from the live window.
    19 window_reads sum,
    /// Reads that went to the disk.
    20 cold_reads sum,
    /// Bytes that those read from the disk.
    21 cold_bytes sum,
    /// Connections that were closed because they read too slowly.
    22 slow_consumers sum,
    /// Connections open now.
    23 connections sum,
    /// Topics now.
    24 topics one,
    /// Partitions now.
    25 partitions sum,
    /// Logs of the data directory.
    26 logs one,
    /// The term of log 0.
    27 term one,
    /// Turns of the reactors that were measured for hiccups: how much later a turn ended than it should have.
    28 hiccup_count sum,
    /// Half of them were at most this late.
    29 hiccup_p50_us most,
    /// 99 % of them were at most this late.
    30 hiccup_p99_us most,
    /// 99.9 % of them were at most this late.
    31 hiccup_p999_us most,
    /// The latest.
    32 hiccup_max_us most,
    /// Turns of the reactors that found work; each enters its ring at most once.
    33 turns sum,
    /// Turns of the reactors that found none.
    34 idle_turns sum,
    /// Turns, with or without work, that took 100 us or longer.
    35 turns_over_100us sum,
    /// Turns that took 1 ms or longer.
    36 turns_over_1ms sum,
    /// Turns that took 10 ms or longer.
    37 turns_over_10ms sum,
    /// Time in which the reactors were awake: from turn to turn, and not asleep.
    38 awake_us sum,
    /// Of each gap between two turns of an awake reactor what is beyond 16 us, summed up: what came while it was awake
    /// waited longer than 16 us in this part of `awake_us`.
    39 late_over_16us sum,
    /// Beyond 32 us.
    40 late_over_32us sum,
    /// Beyond 64 us.
    41 late_over_64us sum,
    /// Beyond 128 us.
    42 late_over_128us sum,
    /// Beyond 256 us.
    43 late_over_256us sum,
    /// Beyond 512 us.
    44 late_over_512us sum,
    /// Beyond 1,024 us.
    45 late_over_1024us sum,
    /// Beyond 2,048 us.
    46 late_over_2048us sum,
    /// Beyond 4,096 us.
    47 late_over_4096us sum,
    /// Beyond 8,192 us.
    48 late_over_8192us sum,
    /// Beyond 16,384 us.
    49 late_over_16384us sum,
    /// Beyond 32,768 us.
    50 late_over_32768us sum,
    /// Beyond 65,536 us.
    51 late_over_65536us sum,
    /// Beyond 131,072 us.
    52 late_over_131072us sum,
    /// The most ring enters that one turn took, parks apart.
    53 most_enters most,
    /// Subscriptions now.
    54 subscriptions sum,
    /// What the process may come to, resident, in bytes.
    55 memory_limit_bytes one,
    /// Named positions now.
    56 positions sum,
    /// Memory of named positions, about, in bytes.
    57 position_bytes sum,
}

/// The tag of the first of [`Status::late_us`]; tags count from 1 without a gap.
const FIRST_LATE_TAG: u16 = 39;

/// [`Status::refused`]: no registered buffers or files, plain ones are used.
pub const REFUSED_REGISTRATION: u64 = 1 << 0;
/// [`Status::refused`]: no O_DIRECT, the log is written through the page cache and synced.
pub const REFUSED_DIRECT: u64 = 1 << 1;

impl Status {
    /// The bounds that [`Status::late_us`] are times beyond, in microseconds.
    pub const LATE_OVER_US: [u64; 14] =
        [16, 32, 64, 128, 256, 512, 1_024, 2_048, 4_096, 8_192, 16_384, 32_768, 65_536, 131_072];

    /// Time beyond each of [`Status::LATE_OVER_US`], in microseconds.
    pub fn late_us(&self) -> [u64; Self::LATE_OVER_US.len()] {
        let mut counters = self.counters().skip(FIRST_LATE_TAG as usize - 1);
        std::array::from_fn(|_| counters.next().map_or(0, |(_, value)| value))
    }

    /// The same with these times.
    #[must_use]
    pub fn with_late_us(mut self, late_us: [u64; Self::LATE_OVER_US.len()]) -> Self {
        (FIRST_LATE_TAG..).zip(late_us).for_each(|(tag, value)| self.set(tag, value));
        self
    }

    pub(crate) fn decode(head: Reader<'_>) -> Result<Self, WireError> {
        let mut status = Self::default();
        let mut tagged = head.tagged();
        while let Some((tag, mut field)) = tagged.next()? {
            let known = Self::TAGS.iter().any(|&(known, _)| known == tag);
            if known {
                status.set(tag, field.u64("counter")?);
            }
        }
        Ok(status)
    }

    pub(crate) fn encode(&self, head: &mut Writer<'_>) {
        for (&(tag, _), (_, value)) in Self::TAGS.iter().zip(self.counters()) {
            if value != 0 {
                head.tagged(tag, |field| field.u64(value));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cores_say_becomes_what_the_broker_says() {
        let core = |refused, records, hiccup_max_us| Status {
            refused,
            records,
            hiccup_max_us,
            cpu_us: 70,
            ..Status::default()
        };
        let mut all = core(REFUSED_DIRECT, 5, 9);
        all.merge(&core(REFUSED_REGISTRATION, 7, 3));
        assert_eq!(all, core(REFUSED_DIRECT | REFUSED_REGISTRATION, 12, 9), "CPU is the process's");
    }

    #[test]
    fn times_of_lateness_have_the_names_of_their_bounds_and_come_back() {
        let names = Status::LATE_OVER_US.map(|over| format!("late_over_{over}us"));
        let tags = Status::TAGS.iter().skip_while(|(tag, _)| *tag < FIRST_LATE_TAG).take(names.len());
        assert_eq!(tags.map(|(_, name)| (*name).to_owned()).collect::<Vec<_>>(), names);
        assert!(Status::TAGS.iter().map(|(tag, _)| *tag).eq(1..=Status::TAGS.len() as u16), "without a gap");
        let late: [u64; Status::LATE_OVER_US.len()] = std::array::from_fn(|at| 100 - at as u64);
        let status = Status::default().with_late_us(late);
        assert_eq!((status.late_us(), status.late_over_16us, status.most_enters), (late, 100, 0));
    }
}
