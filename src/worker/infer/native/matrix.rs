//! Weight matrices packed once for the processor: [`Matrix`].
//!
//! A product's row is computed by itself: every element is one sum over the
//! inner width in ascending order, in f32, whatever other rows there are and
//! however they are cut into blocks. So a row has the same bits alone, among
//! 64 others, and in the prefill of a prompt.
//!
//! Weights lie in panels of [`PANEL`] outputs, within one by the inner index, so
//! that a product reads each weight from memory once, in order.

pub use half::bf16 as Bf16;

use super::super::lanes::{F32x16, LANES};
use super::parts::{Columns, Rows};

/// Outputs of a panel.
pub const PANEL: usize = 3 * LANES;
/// Rows of a block: 8 times 3 registers of sums, and some for the weights.
const BLOCK: usize = 8;

/// A number format of weights, activations that enter a product, and the cache.
///
/// # Safety
/// The kernels take these for granted, in places and in pointers:
///
/// - It is plain data, of at most f32's size and alignment, so that it can be written
///   where an f32 stands and read again from there.
/// - [`Number::STEP`] is not 0 and divides [`LANES`].
/// - [`Number::store`], [`Number::multiply`] and [`Number::multiply_first`] read and write no
///   more than they name.
pub unsafe trait Number: Copy + Send + Sync + Default + 'static {
    /// Inner indices that one multiplication of a register takes.
    const STEP: usize;

    /// The nearest number, ties to even.
    fn narrow(value: f32) -> Self;
    /// Its value.
    fn widen(self) -> f32;
    /// Sixteen numbers, narrowed.
    ///
    /// # Safety
    /// 16 numbers can be written at `to`.
    unsafe fn store(values: F32x16, to: *mut Self);
    /// `sums` plus the products of 16 outputs' weights, `STEP` of each, and `STEP` activations.
    ///
    /// # Safety
    /// 16 * `STEP` numbers can be read at `weights`, `STEP` at `x`.
    unsafe fn multiply(weights: *const Self, x: *const Self, sums: F32x16) -> F32x16;
    /// The same with the first of every `STEP` weights and activations alone, whatever the others are.
    ///
    /// # Safety
    /// As [`Number::multiply`].
    unsafe fn multiply_first(weights: *const Self, x: *const Self, sums: F32x16) -> F32x16;
}

// SAFETY: an f32 is one; STEP is 1; `store` writes 16 numbers, `multiply` reads 16 weights
// and one activation.
unsafe impl Number for f32 {
    const STEP: usize = 1;

    #[inline(always)]
    fn narrow(value: f32) -> Self {
        value
    }

    #[inline(always)]
    fn widen(self) -> f32 {
        self
    }

    #[inline(always)]
    unsafe fn store(values: F32x16, to: *mut Self) {
        // SAFETY: the caller's promise.
        unsafe { values.store(to) }
    }

    #[inline(always)]
    unsafe fn multiply(weights: *const Self, x: *const Self, sums: F32x16) -> F32x16 {
        // SAFETY: the caller's promise.
        unsafe { F32x16::load(weights).mul_add(F32x16::splat(*x), sums) }
    }

    #[inline(always)]
    unsafe fn multiply_first(weights: *const Self, x: *const Self, sums: F32x16) -> F32x16 {
        // SAFETY: the caller's promise; of one number the first is all.
        unsafe { Self::multiply(weights, x, sums) }
    }
}

// SAFETY: it is a transparent u16; STEP is 2; `store` writes 16 numbers, `multiply` and
// `multiply_first` read 32 weights and at most two activations.
unsafe impl Number for Bf16 {
    const STEP: usize = 2;

    #[inline(always)]
    fn narrow(value: f32) -> Self {
        Self::from_f32(value)
    }

    #[inline(always)]
    fn widen(self) -> f32 {
        // `to_f32` branches on NaN, which makes it twice as slow.
        f32::from_bits(u32::from(self.to_bits()) << 16)
    }

    #[cfg(all(target_arch = "x86_64", target_feature = "avx512bf16"))]
    #[inline(always)]
    unsafe fn store(values: F32x16, to: *mut Self) {
        // SAFETY: the caller's promise; a `Bf16` is a u16.
        unsafe { values.store_bf16(to.cast()) }
    }

    #[cfg(not(all(target_arch = "x86_64", target_feature = "avx512bf16")))]
    #[inline(always)]
    unsafe fn store(values: F32x16, to: *mut Self) {
        let narrow = values.to_array().map(Self::narrow);
        // SAFETY: the caller's promise.
        unsafe { to.cast::<[Self; LANES]>().write_unaligned(narrow) }
    }

