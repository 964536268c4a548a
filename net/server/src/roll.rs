//! The roll call: how the control plane asks every core what it counts, without a word on any record's way.
//!
//! Each core has an entry. The control plane writes the number of its call there and wakes the core if it sleeps; the core
//! looks at that number once a turn, fills its [`Snapshot`] in, and says that this call is answered. The number lies on
//! cache lines that are written at a call only, so looking at it costs a core one load from its own cache.
//!
//! **Invariants:** a core allocates nothing for an answer and waits for nobody: the lock around what it says is free
//! whenever it takes it, because the control plane reads only what is answered and calls again only after that. One call
//! at a time; a call ends after [`PATIENCE`], whoever has not answered.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::post::Doors;
use crate::status::Snapshot;

/// How long a call waits for a core. A turn takes microseconds, one beside background work milliseconds.
pub(crate) const PATIENCE: Duration = Duration::from_secs(1);

/// [`Entry::presence`]: it has not begun to serve.
const STARTING: u8 = 0;
/// It takes turns.
const PRESENT: u8 = 1;
/// It takes none any more.
const GONE: u8 = 2;

/// What a core and the control plane share. Two cache lines, because the processor fetches them in pairs.
#[derive(Debug)]
struct Entry {
    called: Apart,
    answered: AtomicU64,
    presence: AtomicU8,
    says: std::sync::Mutex<Snapshot>,
}

/// The number of the latest call. The control plane alone writes it.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Apart(AtomicU64);

#[derive(Debug)]
struct Shared {
    entries: Box<[Entry]>,
    /// A core has answered, or is gone.
    told: Notify,
}

/// The control plane's side.
#[derive(Debug)]
pub(crate) struct Roll {
    shared: Arc<Shared>,
    doors: Doors,
    latest: tokio::sync::Mutex<Latest>,
}

/// The latest call: the next one has the number after it.
#[derive(Debug)]
struct Latest {
    number: u64,
    ended: Option<(Instant, Arc<Answers>)>,
}

/// One core's side.
#[derive(Debug)]
pub(crate) struct Seat {
    shared: Arc<Shared>,
    core: usize,
    /// The last call that it answered.
    answered: u64,
}

/// What came of a call.
#[derive(Debug, Default)]
pub(crate) struct Answers {
    /// By core.
    pub(crate) cores: Vec<Answer>,
    /// How long it took.
    pub(crate) took: Duration,
}

/// What came of it at one core.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    /// It opens its logs and takes no turns yet.
    Starting,
    /// It takes turns, but took none within [`PATIENCE`].
    Silent,
    /// It has ended.
    Gone,
    /// This is what it says.
    Says(Arc<Snapshot>),
}

/// A roll, and the seats of its cores. `logs` tells how many each of them serves.
pub(crate) fn roll(logs: impl IntoIterator<Item = usize>, doors: Doors) -> (Roll, Vec<Seat>) {
    let entry = |logs| Entry {
        called: Apart::default(),
        answered: AtomicU64::new(0),
        presence: AtomicU8::new(STARTING),
        says: std::sync::Mutex::new(Snapshot { logs: Vec::with_capacity(logs), ..Snapshot::default() }),
    };
    let shared = Arc::new(Shared { entries: logs.into_iter().map(entry).collect(), told: Notify::new() });
    let seat = |core| Seat { shared: Arc::clone(&shared), core, answered: 0 };
    let seats = (0..shared.entries.len()).map(seat).collect();
    let latest = tokio::sync::Mutex::new(Latest { number: 0, ended: None });
    (Roll { shared, doors, latest }, seats)
}

impl Seat {
    fn entry(&self) -> &Entry {
        &self.shared.entries[self.core]
    }

    /// From now on calls are answered.
    pub(crate) fn sit(&self) {
        self.entry().presence.store(PRESENT, Ordering::Release);
    }

    /// The call that is to be answered, if there is one. Once a turn, and once more before the core sleeps.
    pub(crate) fn called(&self) -> Option<u64> {
        // What it leads to goes the other way: there is nothing to be seen by it. Before a sleep, the fence of the
        // parking stands between.
        let called = self.entry().called.0.load(Ordering::Relaxed);
        (called != self.answered).then_some(called)
    }

    /// Answers it.
    pub(crate) fn answer(&mut self, call: u64, fill: impl FnOnce(&mut Snapshot)) {
        let entry = &self.shared.entries[self.core];
        fill(&mut entry.says.lock().unwrap_or_else(PoisonError::into_inner));
        entry.answered.store(call, Ordering::Release);
        self.answered = call;
        self.shared.told.notify_one();
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.entry().presence.store(GONE, Ordering::Release);
        self.shared.told.notify_one();
    }
}

impl Entry {
    /// What came of the call at this core; `None` while it may still answer.
    fn answer_to(&self, number: u64) -> Option<Answer> {
        match self.presence.load(Ordering::Acquire) {
            STARTING => return Some(Answer::Starting),
            GONE => return Some(Answer::Gone),
            _ => {}
        }
        let answered = self.answered.load(Ordering::Acquire) == number;
        answered.then(|| {
            let says = self.says.lock().unwrap_or_else(PoisonError::into_inner);
            Answer::Says(Arc::new(says.clone()))
        })
    }
}

