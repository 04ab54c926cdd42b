//! Sixteen f32 numbers at a time: [`F32x16`], one AVX-512 register where the
//! program is built for a processor that has them, an array elsewhere.
//!
//! What is computed with it has a written order of operations, so the same
//! program gives the same bits whatever runs beside it.

/// Numbers in an [`F32x16`].
pub const LANES: usize = 16;

pub use imp::F32x16;

#[cfg(all(target_arch = "x86_64", target_feature = "avx512f"))]
mod imp {
    use std::arch::x86_64::{
        __m512, _CMP_GE_OQ, _mm512_add_ps, _mm512_cmp_ps_mask, _mm512_div_ps, _mm512_fmadd_ps,
        _mm512_loadu_ps, _mm512_max_ps, _mm512_min_ps, _mm512_mul_ps, _mm512_scalef_ps,
        _mm512_set1_ps, _mm512_storeu_ps, _mm512_sub_ps,
    };

    #[cfg(target_feature = "avx512bf16")]
    use std::arch::x86_64::{__m256bh, _mm512_cvtneps_pbh};

    /// Sixteen f32 numbers.
    #[derive(Debug, Clone, Copy)]
    pub struct F32x16(pub(crate) __m512);

    #[expect(
        clippy::undocumented_unsafe_blocks,
        reason = "of all of them: this module exists only where the whole program is built \
                  for AVX-512F, and what pointers point to is the callers' promise"
    )]
    impl F32x16 {
        #[inline(always)]
        pub fn splat(value: f32) -> Self {
            Self(unsafe { _mm512_set1_ps(value) })
        }

        /// # Safety
        /// 16 numbers can be read at `from`.
        #[inline(always)]
        pub unsafe fn load(from: *const f32) -> Self {
            Self(unsafe { _mm512_loadu_ps(from) })
        }

        /// # Safety
        /// 16 numbers can be written at `to`.
        #[inline(always)]
        pub unsafe fn store(self, to: *mut f32) {
            unsafe { _mm512_storeu_ps(to, self.0) }
        }

        #[inline(always)]
        pub fn add(self, other: Self) -> Self {
            Self(unsafe { _mm512_add_ps(self.0, other.0) })
        }

        #[inline(always)]
        pub fn sub(self, other: Self) -> Self {
            Self(unsafe { _mm512_sub_ps(self.0, other.0) })
        }

        #[inline(always)]
        pub fn mul(self, other: Self) -> Self {
            Self(unsafe { _mm512_mul_ps(self.0, other.0) })
        }

        #[inline(always)]
        pub fn div(self, other: Self) -> Self {
            Self(unsafe { _mm512_div_ps(self.0, other.0) })
        }

        /// self * a + b, rounded once.
        #[inline(always)]
        pub fn mul_add(self, a: Self, b: Self) -> Self {
            Self(unsafe { _mm512_fmadd_ps(self.0, a.0, b.0) })
        }

        #[inline(always)]
        pub fn max(self, other: Self) -> Self {
            Self(unsafe { _mm512_max_ps(self.0, other.0) })
        }

        #[inline(always)]
        pub fn min(self, other: Self) -> Self {
            Self(unsafe { _mm512_min_ps(self.0, other.0) })
        }

        /// A bit for each place where it is at least `other`, the first one lowest.
        #[inline(always)]
        pub fn at_least(self, other: Self) -> u16 {
            unsafe { _mm512_cmp_ps_mask::<_CMP_GE_OQ>(self.0, other.0) }
        }

        /// Rounds to sixteen bf16 numbers, to the nearest, ties to even.
        ///
        /// # Safety
        /// 16 numbers can be written at `to`.
        #[cfg(target_feature = "avx512bf16")]
        #[inline(always)]
        pub unsafe fn store_bf16(self, to: *mut u16) {
            unsafe {
                let narrow: __m256bh = _mm512_cvtneps_pbh(self.0);
                to.cast::<__m256bh>().write_unaligned(narrow);
            }
        }

        /// self * 2^power, for whole powers.
        #[inline(always)]
        pub(super) fn times_power_of_two(self, power: Self) -> Self {
            Self(unsafe { _mm512_scalef_ps(self.0, power.0) })
        }
    }
}

#[cfg(not(all(target_arch = "x86_64", target_feature = "avx512f")))]
mod imp {
    use super::LANES;

    /// Sixteen f32 numbers.
    #[derive(Debug, Clone, Copy)]
    pub struct F32x16(pub(crate) [f32; LANES]);

    impl F32x16 {
        #[inline(always)]
        pub fn splat(value: f32) -> Self {
            Self([value; LANES])
        }

        /// # Safety
        /// 16 numbers can be read at `from`.
        #[inline(always)]
        pub unsafe fn load(from: *const f32) -> Self {
            // SAFETY: the caller's promise.
            Self(unsafe { from.cast::<[f32; LANES]>().read_unaligned() })
        }

        /// # Safety
        /// 16 numbers can be written at `to`.
        #[inline(always)]
        pub unsafe fn store(self, to: *mut f32) {
            // SAFETY: the caller's promise.
            unsafe { to.cast::<[f32; LANES]>().write_unaligned(self.0) }
        }

