//! The engine `mistralrs`: mistral.rs on a local Hugging Face folder, [`MistralRs`].
//!
//! mistral.rs computes logits; the token is drawn here, by a logits processor
//! of every request that sees them raw, records what was drawn, and hands back
//! logits that leave only that token. So the result depends on logits and key
//! alone, and tokens and log-probabilities are exact (its own responses carry
//! log10 after temperature, trimmed text and no ids).
//!
//! On a CPU one request is in flight: two that decode together get each other's
//! attention output there (seen in 0.7.0 to 0.8.1).

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mistralrs::{
    Constraint, CustomLogitsProcessor, MemoryGpuConfig, Model, ModelDType, NormalRequest,
    PagedAttentionMetaBuilder, Request as EngineRequest, RequestMessage, Response, SamplingParams,
    StopTokens, Tensor, TextModelBuilder, TokenSource,
};
use serde_json::Value;
use tokio::task::JoinSet;

use super::engine::{Engine, EngineError, Generation, Work};
use super::recorder::Recorder;
use super::token_bytes::{TokenBytes, read_json};
use crate::model::weights_for_mistralrs;
use genius::kind::engine::{Dtype, Options};
use genius::protocol::Execution;

mod config;

const NAME: &str = "mistralrs";

/// mistral.rs with one model loaded. Not to be used inside a tokio runtime: it has its own.
pub struct MistralRs {
    // Fields drop in this order; the model must go before its runtime.
    model: Arc<Model>,
    runtime: tokio::runtime::Runtime,
    table: Arc<TokenBytes>,
    context_len: usize,
    width: usize,
}

/// Sequences in flight on a GPU, when memory decides.
const MOST_AT_ONCE: usize = 64;
/// How often the caller is asked whether to go on.
const LOOK: Duration = Duration::from_millis(20);

impl MistralRs {
    /// Loads the model in `folder`, never from a network; on a CPU in f32 only. The
    /// device is `cpu`, `cuda` or `metal`. On a CPU one request is in flight, whatever
    /// the width asked for.
    ///
    /// # Errors
    /// When a file is missing or broken, or device and precision do not go together.
    pub fn load(
        folder: &Path,
        options: Options,
        execution: &Execution,
    ) -> Result<Self, EngineError> {
        let failed = |reason: String| EngineError::Load {
            engine: NAME,
            path: folder.to_path_buf(),
            reason,
        };
        let device = execution.device.as_str();
        let kv_cache_gb = options.kv_cache_gb;
        let on_cpu = device == "cpu";
        let model_dtype = check_dtype(options.dtype, device).map_err(&failed)?;
        let table = TokenBytes::load(folder).map_err(|e| failed(e.to_string()))?;
        let config = read_config(folder).map_err(&failed)?;
        let context_len = context_len(folder, &config).map_err(&failed)?;
        config::check(&config).map_err(&failed)?;
        // It looks for files by their names, so they must be those that others read.
        weights_for_mistralrs(folder).map_err(|e| failed(e.message))?;
        let width = match options.width {
            _ if on_cpu => 1,
            0 => MOST_AT_ONCE,
            n => n,
        };
        let memory = if kv_cache_gb > 0.0 {
            MemoryGpuConfig::MbAmount((kv_cache_gb * 1024.0).ceil() as usize)
        } else {
            // Of what the weights leave.
            MemoryGpuConfig::Utilization(0.9)
        };

        let mut builder = TextModelBuilder::new(folder.display())
            .with_token_source(TokenSource::None)
            .with_dtype(model_dtype)
            .with_max_num_seqs(width);
        if on_cpu {
            // Its prefix cache keeps entries for ever on a CPU.
            builder = builder.with_force_cpu().with_prefix_cache_n(None);
        }
        if !on_cpu {
            let paged = PagedAttentionMetaBuilder::default()
                .with_gpu_memory(memory)
                .build()
                .map_err(|e| failed(format!("{e:#}")))?;
            builder = builder.with_paged_attn(paged);
        }
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .map_err(|e| failed(e.to_string()))?;
        // It panics on some broken folders.
        let model = catch_unwind(AssertUnwindSafe(|| runtime.block_on(builder.build())))
            .map_err(|panic| failed(panic_text(panic.as_ref())))?
            .map_err(|e| failed(format!("{e:#}")))?;
        Ok(Self {
            model: Arc::new(model),
            runtime,
            table: Arc::new(table),
            context_len,
            width,
        })
    }
}