    #[cfg(all(target_arch = "x86_64", target_feature = "avx512bf16"))]
    #[inline(always)]
    unsafe fn multiply(weights: *const Self, x: *const Self, sums: F32x16) -> F32x16 {
        use std::arch::x86_64::{
            __m512bh, __m512i, _mm512_dpbf16_ps, _mm512_loadu_si512, _mm512_set1_epi32,
        };
        // SAFETY: 32 weights of two bytes and two activations can be read, by the caller's
        // promise; the registers have the same size, and all bits are numbers.
        unsafe {
            let w: __m512i = _mm512_loadu_si512(weights.cast());
            let x = _mm512_set1_epi32(x.cast::<i32>().read_unaligned());
            let (w, x) = (
                std::mem::transmute::<__m512i, __m512bh>(w),
                std::mem::transmute::<__m512i, __m512bh>(x),
            );
            F32x16(_mm512_dpbf16_ps(sums.0, w, x))
        }
    }

    #[cfg(not(all(target_arch = "x86_64", target_feature = "avx512bf16")))]
    #[inline(always)]
    unsafe fn multiply(weights: *const Self, x: *const Self, sums: F32x16) -> F32x16 {
        let (mut first, mut second) = ([0.0_f32; LANES], [0.0_f32; LANES]);
        // SAFETY: 32 weights, of which two are a u32, and two activations can be read, by
        // the caller's promise.
        unsafe {
            let weights = weights.cast::<u32>();
            for i in 0..LANES {
                let both = weights.add(i).read_unaligned().to_le();
                first[i] = f32::from_bits(both << 16);
                second[i] = f32::from_bits(both & 0xffff_0000);
            }
            let sums = F32x16::from_array(&first).mul_add(F32x16::splat((*x).widen()), sums);
            F32x16::from_array(&second).mul_add(F32x16::splat((*x.add(1)).widen()), sums)
        }
    }

    #[inline(always)]
    unsafe fn multiply_first(weights: *const Self, x: *const Self, sums: F32x16) -> F32x16 {
        // SAFETY: 32 weights and one activation can be read, by the caller's promise; the
        // arrays made of them are as long.
        unsafe {
            let mut first = weights.cast::<[Self; 2 * LANES]>().read_unaligned();
            for pair in first.chunks_exact_mut(2) {
                pair[1] = Self::ZERO;
            }
            Self::multiply(first.as_ptr(), [*x, Self::ZERO].as_ptr(), sums)
        }
    }
}

/// What becomes of a product.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    /// It replaces what is there.
    Store,
    /// It is added to it.
    Add,
}

/// A matrix [outputs, inner], packed.
#[derive(Debug, Clone)]
pub struct Matrix<E> {
    /// Panel by panel: inner index / STEP, output, inner index % STEP. Filled up with zeros.
    packed: Vec<E>,
    /// One number an output, filled up; or nothing.
    bias: Vec<f32>,
    outputs: usize,
    inner: usize,
}

impl<E: Number> Matrix<E> {
    /// Packs rows of `inner` numbers each, one an output, with a bias each or none.
    ///
    /// # Panics
    /// When `rows` are not whole rows, or the biases are not as many.
    pub fn pack(rows: &[f32], inner: usize, bias: Option<&[f32]>) -> Self {
        assert!(
            inner > 0 && !rows.is_empty() && rows.len().is_multiple_of(inner),
            "{} weights are not rows of {inner}",
            rows.len()
        );
        let outputs = rows.len() / inner;
        let panels = outputs.div_ceil(PANEL);
        let of_panel = inner
            .checked_next_multiple_of(E::STEP)
            .and_then(|padded| padded.checked_mul(PANEL));
        let len = of_panel.and_then(|of_panel| of_panel.checked_mul(panels));
        let (Some(of_panel), Some(len)) = (of_panel, len) else {
            panic!("a matrix of {outputs} outputs and inner width {inner} overflows");
        };
        let mut packed = vec![E::default(); len];
        for (output, row) in rows.chunks_exact(inner).enumerate() {
            let base = output / PANEL * of_panel + output % PANEL * E::STEP;
            for (k, &value) in row.iter().enumerate() {
                packed[base + k / E::STEP * PANEL * E::STEP + k % E::STEP] = E::narrow(value);
            }
        }
        let bias = bias.map_or_else(Vec::new, |bias| {
            assert_eq!(
                bias.len(),
                outputs,
                "a matrix has as many biases as outputs"
            );
            let mut padded = bias.to_vec();
            padded.resize(panels * PANEL, 0.0);
            padded
        });
        Self {
            packed,
            bias,
            outputs,
            inner,
        }
    }

    /// Outputs.
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// Panels of outputs.
    pub fn panels(&self) -> usize {
        self.outputs.div_ceil(PANEL)
    }

    /// Inner width as the activations need it: filled up with zeros to a whole step.
    pub fn padded_inner(&self) -> usize {
        self.inner.next_multiple_of(E::STEP)
    }

