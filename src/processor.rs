//! [`check`]: whether this processor has the instructions that the program was
//! built with. A build for the processor at hand (`.cargo/config.toml`) dies of
//! SIGILL on a lesser one, without a word.
//!
//! Both programs call it before anything else. It is compiled with the same
//! instructions as the rest, so it must not need them: whole numbers in registers
//! only, no loops over arrays, no formatting, the C library's `write`. What it
//! cannot reach: code that runs before `main` (constructors of C++ libraries), and
//! libraries that are linked at run time (libtorch, which looks at the processor
//! itself). Std's own `is_x86_feature_detected!` does not help here: of what a program
//! is built with it says yes without looking.

use std::process::ExitCode;

/// As documented: the machine is in the way.
const EXIT_CODE: u8 = 4;

/// Ends the program with a message on stderr if it cannot run on this processor.
#[inline(never)]
pub fn check(program: &'static str) -> Option<ExitCode> {
    #[cfg(target_arch = "x86_64")]
    {
        // Hidden from the optimiser, which would put several registers into one vector.
        let (needed, found) =
            std::hint::black_box::<(x86_64::Look, x86_64::Look)>((&x86_64::needed, &x86_64::found));
        if !x86_64::explain(program, needed, found, &mut say) {
            return Some(ExitCode::from(EXIT_CODE));
        }
    }
    // Elsewhere nothing says without std's help what the processor has.
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (program, EXIT_CODE);
    None
}

/// The instruction level that kernels compute with: `amx_bf16`, `avx512_bf16`,
/// `avx512`, `avx2` or `x86-64`; elsewhere the architecture's name. Libraries choose by
/// the processor, the project's own kernels by what the program was built for: where
/// that is less, both are named. Two processes of one level give the same bits.
pub fn level() -> &'static str {
    static LEVEL: std::sync::LazyLock<String> =
        std::sync::LazyLock::new(|| named(found_level(), built_level()));
    &LEVEL
}

fn named(found: &str, built: &str) -> String {
    // No program is built for amx yet: its kernels are those of avx512_bf16.
    if found == built || (found, built) == ("amx_bf16", "avx512_bf16") {
        found.to_owned()
    } else {
        format!("{found}, built for {built}")
    }
}

/// What this program was built for.
fn built_level() -> &'static str {
    match () {
        () if !cfg!(target_arch = "x86_64") => std::env::consts::ARCH,
        () if cfg!(target_feature = "avx512bf16") => "avx512_bf16",
        () if cfg!(target_feature = "avx512vl") => "avx512",
        () if cfg!(all(target_feature = "avx2", target_feature = "fma")) => "avx2",
        () => "x86-64",
    }
}

/// What the processor has.
fn found_level() -> &'static str {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::is_x86_feature_detected as has;
        let avx512 = has!("avx512f") && has!("avx512bw") && has!("avx512dq") && has!("avx512vl");
        // Leaf 7, EDX: bit 22 is amx-bf16, which std does not know yet.
        let amx = std::arch::x86_64::__cpuid_count(7, 0).edx & (1 << 22) != 0;
        match () {
            () if avx512 && amx => "amx_bf16",
            () if avx512 && has!("avx512bf16") => "avx512_bf16",
            () if avx512 => "avx512",
            () if has!("avx2") && has!("fma") => "avx2",
            () => "x86-64",
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    std::env::consts::ARCH
}

/// Whether the processor multiplies bf16 matrices fast.
pub fn fast_bf16() -> bool {
    #[cfg(target_arch = "x86_64")]
    return std::arch::is_x86_feature_detected!("avx512bf16");
    #[cfg(target_arch = "aarch64")]
    return std::arch::is_aarch64_feature_detected!("bf16");
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    false
}

