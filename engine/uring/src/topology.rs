//! The cores of the machine, as far as this process may use them: which belong together, and how much of them there is.
//!
//! Read from what Linux says under `/sys` and `/proc`; tests give another root. What is not said there is taken to be
//! the simplest: one node, one package, no siblings, no quota.

use std::fs;
use std::path::Path;

/// One logical processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cpu {
    /// Its number.
    pub id: usize,
    /// Its memory node.
    pub node: usize,
    /// Its package, and its physical core within that: those that share both are siblings.
    pub package: usize,
    /// See `package`.
    pub core: usize,
}

/// What there is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topology {
    /// By number.
    pub cpus: Vec<Cpu>,
    /// Processors' worth of time that the process and what it is grouped with may use, in thousandths; `None`: no limit.
    pub quota_millis: Option<u64>,
}

impl Topology {
    /// Reads what is said under `root`, of the processors that the process is `allowed`.
    pub fn read(root: &Path, allowed: &[usize]) -> Self {
        let nodes = nodes(root);
        let node_of = |id| nodes.iter().find(|(_, ids)| ids.contains(&id)).map_or(0, |&(node, _)| node);
        let cpu = |&id: &usize| {
            let topology = root.join(format!("sys/devices/system/cpu/cpu{id}/topology"));
            let package = number(&topology.join("physical_package_id")).unwrap_or(0);
            let core = number(&topology.join("core_id")).unwrap_or(id);
            Cpu { id, node: node_of(id), package, core }
        };
        let mut cpus: Vec<Cpu> = allowed.iter().map(cpu).collect();
        cpus.sort_unstable_by_key(|cpu| cpu.id);
        Self { cpus, quota_millis: quota_millis(root) }
    }

    /// Whole processors that the quota leaves, of so many; at least one.
    pub fn within_quota(&self, cpus: usize) -> usize {
        let quota = self.quota_millis.map_or(usize::MAX, |millis| (millis / 1000) as usize);
        cpus.min(quota).max(1)
    }
}

/// The nodes with their processors.
fn nodes(root: &Path) -> Vec<(usize, Vec<usize>)> {
    let Ok(entries) = fs::read_dir(root.join("sys/devices/system/node")) else { return Vec::new() };
    let node = |entry: fs::DirEntry| {
        let node = entry.file_name().to_str()?.strip_prefix("node")?.parse().ok()?;
        Some((node, ids(&fs::read_to_string(entry.path().join("cpulist")).ok()?)?))
    };
    entries.flatten().filter_map(node).collect()
}

/// A list such as `0-3,8`, as the kernel writes it.
pub fn ids(text: &str) -> Option<Vec<usize>> {
    /// No machine has more.
    const MOST: usize = 8192;
    let mut ids = Vec::new();
    for part in text.trim().split(',').filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (usize, usize) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        if first > last || last >= MOST {
            return None;
        }
        ids.extend(first..=last);
    }
    Some(ids)
}

/// The least quota of the process's group and all above it (cgroup 2: `cpu.max` is a time in a period, or "max").
fn quota_millis(root: &Path) -> Option<u64> {
    let groups = fs::read_to_string(root.join("proc/self/cgroup")).ok()?;
    let own = groups.lines().find_map(|line| line.strip_prefix("0::"))?.trim_matches('/');
    let top = root.join("sys/fs/cgroup");
    let group = top.join(own);
    let all = group.ancestors().take_while(|group| group.starts_with(&top));
    all.filter_map(|group| {
        let text = fs::read_to_string(group.join("cpu.max")).ok()?;
        let (quota, period) = text.trim().split_once(' ')?;
        let (quota, period): (u64, u64) = (quota.parse().ok()?, period.parse().ok()?);
        quota.saturating_mul(1000).checked_div(period)
    })
    .min()
}

fn number(path: &Path) -> Option<usize> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(root: &Path, path: &str, text: &str) {
        let path = root.join(path);
        fs::create_dir_all(path.parent().expect("a directory")).expect("made");
        fs::write(path, text).expect("written");
    }

    fn cpu(root: &Path, id: usize, package: usize, core: usize) {
        let topology = format!("sys/devices/system/cpu/cpu{id}/topology");
        write(root, &format!("{topology}/physical_package_id"), &format!("{package}\n"));
        write(root, &format!("{topology}/core_id"), &format!("{core}\n"));
    }

    #[test]
    fn two_sockets_with_siblings_are_told_apart() {
        let root = tempfile::tempdir().expect("a directory");
        for id in 0..16 {
            // As usual: the first half are the first threads of all cores, package by package.
            cpu(root.path(), id, id / 4 % 2, id % 4);
        }
        write(root.path(), "sys/devices/system/node/node0/cpulist", "0-3,8-11\n");
        write(root.path(), "sys/devices/system/node/node1/cpulist", "4-7,12-15\n");
        write(root.path(), "sys/devices/system/node/possible", "0-1\n");
        let topology = Topology::read(root.path(), &(0..16).collect::<Vec<_>>());
        assert_eq!(topology.cpus[5], Cpu { id: 5, node: 1, package: 1, core: 1 });
        let (a, b) = (topology.cpus[1], topology.cpus[9]);
        assert_eq!((a.package, a.core, a.node), (b.package, b.core, b.node), "siblings");
        assert_eq!(topology.quota_millis, None);
    }

    #[test]
    fn the_tightest_quota_of_the_groups_above_counts() {
        let root = tempfile::tempdir().expect("a directory");
        write(root.path(), "proc/self/cgroup", "0::/pods/one/main\n");
        write(root.path(), "sys/fs/cgroup/pods/cpu.max", "800000 100000\n");
        write(root.path(), "sys/fs/cgroup/pods/one/cpu.max", "250000 100000\n");
        write(root.path(), "sys/fs/cgroup/pods/one/main/cpu.max", "max 100000\n");
        let topology = Topology::read(root.path(), &[0, 1, 2, 3]);
        assert_eq!(topology.quota_millis, Some(2500));
        assert_eq!((topology.within_quota(4), topology.within_quota(1)), (2, 1));
        write(root.path(), "sys/fs/cgroup/pods/one/main/cpu.max", "20000 100000\n");
        assert_eq!(Topology::read(root.path(), &[0, 1]).within_quota(2), 1, "less than one is one");
    }

    #[test]
    fn where_nothing_is_said_every_processor_is_a_core_of_its_own() {
        let root = tempfile::tempdir().expect("a directory");
        let topology = Topology::read(root.path(), &[1, 0]);
        let plain = |id| Cpu { id, node: 0, package: 0, core: id };
        assert_eq!(topology, Topology { cpus: vec![plain(0), plain(1)], quota_millis: None });
    }

    #[test]
    fn lists_are_read_as_the_kernel_writes_them() {
        assert_eq!(ids("0-2,5\n"), Some(vec![0, 1, 2, 5]));
        assert_eq!(ids(""), Some(vec![]));
        for wrong in ["a", "3-1", "1-", "0-99999999"] {
            assert_eq!(ids(wrong), None, "{wrong}");
        }
    }
}
