//! Which cores do what, and whether the load takes time from the broker.

use corelog_uring::affinity;
use serde::{Deserialize, Serialize};

/// A core for each side, as far apart as there are any: what is measured without a broker runs on them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cores {
    /// Of the broker, or of what stands for it.
    pub broker: usize,
    /// Of the load.
    pub load: usize,
}

impl Cores {
    /// Of those that this process may use.
    pub fn choose() -> Self {
        let cores = affinity::cores();
        let load = cores.first().copied().unwrap_or(0);
        Self { load, broker: cores.get(1).copied().unwrap_or(load) }
    }
}

/// The cores of a run. A side that has none is not pinned: it runs wherever the system puts it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Placement {
    /// One for each shard of the broker that is started.
    pub broker: Vec<usize>,
    /// All that the one thread of the load may run on.
    pub load: Vec<usize>,
    /// What both of them run on.
    pub shared: Sharing,
}

/// What of the machine the load and the broker take from each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Sharing {
    /// Each has cores of its own.
    #[default]
    Nothing,
    /// They run on siblings: two processors of one core.
    Siblings,
    /// They run on the same processors, or may.
    Cores,
}

impl Placement {
    /// The first core of each side, different ones if there are any.
    pub fn apart(&self) -> Cores {
        self.apart_of(affinity::cores())
    }

    fn apart_of(&self, all: &[usize]) -> Cores {
        let of = |side: &[usize]| if side.is_empty() { all.to_vec() } else { side.to_vec() };
        let (brokers, loads) = (of(&self.broker), of(&self.load));
        let pairs = brokers.iter().flat_map(|&broker| loads.iter().map(move |&load| Cores { broker, load }));
        let mut best = pairs.clone().filter(|cores| cores.broker != cores.load).chain(pairs);
        best.next().unwrap_or(Cores { broker: 0, load: 0 })
    }

    /// From here on the calling thread makes load. Where the system refuses, the load runs wherever it likes, and none is
    /// what this answers; the hiccups then tell what that costs.
    pub(crate) fn pin_load(&self) -> Vec<usize> {
        if affinity::pin_to(&self.load) { self.load.clone() } else { Vec::new() }
    }

    /// The broker's cores as `server.cpus` has them.
    pub(crate) fn cpus(&self) -> String {
        let cores: Vec<String> = self.broker.iter().map(|core| format!("{core}-{core}")).collect();
        if cores.is_empty() { "any".to_owned() } else { cores.join(",") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_measured_without_a_broker_runs_on_two_cores_where_there_are_two() {
        let apart = |broker: &[usize], load: &[usize], all: &[usize]| {
            let placement =
                Placement { broker: broker.to_vec(), load: load.to_vec(), ..Placement::default() };
            let Cores { broker, load } = placement.apart_of(all);
            (broker, load)
        };
        assert_eq!(apart(&[1], &[0], &[0, 1]), (1, 0));
        assert_eq!(apart(&[1, 0], &[0, 1], &[0, 1]), (1, 0), "they share both");
        assert_eq!(apart(&[0], &[0, 1], &[0, 1]), (0, 1));
        assert_eq!(apart(&[], &[0], &[0, 1]), (1, 0), "the broker may run anywhere");
        assert_eq!(apart(&[3], &[], &[2, 3]), (3, 2));
        assert_eq!(apart(&[0], &[0], &[0]), (0, 0), "there is one");
    }

    #[test]
    fn cores_are_named_as_the_broker_takes_them() {
        let cpus = |broker: &[usize]| Placement { broker: broker.to_vec(), ..Placement::default() }.cpus();
        assert_eq!(
            (cpus(&[]).as_str(), cpus(&[3]).as_str(), cpus(&[4, 1]).as_str()),
            ("any", "3-3", "4-4,1-1")
        );
    }
}
