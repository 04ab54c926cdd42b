//! [`Gguf`]: the header of a GGUF file and the bytes of its tensors.
//!
//! candle can read GGUF too, but trusts every length in the file (a damaged
//! one ends the process) and does not say which tensor has a type that it does
//! not know. Here every length is compared with the file's, and every message
//! carries a name. The file is read and not mapped: one that is cut short
//! meanwhile is an error. Format: ggml's docs/gguf.md, versions 2 and 3.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use genius::protocol::Failure;

use super::quantisation::Quantisation;
use crate::model::json::{self, open_plain};

const MAGIC: &[u8; 4] = b"GGUF";
const DEFAULT_ALIGNMENT: u64 = 32;
/// Arrays of arrays exist in the format and in no known model.
const MAX_NESTING: u32 = 3;
const MAX_DIMENSIONS: u32 = 4;
/// A tokenizer has the longest arrays: one item a token or merge. An item takes
/// more memory than its one byte in the file.
const MAX_ITEMS: u64 = 1 << 23;
/// The longest text is a chat template, bytes.
const MAX_TEXT: u64 = 16 << 20;
/// Metadata keys; usual files have thirty.
const MAX_KEYS: u64 = 1 << 16;
/// Tensors; the largest models have some thousands.
const MAX_TENSORS: u64 = 1 << 17;
/// Everything in front of the tensors, bytes; a large tokenizer makes ten million.
const MAX_HEADER: u64 = 1 << 29;
/// Keys and names of tensors, bytes: the format's own bound of a key.
const MAX_NAME: u64 = 65_535;

/// A metadata value. Integers of every width are one variant.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    Int(i128),
    F32(f32),
    F64(f64),
    Bool(bool),
    Text(String),
    Array(Vec<Value>),
}

/// Where a tensor lies and what it holds.
#[derive(Debug, Clone, PartialEq)]
pub struct TensorInfo {
    /// How its values are stored.
    pub quantisation: Quantisation,
    /// Slowest axis first (GGUF itself writes the fastest first).
    pub shape: Vec<usize>,
    /// First byte in the file.
    start: u64,
    /// Bytes in the file.
    length: usize,
}

/// An open GGUF file.
#[derive(Debug)]
pub struct Gguf {
    shown: String,
    reader: BufReader<File>,
    metadata: BTreeMap<String, Value>,
    tensors: BTreeMap<String, TensorInfo>,
}

impl Gguf {
    /// Reads the header and checks that every tensor lies within the file, apart
    /// from the others. Messages call the file `shown`.
    ///
    /// # Errors
    /// When it is not a GGUF file, is damaged, or holds a tensor of a type that is
    /// not read.
    pub fn open(path: &Path, shown: &str) -> Result<Self, Failure> {
        let io = |e: std::io::Error| Failure::new(format!("{shown}: {e}"));
        let file = open_plain(path).map_err(io)?;
        let length = file.metadata().map_err(io)?.len();
        let mut header = Header {
            shown,
            reader: BufReader::new(file),
            position: 0,
            length,
            items: 0,
        };
        let (metadata, tensors) = header.read()?;
        Ok(Self {
            shown: shown.to_owned(),
            reader: header.reader,
            metadata,
            tensors,
        })
    }

    /// Number of tensors.
    pub fn tensor_count(&self) -> usize {
        self.tensors.len()
    }

    /// Names of the tensors, sorted.
    pub fn tensor_names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// What is known of a tensor.
    pub fn tensor(&self, name: &str) -> Option<&TensorInfo> {
        self.tensors.get(name)
    }

    /// The values of a tensor, dequantised, row-major.
    ///
    /// # Errors
    /// When it is missing, cannot be read, or holds a value that is not finite.
    pub fn values(&mut self, name: &str) -> Result<Vec<f32>, Failure> {
        let info = self
            .tensors
            .get(name)
            .ok_or_else(|| self.failure(format!("has no tensor `{name}`")))?;
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(info.length).map_err(|_| {
            self.failure(format!(
                "tensor `{name}` needs {} bytes of memory, which there are not",
                info.length
            ))
        })?;
        bytes.resize(info.length, 0);
        let (shape, quantisation) = (info.shape.clone(), info.quantisation);
        let read = self
            .reader
            .seek(SeekFrom::Start(info.start))
            .and_then(|_| self.reader.read_exact(&mut bytes));
        read.map_err(|e| self.failure(format!("tensor `{name}` cannot be read: {e}")))?;
        let values = quantisation
            .dequantise(&bytes, &shape)
            .map_err(|e| self.failure(format!("tensor `{name}` ({quantisation}): {e}")))?;
        if let Some(at) = values.iter().position(|v| !v.is_finite()) {
            return Err(self.failure(format!(
                "is damaged: value {at} of tensor `{name}` ({quantisation}) is {}",
                values[at]
            )));
        }
        Ok(values)
    }