/// Cores that this process may use.
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// Main memory of the machine; 0: not known.
pub fn memory_bytes() -> u64 {
    std::fs::read_to_string("/proc/meminfo")
        .ok()
        .and_then(|text| {
            let line = text
                .lines()
                .find(|l| l.starts_with("MemTotal:"))?
                .to_owned();
            line.split_whitespace().nth(1)?.parse::<u64>().ok()
        })
        .map_or(0, |kib| kib * 1024)
}

/// Words on stderr, past std's locks and formatting.
#[cfg(target_arch = "x86_64")]
fn say(words: &'static str) {
    // SAFETY: the pointer and the length are those of a living string.
    let _ = unsafe { libc::write(libc::STDERR_FILENO, words.as_ptr().cast(), words.len()) };
}

#[cfg(target_arch = "x86_64")]
mod x86_64 {
    use std::arch::x86_64::{__cpuid, __cpuid_count};
    use std::hint::black_box;

    /// Gives the features of one register.
    pub(super) type Look<'a> = &'a dyn Fn(Register) -> u32;

    /// Where `cpuid` names features; the system's own word on the registers it saves.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(super) enum Register {
        /// Leaf 1.
        L1Ecx,
        /// Leaf 7, subleaf 0.
        L7Ebx,
        L7Ecx,
        L7Edx,
        /// Leaf 7, subleaf 1.
        L71Eax,
        L71Edx,
        /// Leaf 0x8000_0001.
        LxEcx,
        /// Bit 0: the system saves ymm registers; bit 1: zmm registers too.
        Saved,
    }

    /// The bit of that number, or none.
    const fn bit(is: bool, number: u32) -> u32 {
        if is { 1 << number } else { 0 }
    }

    /// Feature as rustc names it, and where `cpuid` has it.
    macro_rules! table {
        ($($register:ident { $($feature:literal $bit:literal,)+ })+) => {
            /// What this program was built with.
            pub(super) fn needed(register: Register) -> u32 {
                match register {
                    $(Register::$register => {
                        const { $(bit(cfg!(target_feature = $feature), $bit))|+ }
                    })+
                    Register::Saved => const {
                        bit(cfg!(target_feature = "avx"), 0) | bit(cfg!(target_feature = "avx512f"), 1)
                    },
                }
            }

            /// Every feature in the table.
            #[cfg(test)]
            pub(super) const NAMES: &[&str] = &[$($($feature,)+)+];

            /// Where a feature is.
            #[cfg(test)]
            pub(super) fn place(name: &str) -> (Register, u32) {
                $($(if name == $feature { return (Register::$register, bit(true, $bit)); })+)+
                panic!("{name} is in no register");
            }

            /// Names what `of` has.
            #[inline(never)]
            fn name(of: Look, say: &mut dyn FnMut(&'static str)) {
                $(
                    let bits = of(Register::$register);
                    $(
                        if black_box(bits) & const { bit(true, $bit) } != 0 {
                            say(concat!(" ", $feature));
                        }
                    )+
                )+
                let bits = of(Register::Saved);
                if black_box(bits) & 1 != 0 {
                    say(" (ymm registers saved by the system)");
                }
                if black_box(bits) & 2 != 0 {
                    say(" (zmm registers saved by the system)");
                }
            }

            /// Whether it has nothing.
            #[inline(never)]
            fn is_empty(of: Look) -> bool {
                $(if black_box(of(Register::$register)) != 0 { return false; })+
                black_box(of(Register::Saved)) == 0
            }
        };
    }

    table! {
        L1Ecx {
            "sse3" 0, "pclmulqdq" 1, "ssse3" 9, "fma" 12, "cmpxchg16b" 13, "sse4.1" 19,
            "sse4.2" 20, "movbe" 22, "popcnt" 23, "aes" 25, "avx" 28, "f16c" 29, "rdrand" 30,
        }
        L7Ebx {
            "bmi1" 3, "avx2" 5, "bmi2" 8, "avx512f" 16, "avx512dq" 17, "rdseed" 18, "adx" 19,
            "avx512ifma" 21, "avx512cd" 28, "sha" 29, "avx512bw" 30, "avx512vl" 31,
        }
        L7Ecx {
            "avx512vbmi" 1, "avx512vbmi2" 6, "gfni" 8, "vaes" 9, "vpclmulqdq" 10,
            "avx512vnni" 11, "avx512bitalg" 12, "avx512vpopcntdq" 14, "kl" 23,
        }
        L7Edx {
            "avx512vp2intersect" 8, "amx-bf16" 22, "avx512fp16" 23, "amx-tile" 24, "amx-int8" 25,
        }
        L71Eax {
            "sha512" 0, "sm3" 1, "sm4" 2, "avxvnni" 4, "avx512bf16" 5, "amx-fp16" 21,
            "avxifma" 23,
        }
        L71Edx {
            "avxvnniint8" 4, "avxneconvert" 5, "amx-complex" 8, "avxvnniint16" 10,
        }
        LxEcx {
            "lzcnt" 5, "sse4a" 6, "tbm" 21,
        }
    }

    /// Asks the processor.
    pub(super) fn found(register: Register) -> u32 {
        let leaf_7 = |subleaf: u32| __cpuid(0).eax >= 7 && __cpuid_count(7, 0).eax >= subleaf;
        match register {
            Register::L1Ecx => __cpuid(1).ecx,
            Register::L7Ebx if leaf_7(0) => __cpuid_count(7, 0).ebx,
            Register::L7Ecx if leaf_7(0) => __cpuid_count(7, 0).ecx,
            Register::L7Edx if leaf_7(0) => __cpuid_count(7, 0).edx,
            Register::L71Eax if leaf_7(1) => __cpuid_count(7, 1).eax,
            Register::L71Edx if leaf_7(1) => __cpuid_count(7, 1).edx,
            Register::LxEcx if __cpuid(0x8000_0000).eax > 0x8000_0000 => __cpuid(0x8000_0001).ecx,
            // OSXSAVE: the system says what it saves.
            Register::Saved if __cpuid(1).ecx & (1 << 27) != 0 => match xcr0() {
                all if all & 0xe6 == 0xe6 => 3,
                some if some & 0x6 == 0x6 => 1,
                _ => 0,
            },
            _ => 0,
        }
    }

    fn xcr0() -> u32 {
        let low: u32;
        // SAFETY: xgetbv with ecx 0 is there where OSXSAVE is set, and only reads.
        unsafe {
            std::arch::asm!(
                "xgetbv",
                in("ecx") 0,
                out("eax") low,
                out("edx") _,
                options(nomem, nostack, preserves_flags)
            );
        }
        low
    }

    /// Whether all that is needed is found; says so if it is not.
    #[inline(never)]
    pub(super) fn explain(
        program: &'static str,
        needed: Look,
        found: Look,
        say: &mut dyn FnMut(&'static str),
    ) -> bool {
        // Without `andn`, which is an instruction of BMI1.
        let lacking = |register| {
            let needed = needed(register);
            black_box(needed & found(register)) ^ needed
        };
        if is_empty(&lacking) {
            return true;
        }
        say("error: this ");
        say(program);
        say(" was built for another processor and cannot run on this one\n  it uses:");
        name(needed, say);
        say("\n  this processor lacks:");
        name(&lacking, say);
        say(
            "\n  = help: build it on this machine (`make build`): a build uses what the processor at hand has\n",
        );
        false
    }
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use super::x86_64::{Look, NAMES, Register, explain, found, needed, place};

    fn said(needed: Look, found: Look) -> Option<String> {
        let mut text = String::new();
        let runs = explain("genius", needed, found, &mut |words| text.push_str(words));
        assert_eq!(runs, text.is_empty());
        (!runs).then_some(text)
    }

    /// A processor, or a build, with these features.
    fn with(names: &[&str]) -> impl Fn(Register) -> u32 {
        let places: Vec<(Register, u32)> = names.iter().map(|n| place(n)).collect();
        move |register| {
            let own = places.iter().filter(|(r, _)| *r == register);
            own.fold(0, |bits, (_, bit)| bits | bit)
        }
    }

    #[test]
    fn what_a_processor_lacks_is_named() {
        let build = with(&["sse3", "fma", "avx", "avx2", "lzcnt"]);
        insta::assert_snapshot!(said(&build, &with(&["sse3", "fma", "bmi1"])).unwrap(), @r"
        error: this genius was built for another processor and cannot run on this one
          it uses: sse3 fma avx avx2 lzcnt
          this processor lacks: avx avx2 lzcnt
          = help: build it on this machine (`make build`): a build uses what the processor at hand has
        ");
        assert_eq!(said(&build, &build), None);
        assert_eq!(said(&with(&[]), &with(&[])), None);
    }

    #[test]
    fn a_build_for_less_is_another_level() {
        use super::named;
        assert_eq!(named("avx512", "avx512"), "avx512");
        assert_eq!(named("amx_bf16", "avx512_bf16"), "amx_bf16");
        assert_eq!(named("avx512", "avx2"), "avx512, built for avx2");
        assert_ne!(named("avx512", "avx2"), named("avx512", "avx512"));
    }

    #[test]
    fn every_feature_is_missed_by_its_name() {
        for name in NAMES {
            let others: Vec<&str> = NAMES.iter().copied().filter(|n| n != name).collect();
            let text = said(&with(NAMES), &with(&others)).unwrap();
            let lacks = text.lines().find(|l| l.contains("lacks")).unwrap();
            assert_eq!(lacks, format!("  this processor lacks: {name}"));
        }
    }

    #[test]
    fn registers_that_the_system_does_not_save_are_missed() {
        let saves = |bits: u32| move |r: Register| if r == Register::Saved { bits } else { 0 };
        let text = said(&saves(3), &saves(1)).unwrap();
        assert!(
            text.contains("lacks: (zmm registers saved by the system)"),
            "{text}"
        );
    }

    #[test]
    fn this_processor_runs_what_was_built_on_it() {
        assert_eq!(said(&needed, &found), None);
    }

    /// A feature that is not in the table would be missed by SIGILL.
    #[test]
    fn every_feature_of_the_build_is_looked_for() {
        // Of the base of the architecture, or used by nothing but code that asks first.
        const OTHERS: [&str; 9] = [
            "fxsr", "sse", "sse2", "x87", "xsave", "xsavec", "xsaveopt", "xsaves", "lahfsahf",
        ];
        for feature in env!("GENIUS_TARGET_FEATURES").split(',') {
            assert!(
                NAMES.contains(&feature) || OTHERS.contains(&feature),
                "`{feature}` is in no table"
            );
        }
    }

    /// Std agrees (of what this build has it says yes without looking).
    #[test]
    fn std_finds_the_same() {
        macro_rules! agree {
            ($($feature:tt)+) => {$(
                let lacks = said(&with(&[$feature]), &found).is_some();
                assert_eq!(!lacks, std::arch::is_x86_feature_detected!($feature), $feature);
            )+};
        }
        agree!("sse3" "ssse3" "sse4.1" "sse4.2" "popcnt" "avx" "avx2" "fma" "f16c" "bmi1" "bmi2"
            "lzcnt" "movbe" "aes" "pclmulqdq" "sha" "adx" "rdrand" "rdseed" "cmpxchg16b" "avx512f"
            "avx512bw" "avx512cd" "avx512dq" "avx512vl" "avx512vnni" "avx512bf16" "avx512fp16"
            "avx512ifma" "avx512vbmi" "avx512vbmi2" "avx512bitalg" "avx512vpopcntdq"
            "avx512vp2intersect" "gfni" "vaes" "vpclmulqdq" "avxvnni" "avxifma" "avxneconvert"
            "avxvnniint8" "avxvnniint16" "sse4a" "tbm");
    }
}
