//! Memory that can still be had: what the kernel thinks, and what the control groups of this process leave of it.
//!
//! Invariant: what cannot be read counts as no limit; numbers of the kernel are bytes or kibibytes as proc(5) and
//! cgroups(7) say.

use std::fs;
use std::path::Path;

/// Nested control groups that are looked at, at most.
const DEPTH_MAX: usize = 16;

/// What can be had without swapping, in bytes; none where the kernel does not tell.
pub(crate) fn available() -> Option<u64> {
    below(Path::new("/"))
}

fn below(root: &Path) -> Option<u64> {
    let text = fs::read_to_string(root.join("proc/meminfo")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kernel = line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()).map(|kib| kib * 1024);
    kernel.into_iter().chain(groups(root)).min()
}

/// What the groups leave, each with those above it.
fn groups(root: &Path) -> Vec<u64> {
    let text = fs::read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
    let mut left = Vec::new();
    for line in text.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else { continue };
        let (mount, names) = match controllers {
            "" => ("sys/fs/cgroup", ["memory.max", "memory.current", "inactive_file"]),
            "memory" => {
                ("sys/fs/cgroup/memory", ["memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"])
            }
            _ => continue,
        };
        let groups = Path::new(path.trim_start_matches('/')).ancestors().take(DEPTH_MAX);
        left.extend(groups.filter_map(|group| left_in(&root.join(mount).join(group), names)));
    }
    left
}

/// What one group leaves: its limit less what it holds, without file pages that the kernel can drop at once.
fn left_in(group: &Path, [limit, used, droppable]: [&str; 3]) -> Option<u64> {
    let number = |file: &str| fs::read_to_string(group.join(file)).ok()?.trim().parse::<u64>().ok();
    let stat = fs::read_to_string(group.join("memory.stat")).unwrap_or_default();
    let dropped = stat.lines().find_map(|line| line.strip_prefix(droppable)?.trim().parse::<u64>().ok()).unwrap_or(0);
    Some(number(limit)?.saturating_sub(number(used)?.saturating_sub(dropped)))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn put(root: &Path, file: &str, text: &str) {
        let path = root.join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    #[test]
    fn the_tightest_group_decides() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        assert_eq!(below(root), None);
        put(root, "proc/meminfo", "MemTotal: 9000 kB\nMemAvailable:    8000 kB\n");
        assert_eq!(below(root), Some(8_000 * 1024));
        put(root, "proc/self/cgroup", "4:memory:/a/b\n0::/system.slice/tidegate.service\n");
        put(root, "sys/fs/cgroup/system.slice/tidegate.service/memory.max", "max\n");
        put(root, "sys/fs/cgroup/system.slice/tidegate.service/memory.current", "5\n");
        assert_eq!(below(root), Some(8_000 * 1024));
        put(root, "sys/fs/cgroup/system.slice/memory.max", "1000\n");
        put(root, "sys/fs/cgroup/system.slice/memory.current", "700\n");
        put(root, "sys/fs/cgroup/system.slice/memory.stat", "anon 5\ninactive_file 100\n");
        assert_eq!(below(root), Some(400));
        put(root, "sys/fs/cgroup/memory/a/memory.limit_in_bytes", "500\n");
        put(root, "sys/fs/cgroup/memory/a/memory.usage_in_bytes", "600\n");
        assert_eq!(below(root), Some(0));
        assert!(available().unwrap() > 1 << 20);
    }
}