impl Engine for MistralRs {
    fn name(&self) -> &'static str {
        NAME
    }

    fn context_len(&self) -> usize {
        self.context_len
    }

    fn generate(&mut self, work: &mut dyn Work) -> Result<(), EngineError> {
        let cancelled = Arc::new(AtomicBool::new(false));
        self.runtime.block_on(async {
            let mut in_flight = JoinSet::new();
            let mut outcome = Ok(());
            loop {
                while outcome.is_ok() && in_flight.len() < self.width {
                    let Some((id, request)) = work.next() else {
                        break;
                    };
                    let recorder = Recorder::new(&request, self.context_len, &self.table);
                    let sequence = Sequence {
                        model: Arc::clone(&self.model),
                        ends: self.table.ends().to_vec(),
                        cancelled: Arc::clone(&cancelled),
                    };
                    in_flight.spawn(async move {
                        let result = match recorder {
                            Ok(recorder) => sequence.run(request.context, recorder).await,
                            Err(e) => Err(e),
                        };
                        (id, result)
                    });
                }
                let joined = match tokio::time::timeout(LOOK, in_flight.join_next()).await {
                    Ok(Some(joined)) => joined,
                    Ok(None) => break outcome,
                    // Every sequence ends at its next token once this is set.
                    Err(_) if outcome.is_ok() && !work.go_on() => {
                        cancelled.store(true, Ordering::Relaxed);
                        outcome = Err(EngineError::Cancelled);
                        continue;
                    }
                    Err(_) => continue,
                };
                let stop = match joined {
                    // What was in flight when the call was stopped is not handed over.
                    _ if outcome.is_err() => None,
                    Ok((_, Err(e @ EngineError::Broken { .. }))) => Some(e),
                    Ok((id, result)) => (!work.done(id, result)).then_some(EngineError::Cancelled),
                    Err(e) => Some(broken(e.to_string())),
                };
                if let Some(e) = stop {
                    cancelled.store(true, Ordering::Relaxed);
                    outcome = Err(e);
                }
            }
        })
    }
}

/// One request's way through mistral.rs.
struct Sequence {
    model: Arc<Model>,
    ends: Vec<u32>,
    cancelled: Arc<AtomicBool>,
}

impl Sequence {
    /// Runs until the tracker has seen the end. mistral.rs may stop before: it
    /// adds end tokens of its own that the model's template mentions. Then the
    /// request goes on with what it has as its context.
    async fn run(&self, context: Vec<u32>, recorder: Recorder) -> Result<Generation, EngineError> {
        let recorder = Arc::new(Mutex::new(recorder));
        loop {
            let (so_far, full_context) = {
                let r = lock(&recorder);
                if r.is_finished() {
                    break;
                }
                let full: Vec<u32> = context.iter().chain(r.tokens()).copied().collect();
                (r.tokens().len(), full)
            };
            self.submit(full_context, &recorder).await?;
            if self.cancelled.load(Ordering::Relaxed) {
                return Err(EngineError::Cancelled);
            }
            let r = lock(&recorder);
            if !r.is_finished() && r.tokens().len() == so_far {
                return Err(broken("it ended a sequence without drawing a token".into()));
            }
        }
        lock(&recorder)
            .take()
            .unwrap_or_else(|| Err(broken("a sequence ended without a reason".into())))
    }

