//! Whether the broker lives, is ready, is well: decided from what its cores say, and nothing else.
//!
//! | check | fails `/livez` | fails `/readyz` | fails `/healthz` |
//! |---|---|---|---|
//! | the broker is stopping | | yes | yes |
//! | a shard is starting | | yes | yes |
//! | a shard takes no turns | yes | yes | yes |
//! | a shard has ended, and the broker does not stop | yes | yes | yes |
//! | no log is writable: each is read-only, or full | | yes | yes |
//! | a log is read-only, or full, and another is not | | named | yes |
//! | a log has damage | | named | yes |
//!
//! A start may take long and must not be cut short, so a broker that starts is alive. Damaged offsets are refused by name
//! and all others served, so clients lose nothing by being sent here; an operator is to know. The same goes for one log of
//! several that takes no records: nobody else has its partitions, and a balancer that sent no clients here would take those
//! of all other logs from them, and the reading of this one. A broker none of whose logs takes records is not ready:
//! what producers are sent to it for is refused, and the disk is most likely the same for all.

use std::fmt;

use corelog_model::LogId;
use corelog_shard::ShardStatus;

use crate::roll::Answer;

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Question {
    /// Is it to be left running?
    Live,
    /// Are clients to be sent to it?
    Ready,
    /// Is there nothing for an operator to do?
    Healthy,
}

/// One thing that was looked at, and how it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Check {
    subject: Subject,
    state: State,
    /// No log takes records.
    none_writable: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Subject {
    Broker,
    Shard(usize),
    Log { log: LogId, shard: usize },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Running,
    Stopping,
    Serving,
    Starting,
    Silent,
    Ended,
    Writable,
    ReadOnly,
    Full,
    IndexFull,
    Damaged { ranges: u64, groups: u64 },
}

impl Check {
    const fn new(subject: Subject, state: State) -> Self {
        Self { subject, state, none_writable: false }
    }

    /// Whether the answer to the question is no because of this.
    pub(crate) const fn fails(&self, question: Question) -> bool {
        let from = match self.state {
            State::Running | State::Serving | State::Writable => return false,
            State::Silent | State::Ended => Question::Live,
            State::Stopping | State::Starting => Question::Ready,
            State::ReadOnly | State::Full | State::IndexFull if self.none_writable => Question::Ready,
            State::ReadOnly | State::Full | State::IndexFull | State::Damaged { .. } => Question::Healthy,
        };
        question as u8 >= from as u8
    }

    /// Whether who asks is to be told of it although the answer is not no because of it.
    pub(crate) fn is_named(&self, question: Question) -> bool {
        question == Question::Ready && !self.fails(question) && self.fails(Question::Healthy)
    }
}

/// Looks at a broker that is stopping or not, by what its cores say.
pub(crate) fn checks(stopping: bool, cores: &[Answer]) -> Vec<Check> {
    let state = if stopping { State::Stopping } else { State::Running };
    let mut checks = vec![Check::new(Subject::Broker, state)];
    for (shard, answer) in cores.iter().enumerate() {
        let state = match answer {
            Answer::Says(says) if says.joined => State::Serving,
            Answer::Starting | Answer::Says(_) => State::Starting,
            // That is how a stop goes.
            Answer::Gone if stopping => State::Stopping,
            Answer::Gone => State::Ended,
            Answer::Silent => State::Silent,
        };
        checks.push(Check::new(Subject::Shard(shard), state));
        if let Answer::Says(says) = answer {
            checks.extend(says.logs.iter().flat_map(|log| check_log(shard, log)));
        }
    }
    // What a core that does not answer has, is not known, and by that alone the broker is not ready.
    let none_writable = !checks.iter().any(|check| check.state == State::Writable);
    checks.iter_mut().for_each(|check| check.none_writable = none_writable);
    checks
}

