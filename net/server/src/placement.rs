//! Which cores the shards run on: what the operator says, on the machine that is there.
//!
//! Pure: the machine is an argument. A shard takes a physical core before any core is given twice to siblings.

use std::fmt;

use corelog_uring::topology::{Cpu, Topology, ids};

use crate::config::MAX_SHARDS;

/// How many shards there are to be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Shards {
    /// As many as the cores allow; on larger machines some are left to the control plane and to interrupts.
    #[default]
    Auto,
    /// So many.
    Count(u16),
}

/// Which processors they may have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Cpus {
    /// All that the process may use.
    #[default]
    All,
    /// Wherever the system puts them, unpinned: for brokers inside of tests.
    Any,
    /// So many, the best ones.
    Count(usize),
    /// These.
    These(Vec<usize>),
    /// Some of each of these memory nodes.
    Numa {
        /// The nodes; none: all.
        nodes: Vec<usize>,
        /// Processors of each node; `None`: all.
        cores: Option<usize>,
        /// One of each set of siblings only.
        no_ht: bool,
    },
}

/// The shards cannot be placed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PlacementError {
    /// The process may not use this processor, or there is none of this number.
    NoSuchCpu {
        /// The one asked for.
        cpu: usize,
    },
    /// A processor is given to two shards.
    Twice {
        /// Which one.
        cpu: usize,
    },
    /// There is no such memory node, or the process may use nothing of it.
    NoSuchNode {
        /// The one asked for.
        node: usize,
    },
    /// Fewer processors than shards.
    TooFew {
        /// Shards asked for.
        shards: usize,
        /// Processors that there are for them.
        cpus: usize,
    },
}

impl fmt::Display for PlacementError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSuchCpu { cpu } => {
                write!(f, "this process may not use processor {cpu}, or there is none")
            }
            Self::Twice { cpu } => write!(f, "processor {cpu} is named twice"),
            Self::NoSuchNode { node } => write!(f, "this process may use nothing of memory node {node}"),
            Self::TooFew { shards, cpus } => {
                write!(f, "each shard takes a processor: {shards} shards, and {cpus} may be used")
            }
        }
    }
}

impl std::error::Error for PlacementError {}

impl Cpus {
    /// What an operator writes: `all`, `any`, a number of processors, a list such as `0-3,8` (one alone is `3-3`), or
    /// `numa:nodes=0,1;cores=4;no_ht=true`, of which each part may be left out.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "all" => return Some(Self::All),
            "any" => return Some(Self::Any),
            _ => {}
        }
        if let Some(parts) = text.strip_prefix("numa:") {
            return Self::parse_numa(parts);
        }
        if let Ok(count) = text.parse() {
            return (count > 0).then_some(Self::Count(count));
        }
        ids(text).filter(|ids| !ids.is_empty()).map(Self::These)
    }

    fn parse_numa(parts: &str) -> Option<Self> {
        let (mut nodes, mut cores, mut no_ht) = (Vec::new(), None, false);
        for part in parts.split(';').filter(|part| !part.is_empty()) {
            match part.split_once('=')? {
                ("nodes", "all") => nodes.clear(),
                ("nodes", list) => nodes = ids(list).filter(|nodes| !nodes.is_empty())?,
                ("cores", "all") => cores = None,
                ("cores", count) => cores = Some(count.parse().ok().filter(|&count| count > 0)?),
                ("no_ht", flag) => no_ht = flag.parse().ok()?,
                _ => return None,
            }
        }
        Some(Self::Numa { nodes, cores, no_ht })
    }
}

