//! Processor, kernel and clock.

use super::finding::Finding;
use crate::trusted_time;
use std::path::Path;
use tidegate_engine::clock::{Discipline, discipline};
use tidegate_engine::confine::{Confinement, Part, confine_to};
use tidegate_engine::processor::{Fit, SETS, fit};
use tidegate_spool::BUILD_DATE_MS;

pub(super) fn all() -> Vec<Finding> {
    let flags = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let built = crate::engine::asked_instructions();
    vec![processor(built, &flags), confinement(), clock(trusted_time::system_ms(), discipline())]
}

/// What the build uses against what the processor has.
fn processor(built: Result<Vec<String>, String>, cpuinfo: &str) -> Finding {
    const PART: &str = "processor";
    const NEXT: &str = "install a build for this processor, or build on this machine";
    let built = match built {
        Err(end) => return Finding::fault(PART, format!("the engine's code does not run here: {end}"), NEXT),
        Ok(built) => built,
    };
    let Some(Fit { used, lacking, unused }) = fit(&built, cpuinfo) else {
        let used: Vec<&str> =
            SETS.iter().map(|(name, _)| *name).filter(|name| built.iter().any(|w| w == name)).collect();
        let used = used.join(", ");
        return Finding::ok(PART, format!("this build uses {used}; what this processor has is not told"));
    };
    let [used, lacking, unused] = [used, lacking, unused].map(|names| names.join(", "));
    if !lacking.is_empty() {
        let what = format!("this build uses {lacking}, which this processor has not: the engine dies of it");
        return Finding::fault(PART, what, NEXT);
    }
    let used = if used.is_empty() { "no special instructions".to_owned() } else { used };
    let more = if unused.is_empty() { String::new() } else { format!("; this processor has {unused}, too") };
    Finding::ok(PART, format!("this build uses {used}{more}"))
}

/// What this kernel can hold the engine to, tried in a thread that ends with it.
fn confinement() -> Finding {
    const PART: &str = "confinement";
    let tried = std::thread::spawn(|| confine_to(Path::new("/proc/self"), None)).join();
    let lacks = match tried {
        Err(_) => "tells nothing of Landlock and seccomp",
        Ok(Confinement { files: Part::Whole, calls: Part::Whole }) => {
            return Finding::ok(PART, "the engine is confined to its model (Landlock, seccomp)");
        }
        Ok(Confinement { files: Part::Absent, calls: Part::Absent }) => "has neither Landlock nor seccomp",
        Ok(Confinement { calls: Part::Absent, .. }) => "has no seccomp for this processor",
        Ok(Confinement { files: Part::Absent, .. }) => "has no Landlock",
        Ok(_) => "knows only some of Landlock (all of it since Linux 6.12)",
    };
    Finding::warning(PART, format!("this kernel {lacks}"), "only run model files that you trust, or use a newer kernel")
}

/// Times to live and certificates hang on it.
fn clock(now_ms: u64, discipline: Discipline) -> Finding {
    const PART: &str = "clock";
    if now_ms < BUILD_DATE_MS {
        let what = "it stands before this program was built; certificates are judged by the last time that was known";
        return Finding::fault(
            PART,
            what,
            "set the clock: systemctl enable --now systemd-timesyncd, or chrony, or a battery",
        );
    }
    match discipline {
        Discipline::Synchronised => Finding::ok(PART, "a time source corrects it: ages hold across a power cut"),
        Discipline::Free => {
            let what = "no time source corrects it: what waits ages only while the machine is up, so it lives longer";
            Finding::warning(PART, what, "run systemd-timesyncd or chrony with a server that this site can reach")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::Level;
    use super::*;

    #[test]
    fn a_build_for_another_processor_is_a_fault_and_a_modest_one_is_not() {
        let built = || Ok(["AVX", "AVX2", "OPENMP"].map(str::to_owned).to_vec());
        let old = processor(built(), "flags : pni avx");
        assert_eq!(old.level, Level::Fault);
        assert!(old.what.contains("this build uses AVX2, which"), "{}", old.what);
        assert_eq!(processor(built(), "flags : avx avx2").level, Level::Ok);
        let newer = processor(built(), "flags : avx avx2 avx512f");
        assert!(newer.level == Level::Ok && newer.what.ends_with("has AVX512, too"), "{}", newer.what);
        assert_eq!(processor(built(), "").level, Level::Ok, "nothing is known");
        assert_eq!(processor(Err("signal: 4 (SIGILL)".to_owned()), "flags : avx").level, Level::Fault);
    }

    #[test]
    fn a_clock_in_1970_is_a_fault_and_a_free_one_a_warning() {
        assert_eq!(clock(3_600_000, Discipline::Synchronised).level, Level::Fault);
        assert_eq!(clock(BUILD_DATE_MS, Discipline::Free).level, Level::Warning);
        assert_eq!(clock(BUILD_DATE_MS, Discipline::Synchronised).level, Level::Ok);
    }
}
