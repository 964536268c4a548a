//! The mail between the cores of a broker: a lane from each to each other, and how a core that sleeps is woken.
//!
//! **Invariants:** what is sent from one core to one other arrives once and in order; nothing is lost while both run. A
//! lane that is full is waited for here, by the sender, in a queue that what may be under way bounds: a letter, a
//! connection or a request each has few parcels, and all of those are counted elsewhere. Who waits for room may sleep:
//! who makes some wakes it.
//!
//! Every word that two cores, or a core and the control plane, share:
//!
//! | word | written by | read by | when |
//! |---|---|---|---|
//! | a lane's slots and its two counters, on cache lines of their own | its sender, its receiver | the other | a parcel is sent, taken |
//! | a lane's `awaited`, on cache lines of its own | its sender when it sleeps beside the full lane, its receiver | its receiver | parcels are taken |
//! | a core's `parked` | the core when it sleeps and wakes, once by who wakes it | who has sent it a parcel or calls it | a parcel is sent, a roll called |
//! | a core's `ring` and `waker` | the core, once | who wakes it | |
//! | a core's `called` ([`crate::roll`]), on cache lines of its own | the control plane | the core, each turn | a roll is called |
//! | a core's `answered`, `presence` and what it says | the core | the control plane | a roll is called |
//! | a core's `settled` | the core, while it stops | all, while they stop | |
//! | the word to stop ([`crate::Stop`]) | a signal, once | all, each turn | |
//! | counts of mappings and of topics' names (`Arc`) | who makes and drops regions, topics | | a start, a stop, a change of topics |
//!
//! No word is written by one core, or the control plane, and read by another for a record on its way, unless its request came to another core
//! than its log's: then those of the lanes.

use std::collections::VecDeque;
use std::mem;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use corelog_uring::arena::Region;
use corelog_uring::lane::{Parking, Receiver, Sender, lane};
use corelog_uring::ring::Ring;
use corelog_uring::waker::Waker;

use crate::core::Parcel;

/// Parcels that a lane holds.
pub(crate) const LANE_PARCELS: usize = 1024;
/// Parcels taken from one lane in one turn.
const PARCELS_A_TURN: usize = 256;

/// Where a core can be woken: known to all.
#[derive(Debug, Default)]
struct Door {
    parking: Parking,
    /// Its ring, from the time on that there is one; it cannot sleep before.
    ring: OnceLock<OwnedFd>,
    /// For who has no ring to knock with.
    waker: OnceLock<Waker>,
    /// It was told to stop, and owes nobody anything.
    settled: AtomicBool,
}

/// The doors of all cores of a broker.
#[derive(Clone, Debug)]
pub(crate) struct Doors(Arc<[Door]>);

/// The mail of one core.
#[derive(Debug)]
pub(crate) struct Post {
    core: usize,
    doors: Doors,
    /// By core; none to itself.
    peers: Vec<Option<Peer>>,
}

#[derive(Debug)]
struct Peer {
    to: Sender<Parcel>,
    from: Receiver<Parcel>,
    /// Found no room, oldest first.
    waiting: VecDeque<Parcel>,
    /// Something was sent, or room made that it waits for, since it was last asked whether the peer sleeps.
    told: bool,
}

impl Doors {
    /// Of so many cores that have not started.
    pub(crate) fn new(cores: usize) -> Self {
        Self((0..cores).map(|_| Door::default()).collect())
    }

    /// Wakes a core if it sleeps, from a thread that is none of them: it has written what the core looks at once more
    /// before it sleeps.
    pub(crate) fn wake(&self, core: usize) {
        let door = &self.0[core];
        if door.parking.is_to_be_woken()
            && let Some(waker) = door.waker.get()
        {
            waker.wake();
        }
    }
}

/// The mail of all cores, by core, in lanes of so many parcels.
pub(crate) fn posts(doors: &Doors, lane_parcels: usize) -> Vec<Post> {
    let cores = doors.0.len();
    let post = |core| Post { core, doors: doors.clone(), peers: (0..cores).map(|_| None).collect() };
    let mut posts: Vec<Post> = (0..cores).map(post).collect();
    for a in 0..cores {
        for b in 0..a {
            let ((to_b, from_a), (to_a, from_b)) = (lane(lane_parcels), lane(lane_parcels));
            posts[a].peers[b] = Some(Peer::new(to_b, from_b));
            posts[b].peers[a] = Some(Peer::new(to_a, from_a));
        }
    }
    posts
}

impl Peer {
    const fn new(to: Sender<Parcel>, from: Receiver<Parcel>) -> Self {
        Self { to, from, waiting: VecDeque::new(), told: false }
    }