impl fmt::Display for Cpus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |f: &mut fmt::Formatter<'_>, ids: &[usize]| {
            ids.iter().enumerate().try_for_each(|(at, id)| {
                // One alone would be a number of processors.
                write!(f, "{}{id}-{id}", if at > 0 { "," } else { "" })
            })
        };
        match self {
            Self::All => f.write_str("all"),
            Self::Any => f.write_str("any"),
            Self::Count(count) => write!(f, "{count}"),
            Self::These(ids) => list(f, ids),
            Self::Numa { nodes, cores, no_ht } => {
                f.write_str("numa:")?;
                if !nodes.is_empty() {
                    f.write_str("nodes=")?;
                    list(f, nodes)?;
                    f.write_str(";")?;
                }
                if let Some(cores) = cores {
                    write!(f, "cores={cores};")?;
                }
                write!(f, "no_ht={no_ht}")
            }
        }
    }
}

/// The processor of each shard; `None` for one that is not pinned.
pub fn place(topology: &Topology, shards: Shards, cpus: &Cpus) -> Result<Vec<Option<usize>>, PlacementError> {
    if *cpus == Cpus::Any {
        let count = if let Shards::Count(count) = shards { count } else { 1 };
        return Ok(vec![None; count.into()]);
    }
    let chosen = chosen(topology, cpus)?;
    let most = usize::from(MAX_SHARDS);
    let count = match shards {
        Shards::Count(count) => count.into(),
        // A machine that was divided by hand is left as it was divided.
        Shards::Auto if *cpus != Cpus::All => most.min(topology.within_quota(chosen.len())),
        Shards::Auto => most.min(sensible(topology.within_quota(physical(&chosen)))),
    };
    if count > chosen.len() {
        return Err(PlacementError::TooFew { shards: count, cpus: chosen.len() });
    }
    Ok(chosen[..count].iter().map(|cpu| Some(cpu.id)).collect())
}

/// The processors for what is no shard: those that no shard has, of cores that no shard has where there are such; none
/// where all are taken, or where the shards are not pinned.
pub fn beside(topology: &Topology, shards: &[Option<usize>]) -> Vec<usize> {
    if shards.contains(&None) {
        return Vec::new();
    }
    let taken = |cpu: &Cpu| shards.contains(&Some(cpu.id));
    let core = |cpu: &Cpu| (cpu.package, cpu.core);
    let cores: Vec<_> = topology.cpus.iter().filter(|cpu| taken(cpu)).map(core).collect();
    let free = || topology.cpus.iter().filter(|cpu| !taken(cpu));
    let apart: Vec<usize> = free().filter(|cpu| !cores.contains(&core(cpu))).map(|cpu| cpu.id).collect();
    if apart.is_empty() { free().map(|cpu| cpu.id).collect() } else { apart }
}

/// All processors that are meant, the best first; none for [`Cpus::Any`], which means none in particular.
pub fn processors(topology: &Topology, cpus: &Cpus) -> Result<Vec<usize>, PlacementError> {
    match cpus {
        Cpus::Any => Ok(Vec::new()),
        _ => Ok(chosen(topology, cpus)?.iter().map(|cpu| cpu.id).collect()),
    }
}

/// Of so many cores, those that serve: from three on one is left to everything else, from sixteen on one in sixteen more.
fn sensible(cores: usize) -> usize {
    match cores {
        0..=2 => cores,
        _ => cores - 1 - cores / 16,
    }
}

/// How many cores these are, siblings counted once.
fn physical(cpus: &[Cpu]) -> usize {
    let mut cores: Vec<_> = cpus.iter().map(|cpu| (cpu.package, cpu.core)).collect();
    cores.sort_unstable();
    cores.dedup();
    cores.len()
}

/// The processors that are meant, each once, the best first: one of each core before their siblings.
fn chosen(topology: &Topology, cpus: &Cpus) -> Result<Vec<Cpu>, PlacementError> {
    let chosen = named(topology, cpus)?;
    let twice = (1..chosen.len()).find(|&at| chosen[..at].contains(&chosen[at]));
    match twice {
        Some(at) => Err(PlacementError::Twice { cpu: chosen[at].id }),
        None => Ok(chosen),
    }
}

