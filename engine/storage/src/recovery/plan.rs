//! Which extents are the log, in which order. Pure.
//!
//! From the newest first frame that verifies, its seal leads to the extent before it, and so on back to the one
//! that holds the newest checkpoint. A file that the seals pass by is not of the log: its first frame was
//! superseded, or it is an extent of an earlier time.

use crate::frame::{FrameHeader, Seal};

/// An extent file and its first frame's header, if that verifies.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Candidate {
    pub(crate) extent: u32,
    pub(crate) first: Option<FrameHeader>,
    /// Its first sector cannot be read: there may be a first frame.
    pub(crate) is_unreadable: bool,
}

/// An extent to be scanned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Planned {
    pub(crate) extent: u32,
    pub(crate) generation: u64,
    /// How its successor closed it; `None` for the newest.
    pub(crate) seal: Option<Seal>,
    /// Its first frame is known to have been durable.
    pub(crate) begun: bool,
}

/// The extent whose first frame closed the one of `generation`; the newest where several tried.
pub(crate) fn successor(candidates: &[Candidate], generation: u64) -> Option<(u32, FrameHeader)> {
    let firsts = candidates.iter().filter_map(|candidate| Some((candidate.extent, candidate.first?)));
    firsts.filter(|(_, first)| first.seal.generation == generation).max_by_key(|(_, first)| first.generation)
}

/// Passes over first frames that lie in another extent than their generation: they were written to a wrong file, where
/// their sums hold as well, for those know of no file. And over those of an earlier use of their extent: what was to
/// overwrite them never did. Where a generation lies is told by `known`, and by the seal that closed it.
pub(crate) fn pass_strays(candidates: &mut [Candidate], known: impl Iterator<Item = (u64, u32)>) {
    let seals = candidates.iter().filter_map(|candidate| candidate.first).map(|first| first.seal);
    let known: Vec<_> = seals.map(|seal| (seal.generation, seal.extent)).chain(known).collect();
    for candidate in candidates {
        let strays = |first: &FrameHeader| {
            known.iter().any(|(generation, extent)| match *extent == candidate.extent {
                true => *generation > first.generation,
                false => *generation == first.generation,
            })
        };
        candidate.first.take_if(|first| strays(first));
    }
}

/// Whether a newer extent was begun behind the same one: the frame's own never came to be, or is nobody's.
pub(crate) fn is_superseded(candidates: &[Candidate], first: &FrameHeader) -> bool {
    let mut firsts = candidates.iter().filter_map(|candidate| candidate.first);
    firsts.any(|other| other.seal.generation == first.seal.generation && other.generation > first.generation)
}

/// The extents after generation `covered`, oldest first. `named` lies among them where it is newer: what the superblock has
/// checkpoints in. `head` was durable when it was written.
pub(crate) fn chain(
    candidates: &[Candidate],
    covered: u64,
    named: &[(u32, u64)],
    head: (u32, u64),
) -> Vec<Planned> {
    let least = covered + 1;
    let firsts = || {
        let verified = candidates.iter().filter_map(|candidate| Some((candidate.extent, candidate.first?)));
        verified.filter(|(_, first)| first.generation >= least)
    };
    let (head_extent, head_generation) = head;
    let newest = firsts().max_by_key(|(_, first)| first.generation);
    let mut chain = Vec::new();
    let mut next = match newest {
        Some((extent, first)) if first.generation >= head_generation => {
            Some((extent, first.generation, first.generation == head_generation))
        }
        // The first frame of the head was durable, and is damaged.
        _ if head_generation >= least && head_generation > 0 => Some((head_extent, head_generation, true)),
        _ => None,
    };
    let mut seal = None;
    while let Some((extent, generation, begun)) = next.take() {
        chain.push(Planned { extent, generation, seal, begun: begun || seal.is_some() });
        if generation == least {
            break;
        }
        let first = firsts().find(|(at, first)| *at == extent && first.generation == generation);
        let older = match first {
            Some((_, first)) => (first.seal.generation > 0).then_some(first.seal),
            // Without its first frame nobody says what came before; the next older one there is, is the best guess.
            None => firsts()
                .filter(|(_, first)| first.generation < generation)
                .max_by_key(|(_, first)| first.generation)
                .map(|(extent, first)| Seal {
                    extent,
                    generation: first.generation,
                    position: u64::MAX,
                    sequence: 0,
                }),
        };
        if let Some(older) = older.filter(|older| older.generation >= least) {
            // An open end: the scan of the older extent finds it.
            seal = (older.position != u64::MAX).then_some(older);
            next = Some((older.extent, older.generation, true));
        }
    }
    // Where first frames of several in a row are lost, no seal leads to these.
    for &(extent, generation) in named.iter().filter(|(_, generation)| *generation >= least) {
        if chain.iter().all(|planned| planned.generation != generation) {
            chain.push(Planned { extent, generation, seal: None, begun: true });
        }
    }
    chain.sort_by_key(|planned| planned.generation);
    chain
}

#[cfg(test)]
mod tests {
    use super::*;
    use corelog_model::{LogId, Term};

