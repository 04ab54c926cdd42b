//! [`Tokenizer`]: tokenizer.json, tokenizer_config.json and
//! generation_config.json from a GGUF file's metadata.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use genius::protocol::Failure;

use super::pre_tokenizer::{self, PreTokenizer};
use super::reader::Gguf;

/// Kinds of token (llama.cpp, `enum llama_token_type`).
const CONTROL: i128 = 3;
const USER_DEFINED: i128 = 4;
/// A row of the embedding that no token of the tokenizer has.
const UNUSED: i128 = 5;

/// Ids of the special tokens, where the file names them.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Specials {
    pub bos: Option<usize>,
    pub eos: Option<usize>,
    pub pad: Option<usize>,
    pub unk: Option<usize>,
    /// Every token that ends a generation, sorted.
    pub ends: Vec<usize>,
}

/// A byte-level BPE tokenizer.
#[derive(Debug)]
pub struct Tokenizer {
    /// By id; `None` where no token has the id.
    tokens: Vec<Option<String>>,
    /// Kind of each token.
    kinds: Vec<i128>,
    merges: Vec<(String, String)>,
    pre: PreTokenizer,
    specials: Specials,
    add_bos: bool,
    add_eos: bool,
    chat_template: Option<String>,
}

const TOKENS: &str = "tokenizer.ggml.tokens";
const MERGES: &str = "tokenizer.ggml.merges";

fn missing(file: &Gguf, key: &str) -> Failure {
    file.failure(format!("has no `{key}`"))
}

fn required_texts<'a>(file: &'a Gguf, key: &str) -> Result<Vec<&'a str>, Failure> {
    file.texts(key)?.ok_or_else(|| missing(file, key))
}

fn read_pre_tokenizer(file: &Gguf) -> Result<PreTokenizer, Failure> {
    let known = pre_tokenizer::KNOWN.join(", ");
    match file.text("tokenizer.ggml.pre")? {
        Some(name) => pre_tokenizer::find(name).ok_or_else(|| {
            file.failure(format!("names the pre-tokenizer `{name}`, which is not in the table"))
                .hint(format!("the names that are known: {known}; for others give the model's Hugging Face folder"))
        }),
        None => Err(file
            .failure("does not name its pre-tokenizer (`tokenizer.ggml.pre`)")
            .hint("it was made by an old converter: convert it again, or give the model's Hugging Face folder")),
    }
}

/// The pairs of tokens to merge, in order; `ids` holds the tokens in use.
fn read_merges(file: &Gguf, ids: &BTreeMap<&str, usize>) -> Result<Vec<(String, String)>, Failure> {
    let parse = |merge: &str| {
        // Tokens encode a space as another letter: the one here separates them.
        let (left, right) = merge.split_once(' ')?;
        let whole = format!("{left}{right}");
        let known = [left, right, &whole]
            .iter()
            .all(|part| ids.contains_key(part));
        known.then(|| (left.to_owned(), right.to_owned()))
    };
    let merges = required_texts(file, MERGES)?.into_iter().enumerate();
    let merges = merges.map(|(index, merge)| {
        parse(merge).ok_or_else(|| {
            file.failure(format!(
                "is damaged: merge {index} of `{MERGES}` is not of two tokens that make a third"
            ))
        })
    });
    merges.collect()
}

impl Specials {
    fn read(file: &Gguf, tokens: usize) -> Result<Self, Failure> {
        let special = |name: &str| {
            let key = format!("tokenizer.ggml.{name}_token_id");
            match file.integer(&key)? {
                Some(id) if id >= tokens => {
                    Err(file.failure(format!("is damaged: `{key}` is {id}, of {tokens} tokens")))
                }
                other => Ok(other),
            }
        };
        let eos = special("eos")?;
        let ends = [eos, special("eot")?, special("eom")?];
        let mut ends: Vec<usize> = ends.into_iter().flatten().collect();
        ends.sort_unstable();
        ends.dedup();
        if ends.is_empty() {
            return Err(missing(file, "tokenizer.ggml.eos_token_id"));
        }
        Ok(Self {
            bos: special("bos")?,
            eos,
            pad: special("padding")?,
            unk: special("unknown")?,
            ends,
        })
    }
}