fn named(topology: &Topology, cpus: &Cpus) -> Result<Vec<Cpu>, PlacementError> {
    let all = &topology.cpus;
    let find = |id: usize| {
        let found = all.iter().find(|cpu| cpu.id == id).copied();
        found.ok_or(PlacementError::NoSuchCpu { cpu: id })
    };
    match cpus {
        Cpus::All | Cpus::Any => Ok(siblings_last(all)),
        Cpus::Count(count) => {
            let best = siblings_last(all);
            let few = PlacementError::TooFew { shards: *count, cpus: best.len() };
            best.get(..*count).map(<[Cpu]>::to_vec).ok_or(few)
        }
        Cpus::These(ids) => ids.iter().map(|&id| find(id)).collect(),
        Cpus::Numa { nodes, cores, no_ht } => {
            let mut nodes = nodes.clone();
            if nodes.is_empty() {
                nodes = all.iter().map(|cpu| cpu.node).collect();
                nodes.sort_unstable();
                nodes.dedup();
            }
            let mut chosen = Vec::new();
            for node in nodes {
                let here: Vec<Cpu> = all.iter().filter(|cpu| cpu.node == node).copied().collect();
                let mut best = siblings_last(&here);
                if *no_ht {
                    best.truncate(physical(&here));
                }
                let wanted = cores.unwrap_or(best.len());
                match best.len() {
                    0 => return Err(PlacementError::NoSuchNode { node }),
                    cpus if cpus < wanted => return Err(PlacementError::TooFew { shards: wanted, cpus }),
                    _ => chosen.extend_from_slice(&best[..wanted]),
                }
            }
            Ok(chosen)
        }
    }
}