    /// A failure that names the file.
    pub fn failure(&self, what: impl std::fmt::Display) -> Failure {
        Failure::new(format!("{} {what}", self.shown))
    }

    /// Text under `key`.
    pub fn text(&self, key: &str) -> Result<Option<&str>, Failure> {
        self.typed(key, "text", |v| match v {
            Value::Text(text) => Some(text.as_str()),
            _ => None,
        })
    }

    /// A whole number of at least zero under `key`.
    pub fn integer(&self, key: &str) -> Result<Option<usize>, Failure> {
        self.typed(key, "a whole number", |v| match v {
            Value::Int(n) => usize::try_from(*n).ok(),
            _ => None,
        })
    }

    /// A finite number under `key`. GGUF stores f32: the shortest decimal that
    /// gives the same f32 is meant (1e-5, not 9.999999747378752e-6).
    pub fn number(&self, key: &str) -> Result<Option<f64>, Failure> {
        self.typed(key, "a number", |v| match v {
            Value::F32(x) if x.is_finite() => x.to_string().parse().ok(),
            Value::F64(x) if x.is_finite() => Some(*x),
            Value::Int(n) => Some(*n as f64),
            _ => None,
        })
    }

    /// A truth value under `key`.
    pub fn truth(&self, key: &str) -> Result<Option<bool>, Failure> {
        self.typed(key, "true or false", |v| match v {
            Value::Bool(b) => Some(*b),
            _ => None,
        })
    }

    /// An array of texts under `key`.
    pub fn texts(&self, key: &str) -> Result<Option<Vec<&str>>, Failure> {
        self.typed(key, "an array of texts", |v| match v {
            Value::Array(items) => items
                .iter()
                .map(|item| match item {
                    Value::Text(text) => Some(text.as_str()),
                    _ => None,
                })
                .collect(),
            _ => None,
        })
    }

    /// An array of whole numbers under `key`.
    pub fn integers(&self, key: &str) -> Result<Option<Vec<i128>>, Failure> {
        self.typed(key, "an array of whole numbers", |v| match v {
            Value::Array(items) => items
                .iter()
                .map(|item| match item {
                    Value::Int(n) => Some(*n),
                    _ => None,
                })
                .collect(),
            _ => None,
        })
    }

    /// A missing key is `None`; one of another type is an error.
    fn typed<'a, T>(
        &'a self,
        key: &str,
        expected: &str,
        read: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, Failure> {
        self.metadata
            .get(key)
            .map(|value| {
                read(value).ok_or_else(|| {
                    self.failure(format!("holds in `{key}` something that is not {expected}"))
                })
            })
            .transpose()
    }
}

type Parts = (BTreeMap<String, Value>, BTreeMap<String, TensorInfo>);

/// Reads forward, never past the end.
struct Header<'a> {
    shown: &'a str,
    reader: BufReader<File>,
    position: u64,
    length: u64,
    /// Items of arrays so far.
    items: u64,
}