    /// One request of mistral.rs, to its end.
    async fn submit(
        &self,
        context: Vec<u32>,
        recorder: &Arc<Mutex<Recorder>>,
    ) -> Result<(), EngineError> {
        let (response, mut responses) = tokio::sync::mpsc::channel(1);
        let processor = Processor {
            recorder: Arc::clone(recorder),
            cancelled: Arc::clone(&self.cancelled),
            end: self.ends[0],
        };
        let runner = self.model.inner();
        let request = EngineRequest::Normal(Box::new(NormalRequest {
            logits_processors: Some(vec![Arc::new(processor)]),
            constraint: Constraint::None,
            ..NormalRequest::new_simple(
                RequestMessage::CompletionTokens(context),
                SamplingParams {
                    // Nothing is left to choose; 0 takes the one token by argmax.
                    temperature: Some(0.0),
                    stop_toks: Some(StopTokens::Ids(self.ends.clone())),
                    ..SamplingParams::deterministic()
                },
                response,
                runner.next_request_id(),
                None,
                None,
            )
        }));
        runner
            .get_sender(None)
            .map_err(|e| broken(e.to_string()))?
            .send(request)
            .await
            .map_err(|e| broken(e.to_string()))?;
        match responses.recv().await {
            Some(Response::CompletionDone(_)) => Ok(()),
            Some(Response::ValidationError(e)) => Err(EngineError::Request(e.to_string())),
            Some(Response::InternalError(e)) => Err(broken(e.to_string())),
            Some(Response::CompletionModelError(e, _)) => Err(broken(e)),
            Some(_) => Err(broken("a response of another kind came".into())),
            None => Err(broken("it ended without a response".into())),
        }
    }
}

/// Puts a [`Recorder`] into mistral.rs.
struct Processor {
    recorder: Arc<Mutex<Recorder>>,
    cancelled: Arc<AtomicBool>,
    /// What ends a sequence.
    end: u32,
}

impl CustomLogitsProcessor for Processor {
    fn apply(&self, logits: &Tensor, _context: &[u32]) -> mistralrs::Result<Tensor> {
        let row: Vec<f32> = logits.to_vec1()?;
        let chosen = if self.cancelled.load(Ordering::Relaxed) {
            None
        } else {
            lock(&self.recorder).next(&row)
        };
        let mut only = vec![f32::NEG_INFINITY; row.len()];
        let place = chosen.unwrap_or(self.end) as usize;
        *only.get_mut(place).ok_or_else(|| {
            mistralrs_error(format!("the model has no logit for end token {place}"))
        })? = 0.0;
        Tensor::from_vec(only, row.len(), logits.device())
    }
}

fn mistralrs_error(reason: String) -> candle_core::Error {
    candle_core::Error::Msg(reason)
}

/// A panic elsewhere leaves a recorder as it was: tokens are recorded whole.
fn lock(recorder: &Mutex<Recorder>) -> MutexGuard<'_, Recorder> {
    recorder.lock().unwrap_or_else(PoisonError::into_inner)
}

fn broken(reason: String) -> EngineError {
    EngineError::Broken {
        engine: NAME,
        reason,
    }
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("it panicked")
        .to_owned()
}

fn check_dtype(dtype: Dtype, device: &str) -> Result<ModelDType, String> {
    match device {
        "cpu" => {}
        "cuda" if candle_core::utils::cuda_is_available() => {}
        "metal" if candle_core::utils::metal_is_available() => {}
        "cuda" | "metal" => {
            return Err(format!(
                "this build has no {device}; build with `--features {device}` or use `device: cpu`"
            ));
        }
        other => {
            return Err(format!(
                "no device {other:?}; there are cpu, cuda and metal"
            ));
        }
    }
    match (dtype, device) {
        (Dtype::F32, _) => Ok(ModelDType::F32),
        (Dtype::Bf16, "cpu") => Err(
            "bf16 does not exist in mistral.rs on a CPU (no bf16 matrix products); use \
             `dtype: f32`"
                .to_owned(),
        ),
        (Dtype::Bf16, _) => Ok(ModelDType::BF16),
        (Dtype::Auto, _) => Err(crate::device::unresolved("dtype").message),
    }
}

/// `config.json`.
fn read_config(folder: &Path) -> Result<Value, String> {
    let path = folder.join("config.json");
    read_json(&path)
        .map_err(|e| e.to_string())?
        .ok_or_else(|| format!("{} is missing", path.display()))
}

/// Its `max_position_embeddings`.
fn context_len(folder: &Path, config: &Value) -> Result<usize, String> {
    config["max_position_embeddings"]
        .as_u64()
        .and_then(|n| usize::try_from(n).ok())
        .filter(|&n| n > 0)
        .ok_or_else(|| {
            format!(
                "{} has no `max_position_embeddings`",
                folder.join("config.json").display()
            )
        })
}

#[cfg(test)]
mod tests;
