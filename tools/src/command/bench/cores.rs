//! Who runs where: what was asked for, and for the rest what takes the least from each other.
//!
//! Pure: the machine is an argument. Where there are more processors than shards the load has one of its own. Where there are
//! not, it stays beside one shard, always the same: nothing is won by letting it wander among all of them.

use corelog_load::{Placement, Sharing};
use corelog_server::placement::{Cpus, PlacementError, Shards, place, processors};
use corelog_uring::topology::{Cpu, Topology};

/// Whose cores cannot be had, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum CoresError {
    /// The broker's.
    Broker(PlacementError),
    /// The load's.
    Load(PlacementError),
}

/// The cores of a run with so many shards of its own; `None`: with a broker that is there.
pub(super) fn choose(
    topology: &Topology,
    shards: Option<u16>,
    broker: Option<&Cpus>,
    load: Option<&Cpus>,
) -> Result<Placement, CoresError> {
    let load = load.map(|cpus| processors(topology, cpus).map_err(CoresError::Load)).transpose()?;
    let Some(shards) = shards else {
        let load = load.unwrap_or_else(|| topology.cpus.iter().map(|cpu| cpu.id).take(1).collect());
        return Ok(Placement { load, ..Placement::default() });
    };
    let place = |topology: &Topology, cpus: &Cpus| {
        let cores = place(topology, Shards::Count(shards), cpus).map_err(CoresError::Broker)?;
        Ok(cores.into_iter().flatten().collect::<Vec<usize>>())
    };
    let without = |taken: &[usize]| {
        let left = topology.cpus.iter().filter(|cpu| !taken.contains(&cpu.id)).copied().collect();
        Topology { cpus: left, quota_millis: topology.quota_millis }
    };
    let broker = match (broker, &load) {
        (Some(cpus), _) => place(topology, cpus)?,
        (None, load) => {
            let first = topology.cpus.first().map(|cpu| cpu.id);
            let left = without(load.as_deref().unwrap_or(first.as_slice()));
            let fits = left.cpus.len() >= usize::from(shards);
            place(if fits { &left } else { topology }, &Cpus::All)?
        }
    };
    let load = load.unwrap_or_else(|| match without(&broker).cpus.first() {
        // It need not have the first one, only one that none of the broker's is a sibling of.
        Some(first) => vec![apart_from(topology, &broker).map_or(first.id, |cpu| cpu.id)],
        None => topology.cpus.iter().map(|cpu| cpu.id).take(1).collect(),
    });
    let shared = shared(topology, &broker, &load);
    Ok(Placement { broker, load, shared })
}

/// The first processor that shares nothing with these.
fn apart_from(topology: &Topology, taken: &[usize]) -> Option<Cpu> {
    topology.cpus.iter().find(|cpu| shared(topology, taken, &[cpu.id]) == Sharing::Nothing).copied()
}

