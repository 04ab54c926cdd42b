//! The filter `tojson` as transformers defines it: [`tojson`]. minijinja's own
//! escapes for HTML.

use minijinja::value::{Kwargs, Value};
use minijinja::{Error, ErrorKind};

/// `json.dumps(value, ensure_ascii=False, indent=...)`.
pub(super) fn tojson(value: Value, kwargs: Kwargs) -> Result<Value, Error> {
    let wrong = |e: serde_json::Error| Error::new(ErrorKind::BadSerialization, e.to_string());
    let indent: Option<usize> = kwargs.get("indent")?;
    // transformers takes them; their defaults are the only ones in use.
    for ignored in ["ensure_ascii", "separators", "sort_keys"] {
        let _: Option<Value> = kwargs.get(ignored)?;
    }
    kwargs.assert_all_used()?;
    let mut out = Vec::new();
    if let Some(n) = indent {
        let spaces = vec![b' '; n];
        let pretty = serde_json::ser::PrettyFormatter::with_indent(&spaces);
        let mut ser = serde_json::Serializer::with_formatter(&mut out, pretty);
        serde::Serialize::serialize(&value, &mut ser).map_err(wrong)?;
    } else {
        let mut ser = serde_json::Serializer::with_formatter(&mut out, PythonJson);
        serde::Serialize::serialize(&value, &mut ser).map_err(wrong)?;
    }
    String::from_utf8(out)
        .map(Value::from_safe_string)
        .map_err(|e| Error::new(ErrorKind::BadSerialization, e.to_string()))
}

/// JSON on one line as Python writes it: `{"a": 1, "b": [1, 2]}`.
struct PythonJson;

impl serde_json::ser::Formatter for PythonJson {
    fn begin_array_value<W: ?Sized + std::io::Write>(
        &mut self,
        out: &mut W,
        first: bool,
    ) -> std::io::Result<()> {
        if first { Ok(()) } else { out.write_all(b", ") }
    }

    fn begin_object_key<W: ?Sized + std::io::Write>(
        &mut self,
        out: &mut W,
        first: bool,
    ) -> std::io::Result<()> {
        if first { Ok(()) } else { out.write_all(b", ") }
    }

    fn begin_object_value<W: ?Sized + std::io::Write>(
        &mut self,
        out: &mut W,
    ) -> std::io::Result<()> {
        out.write_all(b": ")
    }
}