impl Roll {
    /// Calls the roll, or waits for one that somebody else began after this was asked: however many ask at a time, the
    /// cores are called twice at most while any of them waits.
    pub(crate) async fn call(&self) -> Arc<Answers> {
        let asked = Instant::now();
        let mut latest = self.latest.lock().await;
        if let Some((began, answers)) = &latest.ended
            && *began >= asked
        {
            return Arc::clone(answers);
        }
        let began = Instant::now();
        // Counted before anything is awaited: who asks may give up and leave this call half answered.
        latest.number += 1;
        let cores = self.gather(latest.number, began + PATIENCE).await;
        let answers = Arc::new(Answers { cores, took: began.elapsed() });
        latest.ended = Some((began, Arc::clone(&answers)));
        answers
    }

    async fn gather(&self, number: u64, until: Instant) -> Vec<Answer> {
        let Shared { entries, told } = &*self.shared;
        for (core, entry) in entries.iter().enumerate() {
            entry.called.0.store(number, Ordering::Relaxed);
            self.doors.wake(core);
        }
        let mut answers: Vec<Option<Answer>> = entries.iter().map(|_| None).collect();
        loop {
            for (answer, entry) in answers.iter_mut().zip(entries) {
                *answer = answer.take().or_else(|| entry.answer_to(number));
            }
            let all = answers.iter().all(Option::is_some);
            if all || tokio::time::timeout_at(until, told.notified()).await.is_err() {
                return answers.into_iter().map(|answer| answer.unwrap_or(Answer::Silent)).collect();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;
    use crate::status::Reactor;

    fn runtime(paused: bool) -> tokio::runtime::Runtime {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder.enable_time().start_paused(paused).build().expect("a runtime")
    }

    /// A core that takes turns until it is told to end, and says how many calls it has answered.
    fn core(mut seat: Seat, end: &AtomicU64) {
        seat.sit();
        let mut answers = 0;
        while end.load(Ordering::Relaxed) == 0 {
            if let Some(call) = seat.called() {
                answers += 1;
                seat.answer(call, |says| says.reactor = Reactor { requests: answers, ..Reactor::default() });
            }
            thread::yield_now();
        }
    }

    fn said(answer: &Answer) -> Option<u64> {
        if let Answer::Says(says) = answer { Some(says.reactor.requests) } else { None }
    }

    #[test]
    fn every_core_is_called_once_for_all_who_ask_while_it_is_called() {
        let (roll, seats) = roll([1, 1, 1], Doors::new(3));
        let end = AtomicU64::new(0);
        thread::scope(|scope| {
            for seat in seats {
                scope.spawn(|| core(seat, &end));
            }
            runtime(false).block_on(async {
                let calls = || async { said(&roll.call().await.cores[0]) };
                // A core that has not sat down yet is starting: the first answer of all is waited for.
                while roll.call().await.cores.iter().any(|answer| said(answer).is_none()) {}
                let before = calls().await.expect("it answers");
                let (a, b, c) = tokio::join!(calls(), calls(), calls());
                assert_eq!((a, b, c), (Some(before + 1), Some(before + 2), Some(before + 2)));
            });
            end.store(1, Ordering::Relaxed);
        });
        // They are gone, and that is known at once.
        let answers = runtime(false).block_on(roll.call());
        assert!(answers.cores.iter().all(|answer| matches!(answer, Answer::Gone)), "{answers:?}");
        assert!(answers.took < PATIENCE);
    }

    #[test]
    fn who_does_not_answer_is_silent_and_the_others_are_heard() {
        let (roll, mut seats) = roll([1, 2, 0], Doors::new(3));
        seats[0].sit();
        seats[1].sit();
        runtime(true).block_on(async {
            let call = roll.call();
            let mut call = std::pin::pin!(call);
            let waits = tokio::time::timeout(PATIENCE / 2, &mut call).await;
            assert!(waits.is_err(), "nobody has answered");
            let number = seats[1].called().expect("it is called");
            seats[1].answer(number, |says| says.reactor.requests = 7);
            let answers = call.await;
            let [Answer::Silent, Answer::Says(says), Answer::Starting] = &answers.cores[..] else {
                panic!("{answers:?}")
            };
            assert_eq!(says.reactor.requests, 7);
            assert!(answers.took >= PATIENCE && answers.took < 2 * PATIENCE);
        });
    }

    /// A peer that goes away while its call is under way leaves a call that some cores answer late.
    #[test]
    fn a_late_answer_to_an_earlier_call_is_not_taken_for_one_to_this() {
        let (roll, mut seats) = roll([1], Doors::new(1));
        seats[0].sit();
        runtime(false).block_on(async {
            {
                let given_up = std::pin::pin!(roll.call());
                assert!(tokio::time::timeout(Duration::ZERO, given_up).await.is_err());
            }
            let late = seats[0].called().expect("it is called");
            let mut call = std::pin::pin!(roll.call());
            assert!(tokio::time::timeout(Duration::ZERO, &mut call).await.is_err());
            seats[0].answer(late, |says| says.reactor.requests = 1);
            assert!(
                tokio::time::timeout(Duration::ZERO, &mut call).await.is_err(),
                "that was the one before"
            );
            let number = seats[0].called().expect("it is called again");
            assert_ne!(number, late);
            seats[0].answer(number, |says| says.reactor.requests = 2);
            assert_eq!(said(&call.await.cores[0]), Some(2));
            assert_eq!(seats[0].called(), None);
        });
    }

    #[test]
    fn an_answer_is_filled_into_the_place_of_the_one_before() {
        let (roll, mut seats) = roll([3], Doors::new(1));
        seats[0].sit();
        let mut places = Vec::new();
        for call in 1..4 {
            seats[0].answer(call, |says| {
                says.logs.clear();
                says.logs.extend((0..3).map(|_| corelog_shard::ShardStatus::default()));
                places.push(says.logs.as_ptr());
            });
        }
        assert!(places.iter().all(|place| *place == places[0]));
        drop(roll);
    }
}