impl Tokenizer {
    /// Reads it from the metadata; `vocabulary` is the number of embedding rows.
    ///
    /// # Errors
    /// When it is of a kind that is not read, its pre-tokenizer is not in the
    /// table, or the metadata contradict one another.
    pub fn read(file: &Gguf, vocabulary: usize) -> Result<Self, Failure> {
        match file.text("tokenizer.ggml.model")? {
            Some("gpt2") => {}
            Some(other) => {
                return Err(file
                    .failure(format!("has a tokenizer of kind `{other}`, which is not converted"))
                    .hint("byte-level BPE (`gpt2`) is; for others give the model's Hugging Face folder"));
            }
            None => return Err(file.failure("has no tokenizer (`tokenizer.ggml.model`)")),
        }
        let pre = read_pre_tokenizer(file)?;
        let tokens = required_texts(file, TOKENS)?;
        if tokens.len() > vocabulary {
            return Err(file.failure(format!(
                "is damaged: {} tokens and {vocabulary} embedding rows",
                tokens.len()
            )));
        }
        let kinds = file
            .integers("tokenizer.ggml.token_type")?
            .unwrap_or_else(|| vec![1; tokens.len()]);
        if kinds.len() != tokens.len() {
            return Err(file.failure(format!(
                "is damaged: {} tokens and {} token types",
                tokens.len(),
                kinds.len()
            )));
        }
        let used = |id: usize| kinds[id] != UNUSED;
        let mut ids = BTreeMap::new();
        for (id, token) in tokens.iter().enumerate().filter(|(id, _)| used(*id)) {
            if let Some(first) = ids.insert(*token, id) {
                return Err(file.failure(format!(
                    "is damaged: tokens {first} and {id} are both `{token}`"
                )));
            }
        }
        let merges = read_merges(file, &ids)?;
        let specials = Specials::read(file, tokens.len())?;
        let flag = |name: &str| file.truth(&format!("tokenizer.ggml.add_{name}_token"));
        Ok(Self {
            add_bos: flag("bos")?.unwrap_or(pre.adds_bos),
            add_eos: flag("eos")?.unwrap_or(false),
            chat_template: file.text("tokenizer.chat_template")?.map(str::to_owned),
            tokens: (0..tokens.len())
                .map(|id| used(id).then(|| tokens[id].to_owned()))
                .collect(),
            kinds,
            merges,
            pre,
            specials,
        })
    }

    /// The special tokens.
    pub fn specials(&self) -> &Specials {
        &self.specials
    }

    /// Whether the file holds a chat template.
    pub fn has_chat_template(&self) -> bool {
        self.chat_template.is_some()
    }

    /// generation_config.json, with every end token explicit.
    pub fn generation_config(&self) -> Value {
        json!({
            "bos_token_id": self.specials.bos,
            "eos_token_id": self.specials.ends,
            "pad_token_id": self.specials.pad,
            "do_sample": false,
        })
    }