    fn first(extent: u32, generation: u64, sealed: (u32, u64)) -> Candidate {
        let seal = Seal { extent: sealed.0, generation: sealed.1, position: 8192, sequence: generation };
        let header = FrameHeader {
            crc: 0,
            flags: 1,
            log: LogId(0),
            entries: 0,
            generation,
            sequence: generation * 10,
            position: 0,
            length: 4096,
            used: 128,
            durable_sequence: 0,
            in_flight_limit: 1,
            term: Term(1),
            previous_crc: 0,
            entries_crc: 0,
            wall_us: 0,
            seal,
        };
        Candidate { extent, first: Some(header), is_unreadable: false }
    }

    fn none(extent: u32) -> Candidate {
        Candidate { extent, first: None, is_unreadable: false }
    }

    fn generations(planned: &[Planned]) -> Vec<u64> {
        planned.iter().map(|planned| planned.generation).collect()
    }

    #[test]
    fn the_seals_lead_from_the_newest_extent_back_to_the_checkpoint() {
        let all = [first(0, 1, (0, 0)), first(1, 2, (0, 1)), first(2, 66, (1, 2)), first(3, 67, (2, 66))];
        assert_eq!(generations(&chain(&all, 0, &[], (0, 0))), [1, 2, 66, 67]);
        assert_eq!(generations(&chain(&all, 1, &[(1, 2)], (3, 67))), [2, 66, 67]);
        assert_eq!(generations(&chain(&all, 66, &[(3, 67)], (3, 67))), [67]);
        let planned = chain(&all, 0, &[], (3, 67));
        assert!(planned[3].seal.is_none() && planned[3].begun);
        assert_eq!(planned[2].seal.map(|seal| seal.generation), Some(66));
    }

    #[test]
    fn an_extent_that_was_superseded_is_passed_by() {
        // 66 failed on its first frame and 67 sealed the same extent again.
        let all = [first(0, 1, (0, 0)), first(1, 66, (0, 1)), first(2, 67, (0, 1))];
        assert_eq!(generations(&chain(&all, 0, &[], (0, 1))), [1, 67]);
    }

    #[test]
    fn a_first_frame_in_the_file_of_another_extent_is_passed_over() {
        // That of 66 went to extent 0, over that of 1.
        let mut all = [first(0, 66, (1, 2)), first(1, 2, (0, 1)), none(2)];
        pass_strays(&mut all, [(66, 2)].into_iter());
        assert!(all[0].first.is_none() && all[1].first.is_some());
        assert_eq!(generations(&chain(&all, 1, &[], (2, 66))), [2, 66]);
        // The superblock has gone on since; the next one's seal tells.
        let mut all = [first(0, 66, (1, 2)), first(1, 2, (0, 1)), first(3, 67, (2, 66))];
        pass_strays(&mut all, [(67, 3)].into_iter());
        assert_eq!(generations(&chain(&all, 1, &[], (3, 67))), [2, 66, 67]);
    }

    /// It was planned for both uses, and so was one file in two roles.
    #[test]
    fn a_first_frame_of_an_earlier_use_is_passed_over() {
        // Extent 1 was used for 66, then for 130; the first frame of 130 was lost on its way.
        let sealed = [first(0, 65, (2, 64)), first(1, 66, (0, 65)), first(3, 131, (1, 130))];
        let mut all = sealed;
        pass_strays(&mut all, [(131, 3)].into_iter());
        assert!(all[1].first.is_none() && all[0].first.is_some());
        assert_eq!(generations(&chain(&all, 64, &[], (3, 131))), [65, 130, 131]);
        // As the head it is told of by the superblock.
        let mut all = [sealed[0], sealed[1]];
        pass_strays(&mut all, [(130, 1)].into_iter());
        assert_eq!(generations(&chain(&all, 64, &[], (1, 130))), [65, 130]);
    }

    #[test]
    fn a_head_whose_first_frame_is_damaged_is_missed() {
        let all = [first(0, 1, (0, 0)), none(1)];
        let planned = chain(&all, 0, &[], (1, 2));
        assert_eq!(generations(&planned), [1, 2]);
        assert!(planned[1].begun, "its loss is damage, not a tail");
        assert_eq!(generations(&chain(&all, 0, &[], (0, 1))), [1], "never durable, never missed");
    }

    /// It was taken for a spare and written over, and the superblock still named the checkpoint in it.
    #[test]
    fn an_extent_that_the_superblock_names_is_of_the_log_though_no_seal_leads_to_it() {
        // The first frames of 66 and of 67 are lost: it was the seal of 67 that led to 66.
        let all = [first(0, 1, (0, 0)), first(1, 2, (0, 1)), none(2), none(3)];
        let named = [(1, 2), (2, 66), (3, 67)];
        assert_eq!(generations(&chain(&all, 2, &named, (3, 67))), [66, 67]);
        assert_eq!(generations(&chain(&all, 66, &named, (3, 67))), [67], "the checkpoints tell of it");
    }

    #[test]
    fn an_empty_directory_has_no_chain() {
        assert!(chain(&[], 0, &[], (0, 0)).is_empty());
    }
}
