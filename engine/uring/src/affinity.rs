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

/// Keeps the calling thread on these cores; false when none of them is one of [`cores`] or the system refuses.
pub fn confine(to: &[usize]) -> bool {
    let mut some = CpuSet::new();
    for &core in to.iter().filter(|&&core| core < CpuSet::MAX_CPU && cores().contains(&core)) {
        some.set(core);
    }
    some.count() > 0 && sched_setaffinity(None, &some).is_ok()
}

/// Lets the calling thread run on all [`cores`] again, as far as the system allows.
pub fn unpin() {
    // Refused, it stays where it is, which is only slower.
    let _ = confine(cores());
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
            assert!(confine(&[last, usize::MAX]), "what there is of them");
            assert_eq!(core_affinity::get_core_ids().map(|ids| ids.len()), Some(1));
            assert!(!confine(&[]) && !confine(&[usize::MAX]), "nowhere is no place");
        })
        .join()
        .expect("the thread ends");
    }
}
