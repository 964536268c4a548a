//! The allocator that counts, and who may ask it.
//!
//! **Invariant:** at most one [`Watch`] at a time; frees are not counted, because a thread that frees without
//! allocating is only clearing up what others made.

use std::alloc::{GlobalAlloc, Layout, System};
use std::backtrace::Backtrace;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Allocations whose place is remembered: the first ones lead to the rest.
const PLACES: usize = 200;
/// How the frames of our own code begin.
const OURS: [&str; 2] = ["corelog_", "allocations::one_"];

#[global_allocator]
static COUNTING: Counting = Counting;

/// The thread that is counted; 0 for none.
static WATCHED: AtomicI32 = AtomicI32::new(0);
static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);
static FOUND: Mutex<Vec<Backtrace>> = Mutex::new(Vec::new());
/// Held by the one watch there is.
static WATCHING: Mutex<()> = Mutex::new(());

thread_local! {
    /// This thread's id, once asked for; constant and without a destructor, so that an allocator may use it.
    static THREAD: Cell<i32> = const { Cell::new(0) };
    /// Taking a backtrace allocates too.
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}

struct Counting;

#[expect(
    unsafe_code,
    reason = "an allocator can only be replaced by an unsafe trait; it hands on what it is given"
)]
// SAFETY: every call goes to the system's allocator unchanged, and counting neither unwinds nor frees.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's promise about the layout is handed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's promise about the layout is handed on.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        count();
        // SAFETY: the pointer came from the system's allocator with this layout, as all of ours do.
        unsafe { System.realloc(pointer, layout, bytes) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the pointer came from the system's allocator with this layout, as all of ours do.
        unsafe { System.dealloc(pointer, layout) }
    }
}

fn count() {
    let watched = WATCHED.load(Ordering::Relaxed);
    if watched == 0 || watched != this_thread() || INSIDE.get() {
        return;
    }
    if ALLOCATIONS.fetch_add(1, Ordering::Relaxed) < PLACES as u64 {
        INSIDE.set(true);
        found().push(Backtrace::force_capture());
        INSIDE.set(false);
    }
}

fn this_thread() -> i32 {
    if THREAD.get() == 0 {
        THREAD.set(rustix::thread::gettid().as_raw_nonzero().get());
    }
    THREAD.get()
}

fn found() -> MutexGuard<'static, Vec<Backtrace>> {
    FOUND.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Counts one thread while it lives.
pub(crate) struct Watch {
    _only: MutexGuard<'static, ()>,
}

/// What a watch saw.
pub(crate) struct Counted {
    pub(crate) allocations: u64,
    places: Vec<Backtrace>,
}

impl Watch {
    /// Counts the allocations of the thread with this id from now on.
    pub(crate) fn thread(id: i32) -> Self {
        let only = WATCHING.lock().unwrap_or_else(PoisonError::into_inner);
        found().clear();
        ALLOCATIONS.store(0, Ordering::SeqCst);
        WATCHED.store(id, Ordering::SeqCst);
        Self { _only: only }
    }

    /// Allocations until now.
    pub(crate) fn so_far(&self) -> u64 {
        ALLOCATIONS.load(Ordering::SeqCst)
    }

    /// Stops counting.
    pub(crate) fn end(self) -> Counted {
        WATCHED.store(0, Ordering::SeqCst);
        Counted { allocations: self.so_far(), places: std::mem::take(&mut *found()) }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        WATCHED.store(0, Ordering::SeqCst);
    }
}

impl fmt::Display for Counted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} allocations, the first of them here:", self.allocations)?;
        let mut places: BTreeMap<String, u32> = BTreeMap::new();
        for place in &self.places {
            *places.entry(own_frames(&place.to_string())).or_default() += 1;
        }
        places.iter().try_for_each(|(place, times)| writeln!(f, "{times} x\n{place}"))
    }
}

/// The frames of our own code, innermost first, with their lines.
fn own_frames(backtrace: &str) -> String {
    let lines: Vec<&str> = backtrace.lines().map(str::trim).collect();
    let frames = lines.iter().enumerate().filter_map(|(at, line)| {
        let ours = OURS.iter().any(|name| line.split_once(": ").is_some_and(|(_, path)| path.contains(name)));
        let place = lines.get(at + 1).filter(|next| next.starts_with("at ")).copied().unwrap_or_default();
        ours.then(|| format!("    {line} {place}\n"))
    });
    frames.collect()
}