    /// Puts into the lane what there is room for; whether that was anything.
    fn fill(&mut self) -> bool {
        let before = self.waiting.len();
        while let Some(parcel) = self.waiting.pop_front() {
            if let Err(parcel) = self.to.push(parcel) {
                self.waiting.push_front(parcel);
                break;
            }
        }
        let sent = self.waiting.len() < before;
        self.told |= sent;
        sent
    }
}

impl Post {
    /// The ring that this core sleeps in.
    pub(crate) fn open(&self, ring: &Ring) -> Result<(), corelog_uring::RingError> {
        let (fd, door) = (ring.fd()?, &self.doors.0[self.core]);
        door.ring.set(fd).expect("a core has one ring");
        door.waker.set(ring.waker()).expect("a core has one ring");
        Ok(())
    }

    /// Tells all other cores where blocks of this one are.
    pub(crate) fn announce(&mut self, regions: &[Region]) {
        for peer in self.peers.iter_mut().flatten() {
            peer.waiting.extend(regions.iter().cloned().map(Parcel::Region));
        }
    }

    /// Appends what has come, with the core it comes from. Who waited for room to send more is woken by the next
    /// [`Post::send`].
    pub(crate) fn collect(&mut self, arrived: &mut Vec<(usize, Parcel)>) {
        for (core, peer) in self.peers.iter_mut().enumerate() {
            let Some(peer) = peer else { continue };
            let before = arrived.len();
            for _ in 0..PARCELS_A_TURN {
                let Some(parcel) = peer.from.pop() else { break };
                arrived.push((core, parcel));
            }
            peer.told |= arrived.len() > before && peer.from.is_awaited();
        }
    }

    /// Sends, and queues for the ring what wakes the cores that sleep.
    pub(crate) fn send(&mut self, parcels: &mut Vec<(usize, Parcel)>, ring: &mut Ring) {
        self.put(parcels);
        self.catch_up(ring);
    }

    /// Sends of what waits for room in a lane as much as there is room for by now; whether that was anything.
    pub(crate) fn catch_up(&mut self, ring: &mut Ring) -> bool {
        let sent = self.fill();
        for (core, door) in self.sleepers() {
            // A core sleeps in its ring, so there is one.
            if let Some(fd) = door.ring.get() {
                ring.knock(fd, core as u32);
            }
        }
        sent
    }

    /// A knock at this core's ring did not arrive. Nobody else will knock, as the core's own word says that it was woken: it
    /// is woken as by who has no ring.
    pub(crate) fn unheard(&self, core: usize) {
        if let Some(waker) = self.doors.0[core].waker.get() {
            waker.wake();
        }
    }

    /// Behind what waits for room already.
    pub(crate) fn put(&mut self, parcels: &mut Vec<(usize, Parcel)>) {
        for (core, parcel) in parcels.drain(..) {
            let peer = self.peers[core].as_mut().expect("a core sends nothing to itself");
            peer.waiting.push_back(parcel);
        }
    }

    /// Puts into the lanes what there is room for; whether that was anything.
    pub(crate) fn fill(&mut self) -> bool {
        self.peers.iter_mut().flatten().map(Peer::fill).filter(|&sent| sent).count() > 0
    }

    /// The cores that sleep beside something this one has done for them. Each is said to once.
    fn sleepers(&mut self) -> impl Iterator<Item = (usize, &Door)> {
        let doors = self.peers.iter_mut().zip(&*self.doors.0).enumerate();
        doors.filter_map(|(core, (peer, door))| {
            let told = mem::take(&mut peer.as_mut()?.told);
            (told && door.parking.is_to_be_woken()).then_some((core, door))
        })
    }

    /// About to sleep: whether nothing has come, and nothing that waits for room has any. [`Post::awake`] is next, either
    /// way.
    pub(crate) fn may_sleep(&mut self) -> bool {
        self.doors.0[self.core].parking.enter();
        let idle =
            |peer: &mut Peer| peer.from.is_empty() && (peer.waiting.is_empty() || peer.to.awaits_room());
        self.peers.iter_mut().flatten().all(idle)
    }

    /// Does not sleep, or no longer.
    pub(crate) fn awake(&self) {
        self.doors.0[self.core].parking.leave();
    }

    /// This core was told to stop and owes nobody anything; whether that is so of all.
    pub(crate) fn settle(&self, settled: bool) -> bool {
        self.doors.0[self.core].settled.store(settled, Ordering::SeqCst);
        self.doors.0.iter().all(|door| door.settled.load(Ordering::SeqCst))
    }

    /// Whether parcels wait for room in a lane: [`Post::catch_up`] is to be asked now and then.
    pub(crate) fn is_behind(&self) -> bool {
        self.peers.iter().flatten().any(|peer| !peer.waiting.is_empty())
    }
}

#[cfg(test)]
mod tests;
