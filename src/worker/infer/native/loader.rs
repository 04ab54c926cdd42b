//! Reads a checkpoint's tensors into the engine's matrices: [`Loader`].

use super::matrix::{Matrix, Number};

/// Takes a tensor by its name in the checkpoint, row by row, as f32; nothing if there is none.
pub type Take<'a> = &'a mut dyn FnMut(&str) -> Option<Vec<f32>>;

/// Takes tensors of a checkpoint and checks their sizes.
pub struct Loader<'a> {
    take: Take<'a>,
}

impl<'a> Loader<'a> {
    pub fn new(take: Take<'a>) -> Self {
        Self { take }
    }

    fn get(&mut self, name: &str) -> Result<Vec<f32>, String> {
        (self.take)(name).ok_or_else(|| format!("the weights lack the tensor `{name}`"))
    }

    /// The matrices of these names in one, whatever biases a checkpoint has (Qwen2: q, k
    /// and v) with them.
    pub fn matrix<E: Number>(
        &mut self,
        prefix: &str,
        names: &[&str],
        inner: usize,
        outputs: usize,
    ) -> Result<Matrix<E>, String> {
        let (mut rows, mut bias, mut biased) = (Vec::new(), Vec::new(), false);
        for name in names {
            let name = format!("{prefix}{name}");
            let of_this = self.get(&format!("{name}.weight"))?;
            if inner == 0 || !of_this.len().is_multiple_of(inner) {
                return Err(format!(
                    "the tensor `{name}.weight` has {} numbers, which are not rows of {inner}",
                    of_this.len()
                ));
            }
            let of_name = of_this.len() / inner;
            rows.extend(of_this);
            let of_this = (self.take)(&format!("{name}.bias"));
            biased |= of_this.is_some();
            let of_this = of_this.unwrap_or_else(|| vec![0.0; of_name]);
            if of_this.len() != of_name {
                return Err(format!(
                    "the tensor `{name}.bias` has {} numbers for {of_name} outputs",
                    of_this.len()
                ));
            }
            bias.extend(of_this);
        }
        if bias.len() != outputs || outputs == 0 {
            let names: Vec<String> = names
                .iter()
                .map(|name| format!("`{prefix}{name}`"))
                .collect();
            return Err(format!(
                "{} have {} outputs; the configuration asks for {outputs}",
                names.join(", "),
                bias.len()
            ));
        }
        Ok(Matrix::pack(&rows, inner, biased.then_some(&bias[..])))
    }

    pub fn norm(&mut self, name: &str, len: usize) -> Result<Vec<f32>, String> {
        let name = format!("{name}.weight");
        let weight = self.get(&name)?;
        if weight.len() == len {
            Ok(weight)
        } else {
            Err(format!(
                "the tensor `{name}` has {} numbers; the configuration asks for {len}",
                weight.len()
            ))
        }
    }
}