    /// Writes the weights of one output to `to`.
    ///
    /// # Panics
    /// When there is no such output, or `to` is not as long as its weights.
    pub fn row(&self, output: usize, to: &mut [f32]) {
        assert!(
            output < self.outputs,
            "output {output} of a matrix of {}",
            self.outputs
        );
        assert_eq!(
            to.len(),
            self.inner,
            "an output has as many weights as the inner width"
        );
        let base = output / PANEL * self.padded_inner() * PANEL + output % PANEL * E::STEP;
        for (k, to) in to.iter_mut().enumerate() {
            *to = self.packed[base + k / E::STEP * PANEL * E::STEP + k % E::STEP].widen();
        }
    }

    /// The outputs of one panel for the rows `x` of [`Matrix::padded_inner`] activations,
    /// into as many rows of [`PANEL`] columns.
    ///
    /// # Panics
    /// When there is no such panel, or rows or columns have other shapes.
    pub fn multiply(&self, panel: usize, x: Rows<'_, E>, out: &mut Columns<'_, f32>, into: Output) {
        assert!(
            panel < self.panels(),
            "panel {panel} of a matrix of {}",
            self.panels()
        );
        assert_eq!(
            x.width(),
            self.padded_inner(),
            "a row of activations has the inner width of the weights"
        );
        assert_eq!(out.width(), PANEL, "a product fills a panel");
        assert_eq!(
            out.rows(),
            x.count(),
            "a product has as many rows as its activations"
        );
        let len = self.padded_inner() * PANEL;
        let weights = &self.packed[panel * len..(panel + 1) * len];
        let bias = self.bias.get(panel * PANEL..(panel + 1) * PANEL);
        let (x_stride, out_stride) = (x.stride(), out.stride());
        let mut row = 0;
        while row < x.count() {
            let count = (x.count() - row).min(BLOCK);
            let call = match count {
                1 => block::<E, 1>,
                2 => block::<E, 2>,
                3 => block::<E, 3>,
                4 => block::<E, 4>,
                5 => block::<E, 5>,
                6 => block::<E, 6>,
                7 => block::<E, 7>,
                _ => block::<E, BLOCK>,
            };
            // SAFETY: `weights` are those of a panel and `bias` its biases, by `pack`; rows
            // `row` to `row + count` are among those of `x` and `out`, whose widths were
            // compared, and `out` is this call's alone.
            unsafe {
                let x = x.as_ptr().add(row * x_stride);
                let out = out.as_mut_ptr().add(row * out_stride);
                call(weights, bias, x, x_stride, out, out_stride, into);
            }
            row += count;
        }
    }
}

/// A block of `R` rows of a panel.
///
/// # Safety
/// `weights` are a whole number of steps of [`PANEL`] outputs; `bias` has [`PANEL`] numbers.
/// As many inner indices of `R` rows can be read at `x`, one row every `x_stride` numbers;
/// [`PANEL`] numbers of `R` rows can be read and written at `out`, one row every `out_stride`,
/// and nobody else reaches them.
#[inline(never)]
unsafe fn block<E: Number, const R: usize>(
    weights: &[E],
    bias: Option<&[f32]>,
    x: *const E,
    x_stride: usize,
    out: *mut f32,
    out_stride: usize,
    into: Output,
) {
    const COLUMNS: usize = PANEL / LANES;
    let steps = weights.len() / (PANEL * E::STEP);
    let mut sums = [[F32x16::splat(0.0); COLUMNS]; R];
    // SAFETY: `weights` holds `steps` times PANEL * STEP numbers, of which each step of the
    // loop reads its own; the rest is the caller's promise.
    unsafe {
        if let Some(bias) = bias {
            for row in &mut sums {
                for (c, sum) in row.iter_mut().enumerate() {
                    *sum = F32x16::load(bias.as_ptr().add(c * LANES));
                }
            }
        }
        let mut w = weights.as_ptr();
        let mut x = x;
        for _ in 0..steps {
            for (r, row) in sums.iter_mut().enumerate() {
                for (c, sum) in row.iter_mut().enumerate() {
                    *sum = E::multiply(w.add(c * LANES * E::STEP), x.add(r * x_stride), *sum);
                }
            }
            w = w.add(PANEL * E::STEP);
            x = x.add(E::STEP);
        }
        for (r, row) in sums.iter().enumerate() {
            for (c, sum) in row.iter().enumerate() {
                let to = out.add(r * out_stride + c * LANES);
                match into {
                    Output::Store => sum.store(to),
                    Output::Add => sum.add(F32x16::load(to)).store(to),
                }
            }
        }
    }
}

#[cfg(test)]
#[path = "matrix_tests.rs"]
mod tests;
