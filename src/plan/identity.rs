//! Sorts a stage's parameters, along its kind's schema, into what is part of
//! the key and what is not, and replaces references to content by the content.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use super::{PlanError, Resolver};
use crate::kind::Params;
use crate::kind::schema::{Role, Schema, Type};
use crate::store::ContentHash;

/// A resolver that remembers: every stage of a plan sees the same content and the
/// same commit, and a file that two stages name is read once.
pub(super) struct Remembering<'a> {
    inner: &'a dyn Resolver,
    paths: RefCell<HashMap<PathBuf, ContentHash>>,
    commits: RefCell<HashMap<(String, String), String>>,
}

impl<'a> Remembering<'a> {
    pub(super) fn new(inner: &'a dyn Resolver) -> Self {
        Self {
            inner,
            paths: RefCell::default(),
            commits: RefCell::default(),
        }
    }
}

impl Resolver for Remembering<'_> {
    fn hash_path(&self, path: &Path) -> Result<ContentHash, PlanError> {
        if let Some(hash) = self.paths.borrow().get(path) {
            return Ok(*hash);
        }
        let hash = self.inner.hash_path(path)?;
        self.paths.borrow_mut().insert(path.to_owned(), hash);
        Ok(hash)
    }

    fn hub_commit(&self, repo: &str, revision: &str) -> Result<String, PlanError> {
        let asked = (repo.to_owned(), revision.to_owned());
        if let Some(commit) = self.commits.borrow().get(&asked) {
            return Ok(commit.clone());
        }
        let commit = self.inner.hub_commit(repo, revision)?;
        self.commits.borrow_mut().insert(asked, commit.clone());
        Ok(commit)
    }

    fn variable(&self, name: &str) -> Option<String> {
        self.inner.variable(name)
    }
}

/// An error and the parameter that it is about (`with.source.path`).
pub(super) type Located = (String, PlanError);

/// Replaces a hub revision by its commit; returns the revision as written.
pub(super) fn resolve_hub(
    params: &mut Params,
    resolver: &dyn Resolver,
) -> Result<Option<String>, Located> {
    let Some(hub) = params.hub() else {
        return Ok(None);
    };
    let commit = resolver
        .hub_commit(&hub.repo, &hub.revision)
        .map_err(|e| ("with.source.hub".to_owned(), e))?;
    Ok(Some(std::mem::replace(&mut hub.revision, commit)))
}

/// Parameters, sorted.
#[derive(Debug, Default)]
pub(super) struct Sorted {
    /// For the key.
    pub identity: Value,
    /// Parameter (`with.source.path`) -> the path it had.
    pub paths: BTreeMap<String, String>,
    /// The files and folders behind them, as they were when they were hashed.
    pub sources: BTreeMap<PathBuf, ContentHash>,
}

/// Sorts the parameters of a stage.
pub(super) fn sort(params: &Params, resolver: &dyn Resolver) -> Result<Sorted, Located> {
    let mut walk = Walk {
        resolver,
        sorted: Sorted::default(),
    };
    let mut identity = walk.object(params.kind().schema(), &params.to_value(), "with")?;
    params.identity(&mut identity, &|name| resolver.variable(name));
    Ok(Sorted {
        identity,
        ..walk.sorted
    })
}

struct Walk<'a> {
    resolver: &'a dyn Resolver,
    sorted: Sorted,
}

impl Walk<'_> {
    fn object(&mut self, schema: &Schema, value: &Value, at: &str) -> Result<Value, Located> {
        let Some(object) = value.as_object() else {
            return Ok(value.clone());
        };
        let mut identity = Map::new();
        for (name, value) in object {
            let here = format!("{at}.{name}");
            match schema.field(name) {
                Some(field) if field.role == Role::Execution => {}
                // Left out, so that a new optional field of a kind changes no key.
                Some(_) if value.is_null() => {}
                Some(field) => {
                    identity.insert(name.clone(), self.value(&field.ty, value, &here)?);
                }
                // Validation has no such field; a new key is better than a wrong result.
                None => {
                    identity.insert(name.clone(), value.clone());
                }
            }
        }
        Ok(Value::Object(identity))
    }

    fn value(&mut self, ty: &Type, value: &Value, at: &str) -> Result<Value, Located> {
        match (ty, value) {
            (Type::Path | Type::File, Value::String(path)) => {
                let hash = self
                    .resolver
                    .hash_path(Path::new(path))
                    .map_err(|e| (at.to_owned(), e))?;
                self.sorted.paths.insert(at.to_owned(), path.clone());
                self.sorted.sources.insert(PathBuf::from(path), hash);
                Ok(json!({ "content": hash }))
            }
            (Type::Float { .. }, Value::Number(number)) => Ok(number
                .as_f64()
                .and_then(serde_json::Number::from_f64)
                .map_or_else(|| value.clone(), Value::Number)),
            (Type::List { items, .. }, Value::Array(values)) => values
                .iter()
                .enumerate()
                .map(|(index, value)| self.value(items, value, &format!("{at}[{index}]")))
                .collect::<Result<Vec<_>, _>>()
                .map(Value::Array),
            (Type::Map(items), Value::Object(object)) => object
                .iter()
                .map(|(name, value)| {
                    let value = self.value(items, value, &format!("{at}.{name}"))?;
                    Ok((name.clone(), value))
                })
                .collect::<Result<Map<_, _>, _>>()
                .map(Value::Object),
            (Type::Object(schema), _) => self.object(schema, value, at),
            // Like a mapping of these fields, whose roles do not count.
            (Type::OneOf { fields, .. }, Value::Object(object)) => object
                .iter()
                .map(|(name, value)| {
                    let here = format!("{at}.{name}");
                    let value = match fields.iter().find(|f| f.name == name) {
                        Some(field) => self.value(&field.ty, value, &here)?,
                        None => value.clone(),
                    };
                    Ok((name.clone(), value))
                })
                .collect::<Result<Map<_, _>, _>>()
                .map(Value::Object),
            _ => Ok(value.clone()),
        }
    }
}