fn siblings_last(cpus: &[Cpu]) -> Vec<Cpu> {
    let is_first = |cpu: &Cpu| {
        let first = cpus.iter().find(|other| (other.package, other.core) == (cpu.package, cpu.core));
        first.is_some_and(|first| first.id == cpu.id)
    };
    let (mut first, rest): (Vec<Cpu>, Vec<Cpu>) = cpus.iter().copied().partition(is_first);
    first.extend(rest);
    first
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two sockets of four cores with two threads each; the second threads are 8 to 15.
    fn large() -> Topology {
        let cpu = |id: usize| Cpu { id, node: id / 4 % 2, package: id / 4 % 2, core: id % 4 };
        Topology { cpus: (0..16).map(cpu).collect(), quota_millis: None }
    }

    fn small(cpus: usize) -> Topology {
        let cpu = |id: usize| Cpu { id, node: 0, package: 0, core: id };
        Topology { cpus: (0..cpus).map(cpu).collect(), quota_millis: None }
    }

    fn placed(topology: &Topology, shards: Shards, cpus: &str) -> Result<Vec<usize>, PlacementError> {
        let placed = place(topology, shards, &Cpus::parse(cpus).expect("good"))?;
        Ok(placed.into_iter().map(|cpu| cpu.expect("pinned")).collect())
    }

    #[test]
    fn auto_takes_physical_cores_and_leaves_some_of_many() {
        assert_eq!(placed(&large(), Shards::Auto, "all"), Ok((0..7).collect()));
        assert_eq!(placed(&small(1), Shards::Auto, "all"), Ok(vec![0]));
        assert_eq!(placed(&small(2), Shards::Auto, "all"), Ok(vec![0, 1]));
        assert_eq!(placed(&small(3), Shards::Auto, "all"), Ok(vec![0, 1]));
        assert_eq!(placed(&small(64), Shards::Auto, "all").map(|cpus| cpus.len()), Ok(59));
        let limited = Topology { quota_millis: Some(2500), ..small(8) };
        assert_eq!(placed(&limited, Shards::Auto, "all"), Ok(vec![0, 1]));
    }

    #[test]
    fn what_is_no_shard_keeps_off_their_cores_where_it_can() {
        let beside = |topology: &Topology, shards: &[usize]| {
            beside(topology, &shards.iter().map(|&cpu| Some(cpu)).collect::<Vec<_>>())
        };
        assert_eq!(beside(&small(4), &[0, 1, 2]), [3]);
        assert_eq!(beside(&small(2), &[1]), [0]);
        assert_eq!(beside(&small(2), &[0, 1]), [], "there is none");
        // Seven physical cores of eight serve: the eighth's two threads, and no sibling of a shard's.
        assert_eq!(beside(&large(), &[0, 1, 2, 3, 4, 5, 6]), [7, 15]);
        assert_eq!(
            beside(&large(), &[0, 1, 2, 3, 4, 5, 6, 7, 8]),
            [9, 10, 11, 12, 13, 14, 15],
            "siblings then"
        );
        let any = place(&large(), Shards::Count(2), &Cpus::Any).expect("anywhere");
        assert_eq!(super::beside(&large(), &any), [], "wherever they are");
    }

    #[test]
    fn what_the_operator_says_is_done() {
        let two = Shards::Count(2);
        assert_eq!(
            placed(&large(), Shards::Count(10), "all").map(|cpus| cpus[7..].to_vec()),
            Ok(vec![7, 8, 9])
        );
        assert_eq!(placed(&large(), Shards::Auto, "3"), Ok(vec![0, 1, 2]));
        assert_eq!(placed(&large(), two, "5-6"), Ok(vec![5, 6]));
        assert_eq!(placed(&large(), Shards::Auto, "9,1-2"), Ok(vec![9, 1, 2]));
        assert_eq!(placed(&large(), Shards::Auto, "numa:nodes=1;cores=2"), Ok(vec![4, 5]));
        assert_eq!(placed(&large(), Shards::Auto, "numa:cores=1"), Ok(vec![0, 4]));
        assert_eq!(placed(&large(), Shards::Auto, "numa:nodes=0"), Ok(vec![0, 1, 2, 3, 8, 9, 10, 11]));
        assert_eq!(placed(&large(), Shards::Auto, "numa:nodes=0;no_ht=true"), Ok(vec![0, 1, 2, 3]));
        assert_eq!(place(&large(), two, &Cpus::Any), Ok(vec![None, None]));
        let all = |cpus: &str| processors(&large(), &Cpus::parse(cpus).expect("good"));
        assert_eq!(all("all"), Ok((0..16).collect()), "nothing is left out");
        assert_eq!((all("9,1-2"), all("any")), (Ok(vec![9, 1, 2]), Ok(vec![])));
        assert_eq!(all("1-1,0-1"), Err(PlacementError::Twice { cpu: 1 }));
    }

    #[test]
    fn what_cannot_be_is_said() {
        let few = |shards, cpus| Err(PlacementError::TooFew { shards, cpus });
        assert_eq!(placed(&small(2), Shards::Count(3), "all"), few(3, 2));
        assert_eq!(placed(&small(2), Shards::Auto, "3"), few(3, 2));
        assert_eq!(placed(&large(), Shards::Auto, "numa:nodes=0;cores=5;no_ht=true"), few(5, 4));
        assert_eq!(placed(&small(2), Shards::Auto, "1-1,0-1"), Err(PlacementError::Twice { cpu: 1 }));
        assert_eq!(placed(&small(2), Shards::Auto, "0,7"), Err(PlacementError::NoSuchCpu { cpu: 7 }));
        assert_eq!(
            placed(&small(2), Shards::Auto, "numa:nodes=3"),
            Err(PlacementError::NoSuchNode { node: 3 })
        );
    }

    #[test]
    fn what_is_written_is_read_again() {
        for text in ["all", "any", "4", "0-3,8", "3-3", "numa:", "numa:nodes=0,2;cores=4;no_ht=true"] {
            let cpus = Cpus::parse(text).expect(text);
            assert_eq!(Cpus::parse(&cpus.to_string()), Some(cpus), "{text}");
        }
        for wrong in
            ["", "0", "-1", "1-", "3-1", "numa", "numa:nodes=;", "numa:cores=0", "numa:no_ht=2", "some"]
        {
            assert_eq!(Cpus::parse(wrong), None, "{wrong:?}");
        }
    }
}
