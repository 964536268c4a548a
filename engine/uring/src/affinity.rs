//! Cores, and threads that stay on one.

use std::sync::OnceLock;

use core_affinity::CoreId;
use rustix::thread::{CpuSet, sched_setaffinity, sched_yield};

/// The cores this process may use, ascending. Read once, because a pinned thread sees only its own core: the
/// first call belongs at the start of the program.
pub fn cores() -> &'static [usize] {
    static CORES: OnceLock<Vec<usize>> = OnceLock::new();
    CORES.get_or_init(|| {
        let mut cores: Vec<usize> =
            core_affinity::get_core_ids().unwrap_or_default().into_iter().map(|core| core.id).collect();
        cores.sort_unstable();
        cores
    })
}

/// Keeps the calling thread on `core`; false when it is none of [`cores`] or the system refuses.
pub fn pin(core: usize) -> bool {
    // Asking first also reads the mask before it shrinks to one core.
    cores().contains(&core) && core_affinity::set_for_current(CoreId { id: core })
}

/// Keeps the calling thread on these cores, whichever of them is free; false when one is none of [`cores`], there are
/// none, or the system refuses.
pub fn pin_to(these: &[usize]) -> bool {
    let known = these.iter().all(|core| cores().contains(core) && *core < CpuSet::MAX_CPU);
    known && !these.is_empty() && keep_on(these)
}

/// Lets the calling thread run on all [`cores`] again, as far as the system allows.
pub fn unpin() {
    // Refused, it stays where it is, which is only slower.
    keep_on(cores());
}

fn keep_on(these: &[usize]) -> bool {
    let mut set = CpuSet::new();
    these.iter().filter(|&&core| core < CpuSet::MAX_CPU).for_each(|&core| set.set(core));
    sched_setaffinity(None, &set).is_ok()
}

/// Lets another thread that waits for this core run first.
pub fn give_way() {
    sched_yield();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pinned_thread_still_knows_all_cores() {
        let before = cores();
        assert!(!before.is_empty());
        let last = before[before.len() - 1];
        std::thread::spawn(move || {
            assert!(pin(last));
            assert_eq!(cores(), before);
            assert_eq!(core_affinity::get_core_ids().map(|ids| ids.len()), Some(1), "it is pinned");
            unpin();
            assert_eq!(core_affinity::get_core_ids().map(|ids| ids.len()), Some(before.len()), "no longer");
            assert!(pin_to(&[last]) && !pin_to(&[]) && !pin_to(&[last, usize::MAX]));
            assert_eq!(
                core_affinity::get_core_ids().map(|ids| ids.len()),
                Some(1),
                "the last one that could be"
            );
            assert!(pin_to(before));
            assert_eq!(core_affinity::get_core_ids().map(|ids| ids.len()), Some(before.len()), "to all");
        })
        .join()
        .expect("the thread ends");
    }
}
