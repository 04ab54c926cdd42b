//! [`Quantisation`]: how GGUF stores values, and back to f32. The block
//! formats are ggml's; candle's implementation of them does the arithmetic.

use std::fmt;

use candle_core::Device;
use candle_core::quantized::{GgmlDType, ggml_file::qtensor_from_ggml};
use half::{bf16, f16};

/// A way of storing values that is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quantisation {
    F32,
    F16,
    Bf16,
    Q4_0,
    Q4_1,
    Q8_0,
    Q4K,
    Q6K,
}

/// All of them with their number in the format (ggml.h, `enum ggml_type`) and
/// its name there.
const READ: &[(u32, Quantisation, &str)] = &[
    (0, Quantisation::F32, "F32"),
    (1, Quantisation::F16, "F16"),
    (30, Quantisation::Bf16, "BF16"),
    (8, Quantisation::Q8_0, "Q8_0"),
    (2, Quantisation::Q4_0, "Q4_0"),
    (3, Quantisation::Q4_1, "Q4_1"),
    (12, Quantisation::Q4K, "Q4_K"),
    (14, Quantisation::Q6K, "Q6_K"),
];

/// Names of the others, so that a refusal names the type.
const REFUSED: &[(u32, &str)] = &[
    (6, "Q5_0"),
    (7, "Q5_1"),
    (9, "Q8_1"),
    (10, "Q2_K"),
    (11, "Q3_K"),
    (13, "Q5_K"),
    (15, "Q8_K"),
    (16, "IQ2_XXS"),
    (17, "IQ2_XS"),
    (18, "IQ3_XXS"),
    (19, "IQ1_S"),
    (20, "IQ4_NL"),
    (21, "IQ3_S"),
    (22, "IQ2_S"),
    (23, "IQ4_XS"),
    (24, "I8"),
    (25, "I16"),
    (26, "I32"),
    (27, "I64"),
    (28, "F64"),
    (29, "IQ1_M"),
    (34, "TQ1_0"),
    (35, "TQ2_0"),
    (39, "MXFP4"),
];

impl Quantisation {
    /// The one with this number; the name of the type if it is not read.
    ///
    /// # Errors
    /// The type's name.
    pub fn from_number(number: u32) -> Result<Self, String> {
        READ.iter()
            .find(|(n, ..)| *n == number)
            .map(|(_, q, _)| *q)
            .ok_or_else(|| {
                REFUSED.iter().find(|(n, _)| *n == number).map_or_else(
                    || format!("type number {number}"),
                    |(_, name)| (*name).to_owned(),
                )
            })
    }

    /// Names of all that are read.
    pub fn list() -> String {
        READ.iter()
            .map(|(_, _, name)| *name)
            .collect::<Vec<_>>()
            .join(", ")
    }

    /// Bytes of a tensor of this shape; `None` if its rows are not a whole number
    /// of blocks or it is larger than memory can be.
    pub fn bytes(self, shape: &[usize]) -> Option<usize> {
        let dtype = self.dtype();
        let row = *shape.last()?;
        let elements = shape
            .iter()
            .try_fold(1usize, |product, n| product.checked_mul(*n))?;
        if elements == 0 || !row.is_multiple_of(dtype.block_size()) {
            return None;
        }
        (elements / dtype.block_size()).checked_mul(dtype.type_size())
    }

    /// The values in `bytes`, row-major.
    ///
    /// # Errors
    /// When candle refuses: bytes and shape do not fit.
    pub fn dequantise(self, bytes: &[u8], shape: &[usize]) -> Result<Vec<f32>, candle_core::Error> {
        Ok(match self {
            Self::F32 => words(bytes, f32::from_le_bytes),
            Self::F16 => words(bytes, |b| f16::from_le_bytes(b).to_f32()),
            Self::Bf16 => words(bytes, |b| bf16::from_le_bytes(b).to_f32()),
            Self::Q4_0 | Self::Q4_1 | Self::Q8_0 | Self::Q4K | Self::Q6K => {
                qtensor_from_ggml(self.dtype(), bytes, shape.to_vec(), &Device::Cpu)?
                    .dequantize(&Device::Cpu)?
                    .flatten_all()?
                    .to_vec1()?
            }
        })
    }

    fn dtype(self) -> GgmlDType {
        match self {
            Self::F32 => GgmlDType::F32,
            Self::F16 => GgmlDType::F16,
            Self::Bf16 => GgmlDType::BF16,
            Self::Q4_0 => GgmlDType::Q4_0,
            Self::Q4_1 => GgmlDType::Q4_1,
            Self::Q8_0 => GgmlDType::Q8_0,
            Self::Q4K => GgmlDType::Q4K,
            Self::Q6K => GgmlDType::Q6K,
        }
    }
}

impl fmt::Display for Quantisation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = READ
            .iter()
            .find(|(_, q, _)| q == self)
            .map_or("?", |(_, _, name)| *name);
        f.write_str(name)
    }
}

fn words<const N: usize>(bytes: &[u8], read: impl Fn([u8; N]) -> f32) -> Vec<f32> {
    bytes
        .as_chunks::<N>()
        .0
        .iter()
        .map(|word| read(*word))
        .collect()
}