/// What two sides share. One that has no cores may run on any.
fn shared(topology: &Topology, one: &[usize], other: &[usize]) -> Sharing {
    let core = |id: usize| topology.cpus.iter().find(|cpu| cpu.id == id).map(|cpu| (cpu.package, cpu.core));
    let between = |a: usize, b: usize| match () {
        () if a == b => Sharing::Cores,
        () if core(a) == core(b) => Sharing::Siblings,
        () => Sharing::Nothing,
    };
    if one.is_empty() || other.is_empty() {
        return Sharing::Cores;
    }
    one.iter().flat_map(|&a| other.iter().map(move |&b| between(a, b))).max().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(cpus: usize) -> Topology {
        let cpu = |id: usize| Cpu { id, node: 0, package: 0, core: id };
        Topology { cpus: (0..cpus).map(cpu).collect(), quota_millis: None }
    }

    /// Two threads a core, numbered as Linux does: 0 and 4 are siblings.
    fn threads() -> Topology {
        let cpu = |id: usize| Cpu { id, node: 0, package: 0, core: id % 4 };
        Topology { cpus: (0..8).map(cpu).collect(), quota_millis: None }
    }

    fn chosen(topology: &Topology, shards: u16, broker: Option<&str>, load: Option<&str>) -> Placement {
        let parse = |text: &str| Cpus::parse(text).expect("good");
        let (broker, load) = (broker.map(parse), load.map(parse));
        choose(topology, Some(shards), broker.as_ref(), load.as_ref()).expect("there is room")
    }

    #[track_caller]
    fn assert_placed(placed: Placement, broker: &[usize], load: &[usize], shared: Sharing) {
        assert_eq!(placed, Placement { broker: broker.to_vec(), load: load.to_vec(), shared });
    }

    #[test]
    fn on_two_cores_one_shard_is_apart_from_the_load_and_of_two_the_first_is_beside_it() {
        assert_placed(chosen(&machine(2), 1, None, None), &[1], &[0], Sharing::Nothing);
        assert_placed(chosen(&machine(2), 2, None, None), &[0, 1], &[0], Sharing::Cores);
        assert_placed(chosen(&machine(1), 1, None, None), &[0], &[0], Sharing::Cores);
        assert_placed(chosen(&machine(4), 2, None, None), &[1, 2], &[0], Sharing::Nothing);
        assert_placed(chosen(&machine(4), 4, None, None), &[0, 1, 2, 3], &[0], Sharing::Cores);
    }

    #[test]
    fn one_side_goes_where_the_other_was_not_put() {
        assert_placed(chosen(&machine(2), 1, Some("0-0"), None), &[0], &[1], Sharing::Nothing);
        assert_placed(chosen(&machine(2), 1, None, Some("1-1")), &[0], &[1], Sharing::Nothing);
        assert_placed(chosen(&machine(4), 2, Some("0,2"), None), &[0, 2], &[1], Sharing::Nothing);
        assert_placed(chosen(&machine(4), 2, None, Some("1,3")), &[0, 2], &[1, 3], Sharing::Nothing);
        assert_placed(chosen(&machine(4), 2, None, Some("3")), &[0, 1], &[0, 1, 2], Sharing::Cores);
        assert_placed(chosen(&machine(2), 1, None, Some("all")), &[0], &[0, 1], Sharing::Cores);
        assert_placed(chosen(&machine(2), 2, Some("all"), Some("0-0")), &[0, 1], &[0], Sharing::Cores);
        assert_placed(chosen(&machine(2), 2, Some("any"), None), &[], &[0], Sharing::Cores);
        assert_placed(chosen(&machine(2), 1, Some("1-1"), Some("any")), &[1], &[], Sharing::Cores);
    }

    #[test]
    fn siblings_are_the_last_that_two_sides_share() {
        assert_placed(chosen(&threads(), 1, None, None), &[1], &[0], Sharing::Nothing);
        assert_placed(chosen(&threads(), 3, None, None), &[1, 2, 3], &[0], Sharing::Nothing);
        assert_placed(chosen(&threads(), 4, None, None), &[1, 2, 3, 4], &[0], Sharing::Siblings);
        assert_placed(chosen(&threads(), 1, Some("4-4"), None), &[4], &[1], Sharing::Nothing);
        assert_placed(chosen(&threads(), 4, Some("0-3"), None), &[0, 1, 2, 3], &[4], Sharing::Siblings);
    }

    #[test]
    fn a_broker_that_is_there_leaves_the_load_its_core() {
        let load = |load: Option<&str>| {
            let load = load.and_then(Cpus::parse);
            choose(&machine(4), None, None, load.as_ref()).map(|placed| (placed.broker, placed.load))
        };
        assert_eq!(load(None), Ok((vec![], vec![0])));
        assert_eq!(load(Some("2-3")), Ok((vec![], vec![2, 3])));
        assert_eq!(load(Some("any")), Ok((vec![], vec![])));
    }

    #[test]
    fn cores_that_are_not_there_are_refused_by_side() {
        let refused = |shards, broker: Option<&str>, load: Option<&str>| {
            let (broker, load) = (broker.and_then(Cpus::parse), load.and_then(Cpus::parse));
            choose(&machine(2), Some(shards), broker.as_ref(), load.as_ref()).expect_err("there is no room")
        };
        let few = |shards| PlacementError::TooFew { shards, cpus: 2 };
        assert_eq!(refused(3, None, None), CoresError::Broker(few(3)));
        assert_eq!(refused(1, Some("0,7"), None), CoresError::Broker(PlacementError::NoSuchCpu { cpu: 7 }));
        assert_eq!(refused(1, None, Some("3")), CoresError::Load(few(3)));
    }
}