/// Whether it takes records, and whether all it has can be read: each is said for itself.
fn check_log(shard: usize, status: &ShardStatus) -> impl Iterator<Item = Check> {
    let log = &status.storage;
    let subject = Subject::Log { log: status.log, shard };
    let state = match () {
        () if log.read_only => State::ReadOnly,
        () if log.full => State::Full,
        () if log.index_full => State::IndexFull,
        () => State::Writable,
    };
    let damaged = log.damaged_ranges + log.uncertain_groups > 0;
    let damage = State::Damaged { ranges: log.damaged_ranges, groups: log.uncertain_groups };
    let damage = damaged.then_some(Check::new(subject, damage));
    [Check::new(subject, state)].into_iter().chain(damage)
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.subject {
            Subject::Broker => f.write_str("broker: "),
            Subject::Shard(shard) => write!(f, "shard {shard}: "),
            Subject::Log { log, shard } => write!(f, "log {} of shard {shard}: ", log.0),
        }?;
        match self.state {
            State::Running => f.write_str("running"),
            State::Stopping => f.write_str("stopping"),
            State::Serving => f.write_str("serving"),
            State::Starting => f.write_str("starting"),
            State::Silent => f.write_str("takes no turns"),
            State::Ended => f.write_str("ended"),
            State::Writable => f.write_str("writable"),
            State::ReadOnly => f.write_str("read-only, its disk failed"),
            State::Full => f.write_str("full, its disk has no more room"),
            State::IndexFull => f.write_str("full, `memory.max_bytes` leaves its index no more room"),
            State::Damaged { ranges, groups } => {
                write!(f, "damaged, ranges of offsets: {ranges}, groups that may miss records: {groups}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use corelog_storage::LogStats;

    use super::*;
    use crate::status::Snapshot;

    const ALL: [Question; 3] = [Question::Live, Question::Ready, Question::Healthy];

    fn log(log: u16, storage: &LogStats) -> ShardStatus {
        ShardStatus { log: LogId(log), storage: *storage, ..ShardStatus::default() }
    }

    fn says(joined: bool, logs: Vec<ShardStatus>) -> Answer {
        Answer::Says(Arc::new(Snapshot { joined, logs, ..Snapshot::default() }))
    }

    fn well() -> Answer {
        says(true, vec![log(0, &LogStats::default())])
    }

    /// The answers to all questions, and why they are no.
    fn judge(stopping: bool, cores: &[Answer]) -> ([bool; 3], Vec<String>) {
        let checks = checks(stopping, cores);
        let answers = ALL.map(|question| !checks.iter().any(|check| check.fails(question)));
        let faults = checks.iter().filter(|check| check.fails(Question::Healthy));
        (answers, faults.map(Check::to_string).collect())
    }

    #[test]
    fn each_state_says_no_to_the_questions_that_it_must() {
        let stats = LogStats::default();
        let with = |storage| says(true, vec![log(0, &stats), log(2, &storage)]);
        let rows = [
            (false, well(), [true, true, true], ""),
            (true, well(), [true, false, false], "broker: stopping"),
            (false, Answer::Starting, [true, false, false], "shard 1: starting"),
            (false, says(false, Vec::new()), [true, false, false], "shard 1: starting"),
            (false, Answer::Silent, [false, false, false], "shard 1: takes no turns"),
            (true, Answer::Silent, [false, false, false], "shard 1: takes no turns"),
            (false, Answer::Gone, [false, false, false], "shard 1: ended"),
            (true, Answer::Gone, [true, false, false], "shard 1: stopping"),
            (
                false,
                with(LogStats { read_only: true, full: true, ..stats }),
                [true, true, false],
                "log 2 of shard 1: read-only, its disk failed",
            ),
            (
                false,
                with(LogStats { full: true, ..stats }),
                [true, true, false],
                "log 2 of shard 1: full, its disk has no more room",
            ),
            (
                false,
                with(LogStats { index_full: true, ..stats }),
                [true, true, false],
                "log 2 of shard 1: full, `memory.max_bytes` leaves its index no more room",
            ),
            (
                false,
                with(LogStats { damaged_ranges: 3, ..stats }),
                [true, true, false],
                "log 2 of shard 1: damaged, ranges of offsets: 3, groups that may miss records: 0",
            ),
            (
                false,
                with(LogStats { uncertain_groups: 2, ..stats }),
                [true, true, false],
                "log 2 of shard 1: damaged, ranges of offsets: 0, groups that may miss records: 2",
            ),
        ];
        for (stopping, core, expected, why) in rows {
            let (answers, faults) = judge(stopping, &[well(), core]);
            assert_eq!(answers, expected, "{why:?}");
            assert!(why.is_empty() && faults.is_empty() || faults.contains(&why.to_owned()), "{faults:?}");
        }
    }

    /// One log of several that takes no records is no reason to take all clients away, and each of them is told of it.
    #[test]
    fn clients_are_sent_here_as_long_as_one_log_takes_records() {
        let good = LogStats::default();
        let full = LogStats { full: true, ..good };
        let read_only = LogStats { read_only: true, ..good };
        let rows = [
            (good, full, good, true, 1),
            (full, full, good, true, 2),
            (full, good, read_only, true, 2),
            (full, read_only, full, false, 0),
        ];
        for (first, second, third, ready, named) in rows {
            let cores = [says(true, vec![log(0, &first), log(2, &second)]), says(true, vec![log(1, &third)])];
            assert_eq!(judge(false, &cores).0, [true, ready, false], "{first:?} {second:?} {third:?}");
            let checks = checks(false, &cores);
            let count = |question| checks.iter().filter(|check| check.is_named(question)).count();
            assert_eq!(ALL.map(count), [0, named, 0], "{first:?} {second:?} {third:?}");
        }
        let (answers, faults) = judge(false, &[says(true, vec![log(0, &full)]), Answer::Silent]);
        assert_eq!((answers, faults.len()), ([false; 3], 2), "of the other core nothing is known");
    }

    #[test]
    fn every_shard_and_every_log_has_a_line() {
        let cores = [
            says(true, vec![log(0, &LogStats::default()), log(2, &LogStats::default())]),
            says(true, vec![log(1, &LogStats { read_only: true, damaged_ranges: 1, ..LogStats::default() })]),
        ];
        let lines: Vec<String> = checks(false, &cores).iter().map(Check::to_string).collect();
        assert_eq!(
            lines,
            [
                "broker: running",
                "shard 0: serving",
                "log 0 of shard 0: writable",
                "log 2 of shard 0: writable",
                "shard 1: serving",
                "log 1 of shard 1: read-only, its disk failed",
                "log 1 of shard 1: damaged, ranges of offsets: 1, groups that may miss records: 0",
            ]
        );
    }
}
