//! Certificates and how long they last, and who may read what should be secret.

use super::finding::Finding;
use crate::config::Config;
use crate::expiry::{Nearness, Paper, files, paper};
use crate::trusted_time;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

const CERTIFICATE: &str = "certificate";
const FILE: &str = "file";
/// Rights of group and others to read or write.
const GROUP_AND_OTHERS: u32 = 0o066;
/// Rights of others to read, and of all but the owner to write.
const NOT_OWNERS: u32 = 0o026;

pub(super) fn all(config: &Config) -> Vec<Finding> {
    let now_ms = trusted_time::now_ms();
    let mut findings: Vec<Finding> =
        files(config).iter().map(|(what, path)| lasting(paper(what, path), now_ms)).collect();
    findings.extend(secrets(config).iter().map(|path| secret(path)));
    findings
}

fn lasting(read: Result<Paper, String>, now_ms: u64) -> Finding {
    const RENEW: &str = "renew it (`tidegate certs … --renew`, or as your CA does) and put it in the same place: it is used within \
                         half a minute, without a restart";
    match read {
        Err(why) => Finding::fault(CERTIFICATE, why, "put the file in place, or mend its path in the configuration"),
        Ok(paper) => match paper.nearness(now_ms) {
            Nearness::Far => Finding::ok(CERTIFICATE, paper.sentence(now_ms)),
            Nearness::Near => Finding::warning(CERTIFICATE, paper.sentence(now_ms), RENEW),
            Nearness::Over => Finding::fault(CERTIFICATE, paper.sentence(now_ms), RENEW),
        },
    }
}

/// Files that nobody else should read.
fn secrets(config: &Config) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> =
        config.door.listeners.iter().filter_map(|l| Some(l.tls.as_ref()?.key.clone())).collect();
    if let tidegate_broker::BackendConfig::Mqtt { password_file, .. } = &config.door.backend {
        found.extend(password_file.clone());
    }
    let brokers = [config.bridge.as_ref().map(|bridge| &bridge.broker), config.intake.as_ref()];
    for broker in brokers.into_iter().flatten() {
        found.extend(broker.trust.identity.iter().map(|own| own.key.clone()));
        found.extend(broker.credentials.iter().map(|own| own.password_file.clone()));
    }
    found.extend(config.door.users.clone());
    found.extend(config.page.tls.iter().map(|tls| tls.key.clone()));
    found.extend(config.page.token_file.clone());
    found.sort();
    found.dedup();
    found
}

fn secret(path: &Path) -> Finding {
    let found = match fs::metadata(path) {
        Err(error) => {
            let next = "put the file in place for the gateway's user, or mend its path in the configuration";
            return Finding::fault(FILE, format!("{}: {error}", path.display()), next);
        }
        Ok(found) => found,
    };
    let mode = found.mode() & 0o777;
    // root:tidegate 0640 is how a package hands a secret to a service that must not change it.
    let open = if found.uid() == 0 { NOT_OWNERS } else { GROUP_AND_OTHERS };
    if mode & open != 0 {
        let what = format!("{} has mode {mode:o}: others may read or change a secret", path.display());
        return Finding::warning(FILE, what, "chmod 600 it, or 640 with owner root and the gateway's group");
    }
    Finding::ok(FILE, format!("{} is the gateway's alone", path.display()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::finding::Level;
    use super::*;
    use crate::expiry::Until;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn an_end_that_is_near_is_a_warning_and_one_that_is_past_a_fault() {
        let ending = |until| Ok(Paper { what: "certificate", path: "x".into(), until: Some(Until(until)) });
        let day = 24 * 3600 * 1000;
        assert_eq!(lasting(ending(40 * day), 0).level, Level::Ok);
        assert_eq!(lasting(ending(20 * day), 0).level, Level::Warning);
        assert_eq!(lasting(ending(day), 2 * day as u64).level, Level::Fault);
        assert_eq!(lasting(Err("gone".to_owned()), 0).level, Level::Fault);
    }

    #[test]
    fn a_secret_that_others_may_read_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        fs::write(&path, "x").unwrap();
        for (mode, expect) in [(0o600, Level::Ok), (0o644, Level::Warning), (0o602, Level::Warning)] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(secret(&path).level, expect, "{mode:o}");
        }
        assert_eq!(secret(&dir.path().join("none")).level, Level::Fault);
    }
}