impl Header<'_> {
    fn read(&mut self) -> Result<Parts, Failure> {
        let magic: [u8; 4] = self.array("the magic number")?;
        if &magic != MAGIC {
            let rest: [u8; 19] = self.array("the magic number").unwrap_or_default();
            if json::is_pointer(&[magic.as_slice(), &rest].concat()) {
                return Err(self.failure(json::POINTER));
            }
            return Err(self
                .failure("is not a GGUF file: it does not begin with `GGUF`")
                .hint("it may be an error page: fetch it again"));
        }
        match self.u32("the version")? {
            2 | 3 => {}
            version if version.swap_bytes() == 3 => {
                return Err(self.failure("is a big-endian GGUF file, which is not read"));
            }
            version => {
                return Err(self.failure(format!("is of GGUF version {version}; 2 and 3 are read")));
            }
        }
        let tensor_count = self.u64("the number of tensors")?;
        let key_count = self.u64("the number of metadata keys")?;
        for (count, most, what) in [
            (tensor_count, MAX_TENSORS, "tensors"),
            (key_count, MAX_KEYS, "metadata keys"),
        ] {
            if count > most {
                return Err(self.failure(format!(
                    "is damaged: it claims {count} {what}, and may have {most}"
                )));
            }
        }
        let mut metadata = BTreeMap::new();
        for _ in 0..key_count {
            let key = self.text("a metadata key", MAX_NAME)?;
            let what = format!("`{key}`");
            let kind = self.u32(&what)?;
            let value = self.value(kind, &what, 0)?;
            if metadata.insert(key, value).is_some() {
                return Err(self.failure(format!("is damaged: it has two keys {what}")));
            }
        }
        let alignment = match metadata.get("general.alignment") {
            None => DEFAULT_ALIGNMENT,
            Some(Value::Int(n @ 1..=65536)) if (*n as u64).is_power_of_two() => *n as u64,
            Some(_) => {
                return Err(self
                    .failure("is damaged: `general.alignment` is not a power of two up to 65536"));
            }
        };
        let mut raw = Vec::new();
        for _ in 0..tensor_count {
            raw.push(self.tensor()?);
        }
        let data = self.position.next_multiple_of(alignment);
        let mut tensors = BTreeMap::new();
        for (name, shape, quantisation, offset) in raw {
            if !offset.is_multiple_of(alignment) {
                return Err(self.failure(format!(
                    "is damaged: tensor `{name}` lies at {offset}, which is not a multiple of {alignment}"
                )));
            }
            let info = self.place(&name, shape, quantisation, data, offset)?;
            if tensors.insert(name.clone(), info).is_some() {
                return Err(self.failure(format!("is damaged: two tensors are called `{name}`")));
            }
        }
        self.check_overlaps(&tensors)?;
        Ok((metadata, tensors))
    }

    /// Bytes that two tensors share belong to one of them at most.
    fn check_overlaps(&self, tensors: &BTreeMap<String, TensorInfo>) -> Result<(), Failure> {
        let mut places: Vec<(&String, &TensorInfo)> = tensors.iter().collect();
        places.sort_by_key(|(_, info)| info.start);
        for pair in places.windows(2) {
            let [(first, one), (second, other)] = pair else {
                continue;
            };
            if other.start < one.start + one.length as u64 {
                return Err(self.failure(format!(
                    "is damaged: the tensors `{first}` and `{second}` overlap"
                )));
            }
        }
        Ok(())
    }

    fn tensor(&mut self) -> Result<(String, Vec<usize>, Quantisation, u64), Failure> {
        let name = self.text("the name of a tensor", MAX_NAME)?;
        let what = format!("tensor `{name}`");
        let dimensions = self.u32(&what)?;
        if !(1..=MAX_DIMENSIONS).contains(&dimensions) {
            return Err(self.failure(format!("is damaged: {what} has {dimensions} dimensions")));
        }
        let mut shape = Vec::new();
        for _ in 0..dimensions {
            shape.push(
                usize::try_from(self.u64(&what)?)
                    .map_err(|_| self.failure(format!("is damaged: {what} is too large")))?,
            );
        }
        shape.reverse();
        let kind = self.u32(&what)?;
        let quantisation = Quantisation::from_number(kind).map_err(|type_name| {
            self.failure(format!("holds {what} as {type_name}, which is not read"))
                .hint(format!("the types that are read: {}", Quantisation::list()))
        })?;
        Ok((name, shape, quantisation, self.u64(&what)?))
    }

    fn place(
        &self,
        name: &str,
        shape: Vec<usize>,
        quantisation: Quantisation,
        data: u64,
        offset: u64,
    ) -> Result<TensorInfo, Failure> {
        let length = quantisation.bytes(&shape).ok_or_else(|| {
            self.failure(format!(
                "is damaged: tensor `{name}` cannot be {quantisation} of shape {shape:?}"
            ))
        })?;
        let start = data.saturating_add(offset);
        let end = start.saturating_add(length as u64);
        if end > self.length {
            return Err(self
                .failure(format!(
                    "is cut short: tensor `{name}` needs bytes {start} to {end}, the file has {}",
                    self.length
                ))
                .hint("fetch it again"));
        }
        Ok(TensorInfo {
            quantisation,
            shape,
            start,
            length,
        })
    }

    fn value(&mut self, kind: u32, what: &str, depth: u32) -> Result<Value, Failure> {
        Ok(match kind {
            0 => Value::Int(u8::from_le_bytes(self.array(what)?).into()),
            1 => Value::Int(i8::from_le_bytes(self.array(what)?).into()),
            2 => Value::Int(u16::from_le_bytes(self.array(what)?).into()),
            3 => Value::Int(i16::from_le_bytes(self.array(what)?).into()),
            4 => Value::Int(u32::from_le_bytes(self.array(what)?).into()),
            5 => Value::Int(i32::from_le_bytes(self.array(what)?).into()),
            6 => Value::F32(f32::from_le_bytes(self.array(what)?)),
            7 => Value::Bool(self.array::<1>(what)? != [0]),
            8 => Value::Text(self.text(what, MAX_TEXT)?),
            9 if depth < MAX_NESTING => {
                let item = self.u32(what)?;
                let count = self.u64(what)?;
                // Refused before they are read; nothing is allocated by a count alone.
                self.items = self.items.saturating_add(count);
                let left = self.length - self.position;
                if count > left || self.items > MAX_ITEMS {
                    return Err(self.failure(format!(
                        "is cut short or damaged: {what} is an array of {count} items, and {left} bytes follow; \
                         all arrays together may have {MAX_ITEMS} items"
                    )));
                }
                let mut items = Vec::new();
                for _ in 0..count {
                    items.push(self.value(item, what, depth + 1)?);
                }
                Value::Array(items)
            }
            10 => Value::Int(u64::from_le_bytes(self.array(what)?).into()),
            11 => Value::Int(i64::from_le_bytes(self.array(what)?).into()),
            12 => Value::F64(f64::from_le_bytes(self.array(what)?)),
            other => {
                return Err(
                    self.failure(format!("is damaged: {what} is of the unknown type {other}"))
                );
            }
        })
    }

    fn u32(&mut self, what: &str) -> Result<u32, Failure> {
        self.array(what).map(u32::from_le_bytes)
    }

    fn u64(&mut self, what: &str) -> Result<u64, Failure> {
        self.array(what).map(u64::from_le_bytes)
    }

    fn text(&mut self, what: &str, most: u64) -> Result<String, Failure> {
        let length = self.u64(what)?;
        self.take(length, what)?;
        if length > most {
            return Err(self.failure(format!(
                "is damaged: {what} has {length} bytes, and may have {most}"
            )));
        }
        let mut bytes = vec![0; length as usize];
        self.reader
            .read_exact(&mut bytes)
            .map_err(|e| self.failure(format!("cannot be read: {e}")))?;
        // Some writers end texts with a NUL that is not part of them.
        while bytes.last() == Some(&0) {
            bytes.pop();
        }
        String::from_utf8(bytes)
            .map_err(|_| self.failure(format!("is damaged: {what} is not UTF-8")))
    }

    fn array<const N: usize>(&mut self, what: &str) -> Result<[u8; N], Failure> {
        self.take(N as u64, what)?;
        let mut bytes = [0; N];
        self.reader
            .read_exact(&mut bytes)
            .map_err(|e| self.failure(format!("cannot be read: {e}")))?;
        Ok(bytes)
    }

    /// Counts bytes as read, if the file has them.
    fn take(&mut self, count: u64, what: &str) -> Result<(), Failure> {
        match self
            .position
            .checked_add(count)
            .filter(|end| *end <= self.length)
        {
            Some(end) if end > MAX_HEADER => Err(self.failure(format!(
                "is damaged: its header has more than {MAX_HEADER} bytes ({what})"
            ))),
            Some(end) => {
                self.position = end;
                Ok(())
            }
            None => Err(self
                .failure(format!("is cut short or damaged: it ends within {what}"))
                .hint("fetch it again")),
        }
    }

    fn failure(&self, what: impl std::fmt::Display) -> Failure {
        Failure::new(format!("{} {what}", self.shown))
    }
}
