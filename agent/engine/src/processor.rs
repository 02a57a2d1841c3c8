//! What a build's code asks of the processor, against what the processor has. Invariant: what is not known is no lack.

/// Instruction sets that make llama.cpp faster: its word, and that of /proc/cpuinfo.
pub const SETS: [(&str, &str); 17] = [
    ("SSE3", "pni"),
    ("SSSE3", "ssse3"),
    ("AVX", "avx"),
    ("F16C", "f16c"),
    ("FMA", "fma"),
    ("BMI2", "bmi2"),
    ("AVX2", "avx2"),
    ("AVX_VNNI", "avx_vnni"),
    ("AVX512", "avx512f"),
    ("AVX512_VNNI", "avx512_vnni"),
    ("AVX512_BF16", "avx512_bf16"),
    ("NEON", "asimd"),
    ("FP16_VA", "asimdhp"),
    ("DOTPROD", "asimddp"),
    ("MATMUL_INT8", "i8mm"),
    ("SVE", "sve"),
    ("SME", "sme"),
];

/// How a build and a processor fit, in llama.cpp's words for instruction sets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fit {
    /// What the build uses.
    pub used: Vec<&'static str>,
    /// What it uses and the processor has not: the engine dies of it.
    pub lacking: Vec<&'static str>,
    /// What the processor has, too.
    pub unused: Vec<&'static str>,
}

/// Compares the instruction sets of a build with the text of /proc/cpuinfo; none where that names none of them.
#[must_use]
pub fn fit(built: &[String], cpuinfo: &str) -> Option<Fit> {
    let has = |flag: &str| cpuinfo.split_whitespace().any(|word| word == flag);
    let uses = |name: &str| built.iter().any(|word| word == name);
    let those = |wanted: &dyn Fn(&str, &str) -> bool| {
        SETS.iter().filter(|(name, flag)| wanted(name, flag)).map(|(name, _)| *name).collect()
    };
    SETS.iter().any(|(_, flag)| has(flag)).then(|| Fit {
        used: those(&|name, _| uses(name)),
        lacking: those(&|name, flag| uses(name) && !has(flag)),
        unused: those(&|name, flag| !uses(name) && has(flag)),
    })
}

/// Why the loaded code cannot run on this processor, if so; one sentence.
#[must_use]
pub fn mismatch() -> Option<String> {
    let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let lacking = fit(&crate::fit::instruction_sets(), &cpuinfo)?.lacking;
    (!lacking.is_empty()).then(|| {
        format!(
            "this build uses {}, which this processor has not: install a build for this processor, or build on this \
             machine",
            lacking.join(", ")
        )
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_a_build_uses_and_the_processor_has_not_is_lacking() {
        let built = ["AVX", "AVX2", "OPENMP"].map(str::to_owned);
        let old = fit(&built, "flags : pni avx").unwrap();
        assert_eq!((old.used, old.lacking, old.unused), (vec!["AVX", "AVX2"], vec!["AVX2"], vec!["SSE3"]));
        assert!(fit(&built, "flags : avx avx2").unwrap().lacking.is_empty());
        assert_eq!(fit(&built, ""), None);
    }

    #[test]
    fn this_build_runs_here() {
        assert_eq!(mismatch(), None);
    }
}