    /// tokenizer.json.
    pub fn json(&self) -> Value {
        // Every token, special ones too: their ids must hold whatever the order.
        let vocab: Map<String, Value> = self
            .present()
            .map(|(id, token)| (token.to_owned(), json!(id)))
            .collect();
        let added: Vec<Value> = self
            .added()
            .map(|(id, token, special)| {
                let mut entry = added_token(token, special);
                entry["id"] = json!(id);
                entry
            })
            .collect();
        json!({
            "version": "1.0",
            "truncation": null,
            "padding": null,
            "added_tokens": added,
            "normalizer": self.pre.normalizer,
            "pre_tokenizer": self.pre.pre_tokenizer,
            "post_processor": self.post_processor(),
            "decoder": { "type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true },
            "model": {
                "type": "BPE",
                "dropout": null,
                "unk_token": null,
                "continuing_subword_prefix": null,
                "end_of_word_suffix": null,
                "fuse_unk": false,
                "byte_fallback": false,
                "ignore_merges": self.pre.ignore_merges,
                "vocab": vocab,
                "merges": self.merges,
            },
        })
    }

    /// tokenizer_config.json; `context`: longest input, tokens.
    pub fn config(&self, context: usize) -> Value {
        let decoder: Map<String, Value> = self
            .added()
            .map(|(id, token, special)| (id.to_string(), added_token(token, special)))
            .collect();
        let mut config = json!({
            // The class that takes tokenizer.json as it is; the family's own
            // classes would put another pre-tokenizer in its place.
            "tokenizer_class": "PreTrainedTokenizerFast",
            "added_tokens_decoder": decoder,
            "model_max_length": context,
            "clean_up_tokenization_spaces": false,
            "model_input_names": ["input_ids", "attention_mask"],
            "add_prefix_space": false,
            "add_bos_token": self.add_bos,
            "add_eos_token": self.add_eos,
        });
        for (name, id) in [
            ("bos_token", self.specials.bos),
            ("eos_token", self.specials.eos),
            ("pad_token", self.specials.pad),
            ("unk_token", self.specials.unk),
        ] {
            if let Some(token) = id.and_then(|id| self.token(id)) {
                config[name] = json!(token);
            }
        }
        if let Some(template) = &self.chat_template {
            config["chat_template"] = json!(template);
        }
        config
    }

    /// Puts bos and eos around a text, where the model wants them.
    fn post_processor(&self) -> Value {
        let marks = |wanted: bool, id: Option<usize>| {
            id.filter(|_| wanted)
                .and_then(|id| Some((id, self.token(id)?)))
        };
        let (bos, eos) = (
            marks(self.add_bos, self.specials.bos),
            marks(self.add_eos, self.specials.eos),
        );
        if bos.is_none() && eos.is_none() {
            return Value::Null;
        }
        let around = |sequence: &str, kind: u8| {
            let special = |mark: Option<(usize, &str)>| {
                mark.map(|(_, token)| json!({ "SpecialToken": { "id": token, "type_id": kind } }))
            };
            let text = json!({ "Sequence": { "id": sequence, "type_id": kind } });
            special(bos)
                .into_iter()
                .chain([text])
                .chain(special(eos))
                .collect::<Vec<_>>()
        };
        let named: Map<String, Value> = [bos, eos]
            .into_iter()
            .flatten()
            .map(|(id, token)| {
                (
                    token.to_owned(),
                    json!({ "id": token, "ids": [id], "tokens": [token] }),
                )
            })
            .collect();
        let pair: Vec<Value> = around("A", 0).into_iter().chain(around("B", 1)).collect();
        json!({
            "type": "TemplateProcessing",
            "single": around("A", 0),
            "pair": pair,
            "special_tokens": named,
        })
    }

    fn token(&self, id: usize) -> Option<&str> {
        self.tokens.get(id)?.as_deref()
    }

    fn present(&self) -> impl Iterator<Item = (usize, &str)> {
        self.tokens
            .iter()
            .enumerate()
            .filter_map(|(id, token)| Some((id, token.as_deref()?)))
    }

    /// Tokens that are found in a text before it is split, and whether each is special.
    fn added(&self) -> impl Iterator<Item = (usize, &str, bool)> {
        self.present()
            .filter_map(|(id, token)| match self.kinds[id] {
                CONTROL => Some((id, token, true)),
                USER_DEFINED => Some((id, token, false)),
                _ => None,
            })
    }
}

fn added_token(token: &str, special: bool) -> Value {
    json!({
        "content": token,
        "single_word": false,
        "lstrip": false,
        "rstrip": false,
        "normalized": false,
        "special": special,
    })
}
