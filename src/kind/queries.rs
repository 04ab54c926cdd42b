//! `queries`: unlabelled queries from a file, sampled by hash. Computed in
//! `crate::stage::queries`.

use std::path::PathBuf;

use serde_json::{Value, json};

use super::declare::{choice, params};
use super::{DiskBytes, Input, Kind, Parts, Program, Resolved, Target, Unsupported, Variables};

params! {
    /// Parameters of the kind.
    pub struct Params {
        /// Where the queries come from.
        source: Source => declared::<Source>().or_its_defaults(),
        /// Take a sample; all queries unless given.
        sample: Option<Sample> => declared::<Sample>().optional(),
    }
}

params! {
    /// Where queries come from.
    pub struct Source {
        /// File of queries: JSONL, JSON, a table with a header (CSV, TSV), or plain text with
        /// one query a line; also packed with gzip.
        path: PathBuf => file(),
        /// Format of the file; `auto` goes by its name, then by its first characters.
        format: Format => declared::<Format>().or(Format::Auto),
        /// What separates the fields of a table; `auto` takes what is in the header, and a
        /// tab for TSV.
        delimiter: Delimiter => declared::<Delimiter>().or(Delimiter::Auto),
        /// Layout of a record: a plain field, alpaca (instruction and its input), sharegpt
        /// (conversations, first human turn) or chat messages (first user turn). `auto` looks at
        /// the first record that has a query, and is `field` when `field` is given.
        layout: Layout => declared::<Layout>().or(Layout::Auto),
        /// Name of the field that holds the query.
        field: Option<String> => non_empty().optional(),
    }
}

choice! {
    /// Format of a file of queries.
    pub enum Format {
        /// By its name, then by its first characters.
        Auto = "auto",
        /// A JSON object or text a line.
        Jsonl = "jsonl",
        /// One JSON document.
        Json = "json",
        /// A table with commas, unless another delimiter is found.
        Csv = "csv",
        /// A table with tabs.
        Tsv = "tsv",
        /// A query a line.
        Txt = "txt",
    }
}

choice! {
    /// What separates the fields of a table.
    pub enum Delimiter {
        /// What is in the header; a tab for TSV.
        Auto = "auto",
        /// `,`
        Comma = "comma",
        /// `;`
        Semicolon = "semicolon",
        /// A tab.
        Tab = "tab",
        /// `|`
        Pipe = "pipe",
    }
}

choice! {
    /// Layout of a record.
    pub enum Layout {
        /// By the first record that has a query.
        Auto = "auto",
        /// A plain field.
        Field = "field",
        /// `instruction` and its `input`.
        Alpaca = "alpaca",
        /// `conversations`, first human turn.
        Sharegpt = "sharegpt",
        /// Chat `messages`, first user turn.
        Messages = "messages",
    }
}

params! {
    /// A sample of queries: those with the smallest hash of (seed, text).
    pub struct Sample {
        /// How many queries to take; a larger n contains the smaller.
        n: usize => at_least(1),
        /// Seed of everything random in this stage; the pipeline's unless given.
        seed: u64 => seed(),
    }
}

impl Kind for Params {
    const NAME: &'static str = "queries";
    /// 2: files are read strictly, or refused; what is dropped is counted by reason.
    const VERSION: u32 = 2;
    const INPUTS: &'static [Input] = &[];
    const OUTPUTS: &'static [&'static str] = &["queries", "metrics"];
    const PROGRAM: Program = Program::Genius;
    const PARTS: Option<Parts<Self>> = None;
    const DISK_BYTES: Option<DiskBytes<Self>> = None;

    fn resolve(&mut self, _: &Target<'_>) -> Result<Resolved, Unsupported> {
        Ok(Resolved::ANYWHERE)
    }

    /// `format: auto` goes by the file's name first: the same bytes under another
    /// extension may be read otherwise, so the extension is in the key.
    fn identity(&self, identity: &mut Value, _: &Variables<'_>) {
        if self.source.format == Format::Auto {
            let extension = self.source.path.extension();
            let extension = extension.map(|e| e.to_string_lossy().to_ascii_lowercase());
            identity["source"]["format"] = json!({ "auto": extension });
        }
    }
}