        #[inline(always)]
        fn with(mut self, other: Self, f: impl Fn(f32, f32) -> f32) -> Self {
            for (a, b) in self.0.iter_mut().zip(other.0) {
                *a = f(*a, b);
            }
            self
        }

        #[inline(always)]
        pub fn add(self, other: Self) -> Self {
            self.with(other, |a, b| a + b)
        }

        #[inline(always)]
        pub fn sub(self, other: Self) -> Self {
            self.with(other, |a, b| a - b)
        }

        #[inline(always)]
        pub fn mul(self, other: Self) -> Self {
            self.with(other, |a, b| a * b)
        }

        #[inline(always)]
        pub fn div(self, other: Self) -> Self {
            self.with(other, |a, b| a / b)
        }

        /// self * a + b; rounded once where the processor can.
        #[inline(always)]
        pub fn mul_add(mut self, a: Self, b: Self) -> Self {
            for i in 0..LANES {
                self.0[i] = if cfg!(any(target_feature = "fma", target_arch = "aarch64")) {
                    self.0[i].mul_add(a.0[i], b.0[i])
                } else {
                    self.0[i] * a.0[i] + b.0[i]
                };
            }
            self
        }

        #[inline(always)]
        pub fn max(self, other: Self) -> Self {
            self.with(other, |a, b| if a > b { a } else { b })
        }

        #[inline(always)]
        pub fn min(self, other: Self) -> Self {
            self.with(other, |a, b| if a < b { a } else { b })
        }

        /// A bit for each place where it is at least `other`, the first one lowest.
        #[inline(always)]
        pub fn at_least(self, other: Self) -> u16 {
            let places = self.0.iter().zip(other.0).enumerate();
            places.fold(0, |bits, (i, (a, b))| bits | (u16::from(*a >= b) << i))
        }

        /// self * 2^power, for whole powers from -126 to 127.
        #[inline(always)]
        pub(super) fn times_power_of_two(self, power: Self) -> Self {
            self.with(power, |a, n| {
                a * f32::from_bits(((n as i32 + 127) as u32) << 23)
            })
        }
    }
}

impl F32x16 {
    /// These numbers.
    #[inline(always)]
    pub fn from_array(numbers: &[f32; LANES]) -> Self {
        // SAFETY: there are 16.
        unsafe { Self::load(numbers.as_ptr()) }
    }

    /// Writes the numbers to `to`.
    #[inline(always)]
    pub fn write(self, to: &mut [f32; LANES]) {
        // SAFETY: it has 16 places.
        unsafe { self.store(to.as_mut_ptr()) }
    }

    /// The numbers in order.
    #[inline(always)]
    pub fn to_array(self) -> [f32; LANES] {
        let mut out = [0.0; LANES];
        self.write(&mut out);
        out
    }

    /// Their sum, halves with halves.
    #[inline(always)]
    pub fn sum(self) -> f32 {
        let mut a = self.to_array();
        for half in [8, 4, 2, 1] {
            for i in 0..half {
                a[i] += a[i + half];
            }
        }
        a[0]
    }

    /// The highest.
    #[inline(always)]
    pub fn highest(self) -> f32 {
        self.to_array()
            .into_iter()
            .fold(f32::NEG_INFINITY, f32::max)
    }

    /// e^x to about 1e-7 of itself (Cephes' `expf`); below -87 as at -87.
    #[inline(always)]
    pub fn exp(self) -> Self {
        // Adding it leaves no room after the point.
        const ROUND: f32 = 12_582_912.0;
        let c = Self::splat;
        let x = self.max(c(-87.0)).min(c(88.0));
        let n = x
            .mul_add(c(std::f32::consts::LOG2_E), c(ROUND))
            .sub(c(ROUND));
        // ln 2 in two parts, the first of few digits.
        let r = n.mul_add(c(-0.693_359_4), x);
        let r = n.mul_add(c(2.121_944_4e-4), r);
        let p = r
            .mul_add(c(1.987_569_1e-4), c(1.398_2e-3))
            .mul_add(r, c(8.333_452e-3))
            .mul_add(r, c(4.166_579_6e-2))
            .mul_add(r, c(1.666_666_5e-1))
            .mul_add(r, c(0.5));
        p.mul_add(r.mul(r), r).add(c(1.0)).times_power_of_two(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_right_to_a_few_units_of_the_last_place() {
        let mut x = -86.9_f32;
        while x < 87.0 {
            let values: Vec<f32> = (0..16).map(|i| x + i as f32 * 0.01).collect();
            let (sixteen, _) = values.as_chunks();
            let got = F32x16::from_array(&sixteen[0]).exp().to_array();
            for (v, got) in values.iter().zip(got) {
                let want = f64::from(*v).exp();
                assert!(
                    ((f64::from(got) - want) / want).abs() < 3e-7,
                    "exp({v}) is not {got}"
                );
            }
            x += 0.37;
        }
        assert!(F32x16::splat(f32::NEG_INFINITY).exp().highest() < 1e-37);
    }

    #[test]
    fn sum_and_highest_see_every_lane() {
        for i in 0..LANES {
            let mut values = [0.0_f32; LANES];
            values[i] = 3.0;
            let lanes = F32x16::from_array(&values);
            assert_eq!((lanes.sum(), lanes.highest()), (3.0, 3.0));
        }
    }
}
