//! What the machine has: memory, as far as this process may take of it (a figure for defaults, never a promise), and
//! files that it may hold open.

use std::path::Path;

/// The smaller of the machine's memory and the limits of the control groups this process is in. `None` where the system
/// does not say (it is not Linux).
pub fn memory_bytes() -> Option<u64> {
    memory(|path| std::fs::read_to_string(path).ok())
}

/// Segments, connections and what queries spill are open files. Most systems give a process few unless it asks for more.
pub fn allow_open_files() {
    if let Err(error) = rlimit::increase_nofile_limit(u64::MAX) {
        tracing::warn!(%error, "the limit of open files stays as it is");
    }
}

fn memory(read: impl Fn(&Path) -> Option<String>) -> Option<u64> {
    let total = total_bytes(&read(Path::new("/proc/meminfo"))?)?;
    let groups = read(Path::new("/proc/self/cgroup")).unwrap_or_default();
    let limits = groups.lines().filter_map(|line| {
        // `0::/a/b` in version 2; in version 1 a line per set of controllers, `5:memory:/a/b`.
        let mut fields = line.splitn(3, ':').skip(1);
        let (controllers, group) = (fields.next()?, fields.next()?);
        let (root, file) = match controllers.split(',').any(|controller| controller == "memory") {
            true => ("/sys/fs/cgroup/memory", "memory.limit_in_bytes"),
            false if controllers.is_empty() => ("/sys/fs/cgroup", "memory.max"),
            false => return None,
        };
        // A group is bound by its ancestors too. In a container the names may be the host's and the root our own group.
        let within = Path::new(root).join(group.trim_start_matches('/'));
        let groups = within.ancestors().take_while(|path| path.starts_with(root));
        groups.filter_map(|path| read(&path.join(file))?.trim().parse::<u64>().ok()).min()
    });
    Some(limits.fold(total, u64::min))
}

/// `MemTotal:       16307800 kB`
fn total_bytes(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory_of(files: &[(&str, &str)]) -> Option<u64> {
        memory(|path| {
            let found = files.iter().find(|(name, _)| path == Path::new(name));
            found.map(|(_, text)| (*text).to_owned())
        })
    }

    const MEMINFO: (&str, &str) = ("/proc/meminfo", "MemFree:  1 kB\nMemTotal:       1000 kB\nMemFree: 5 kB\n");

    #[test]
    fn the_machine_says_what_it_has() {
        assert_eq!(memory_of(&[MEMINFO]), Some(1_024_000));
        assert_eq!(memory_of(&[]), None);
        assert_eq!(memory_of(&[("/proc/meminfo", "nothing")]), None);
    }

    #[test]
    fn a_group_and_its_ancestors_limit_it() {
        let group = ("/proc/self/cgroup", "0::/a/b\n");
        let limit = |path, text| memory_of(&[MEMINFO, group, ("/sys/fs/cgroup/a/b/memory.max", "max\n"), (path, text)]);
        assert_eq!(limit("/sys/fs/cgroup/a/memory.max", "4096\n"), Some(4096));
        assert_eq!(limit("/sys/fs/cgroup/memory.max", "8192\n"), Some(8192));
        assert_eq!(limit("/sys/fs/memory.max", "1\n"), Some(1_024_000), "that is no group");
        assert_eq!(limit("/sys/fs/cgroup/a/memory.max", "99999999999\n"), Some(1_024_000));
        let old = ("/proc/self/cgroup", "7:cpu,cpuacct:/x\n5:memory:/x\n");
        let limit = ("/sys/fs/cgroup/memory/x/memory.limit_in_bytes", "2048\n");
        assert_eq!(memory_of(&[MEMINFO, old, limit]), Some(2048));
    }
}
