//! A control group of memory, so that a rig can take memory away from a gateway and its engine: cgroups(7), version 1 or
//! 2. Invariant: it is gone with the rig, unless the rig is killed; an empty group left behind costs nothing.

use anyhow::{Context as _, bail};
use std::fs;
use std::path::{Path, PathBuf};

/// What a group may have beyond what it holds while it is squeezed, in bytes: a few pages.
const SPARE_BYTES: u64 = 64 * 1024;

/// Names of the files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    One,
    Two,
}

/// A group with a process and all that it starts.
#[derive(Debug)]
pub(crate) struct Group {
    folder: PathBuf,
    version: Version,
}

impl Group {
    /// Makes one below our own and puts a process into it.
    ///
    /// # Errors
    /// There is no group of memory here that we may write to.
    pub(crate) fn of(pid: u32) -> anyhow::Result<Self> {
        let text = fs::read_to_string("/proc/self/cgroup").context("this kernel has no control groups")?;
        let (above, version) = memory_group(&text).context("no control group here has memory")?;
        let folder = above.join(format!("tidegate-rig-{pid}"));
        fs::create_dir(&folder).with_context(|| format!("no control group can be made in {}", above.display()))?;
        let group = Self { folder, version };
        if !group.folder.join(group.limit()).exists() {
            bail!("control groups in {} have no memory limit", above.display());
        }
        group.write("cgroup.procs", &pid.to_string())?;
        Ok(group)
    }

    fn limit(&self) -> &'static str {
        if self.version == Version::One { "memory.limit_in_bytes" } else { "memory.max" }
    }

    /// Leaves the group hardly more than it has.
    pub(crate) fn squeeze(&self) -> anyhow::Result<()> {
        let file = if self.version == Version::One { "memory.usage_in_bytes" } else { "memory.current" };
        let used = fs::read_to_string(self.folder.join(file)).with_context(|| format!("cannot read {file}"))?;
        let used: u64 = used.trim().parse().with_context(|| format!("{file} is no number"))?;
        // Less than it has is refused at first by version 1, while it drops pages; it comes again.
        let _ = fs::write(self.folder.join(self.limit()), (used / 2 + SPARE_BYTES).to_string());
        let _ = fs::write(self.folder.join(self.limit()), (used + SPARE_BYTES).to_string());
        Ok(())
    }

    /// Lets it have what it wants.
    pub(crate) fn release(&self) -> anyhow::Result<()> {
        self.write(self.limit(), if self.version == Version::One { "-1" } else { "max" })
    }

    fn write(&self, file: &str, text: &str) -> anyhow::Result<()> {
        let path = self.folder.join(file);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = self.release();
        let _ = fs::remove_dir(&self.folder);
    }
}

/// Where our own group of memory is.
fn memory_group(text: &str) -> Option<(PathBuf, Version)> {
    let of = |line: &str| {
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, path) = (parts.next()?, parts.next()?.trim_start_matches('/'));
        match controllers {
            "memory" => Some((Path::new("/sys/fs/cgroup/memory").join(path), Version::One)),
            "" => Some((Path::new("/sys/fs/cgroup").join(path), Version::Two)),
            _ => None,
        }
    };
    let found: Vec<_> = text.lines().filter_map(of).collect();
    found.iter().find(|(_, version)| *version == Version::One).or(found.first()).cloned()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_group_of_memory_is_found_in_both_versions() {
        let one = "5:cpu:/\n4:memory:/a/b\n0::/\n";
        assert_eq!(memory_group(one), Some(("/sys/fs/cgroup/memory/a/b".into(), Version::One)));
        let two = "0::/user.slice/x.scope\n";
        assert_eq!(memory_group(two), Some(("/sys/fs/cgroup/user.slice/x.scope".into(), Version::Two)));
        assert_eq!(memory_group("3:cpu:/\n"), None);
    }
}
