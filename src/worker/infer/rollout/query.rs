//! One query's way through its steps, apart from any engine: [`QueryState`]
//! gives the requests of a step's candidates and takes their generations.

use genius::artifact::{
    BeamRecord, CandidateRecord, Content, Finish, QueryRecord, RolloutRecord, StepEnd, StepRecord,
};
use genius::kind::rollout::Params;
use genius::method::beam::grown;
use genius::method::draw::{beam_stream, select_beams};
use genius::method::random::Stream;
use genius::method::score::{all_sure, candidate_score, content, softmax};

use super::super::engine::{Generation, GenerationEnd, Limits, Request, Sampling, StepBoundary};
use super::super::text::Text;

/// A query on its way.
#[derive(Debug)]
pub(super) struct QueryState {
    record: RolloutRecord,
    /// Prompt and prefix: what every context starts with.
    context: Vec<u32>,
    /// The live beams of the step to come.
    beams: Vec<BeamRecord>,
    /// Tokens of a response at most.
    room: usize,
    /// The step to come, from 1.
    step: u32,
}

impl QueryState {
    /// The state before step 1: M beams, all of them empty, with Q = 0. Where
    /// the query cannot be rolled out, its record has the reason.
    pub(super) fn start(
        query: &QueryRecord,
        params: &Params,
        prefix: &[u32],
        policy: Option<&str>,
        context_len: usize,
        text: &dyn Text,
    ) -> Self {
        let mut state = Self {
            record: RolloutRecord {
                query_id: query.id.clone(),
                query: query.text.clone(),
                policy: policy.map(str::to_owned),
                system: params.system.clone(),
                prompt: String::new(),
                prompt_token_ids: Vec::new(),
                prefix: params.response_prefix.clone(),
                prefix_token_ids: prefix.to_vec(),
                tau: params.tau,
                steps: Vec::new(),
                skipped: None,
            },
            context: Vec::new(),
            beams: Vec::new(),
            room: 0,
            step: 1,
        };
        match text.render(params.system.as_deref(), &query.text) {
            Ok((prompt, tokens)) => {
                state.record.prompt = prompt;
                state.record.prompt_token_ids = tokens;
            }
            Err(reason) => {
                state.skip("template", &reason);
                return state;
            }
        }
        state.context = [&state.record.prompt_token_ids[..], prefix].concat();
        let left = context_len.saturating_sub(state.context.len());
        state.room = params.max_response_tokens.map_or(left, |max| max.min(left));
        if left == 0 {
            let reason = format!(
                "{} tokens of prompt and response prefix leave no room in a context of {context_len}",
                state.context.len()
            );
            state.skip("prompt_too_long", &reason);
            return state;
        }
        let empty = BeamRecord {
            token_ids: Vec::new(),
            q: 0.0,
            origin: None,
        };
        state.beams = vec![empty; params.beams];
        state
    }

    /// Whether there is no step to come.
    pub(super) fn finished(&self) -> bool {
        self.beams.is_empty()
    }

    /// Candidates of the step to come.
    pub(super) fn candidates(&self, params: &Params) -> usize {
        self.beams.len() * params.rollouts
    }

    /// Candidates made so far, had every beam lived.
    pub(super) fn made(&self, params: &Params) -> u64 {
        u64::from(self.step - 1) * (params.beams * params.rollouts) as u64
    }

    /// The record, once finished.
    pub(super) fn into_record(self) -> RolloutRecord {
        self.record
    }

    /// Gives the query up: its record keeps `kind: reason` and no step.
    pub(super) fn skip(&mut self, kind: &str, reason: &str) {
        self.record.skipped = Some(format!("{kind}: {reason}"));
        self.record.steps.clear();
        self.beams.clear();
    }

    /// The request of a candidate of the step to come; they count by beam, then by rollout.
    ///
    /// One generation serves step and foresight: the step ends after its newline
    /// and the white space there, and what follows is drawn at the foresight's
    /// temperature.
    pub(super) fn request(&self, candidate: usize, params: &Params) -> Request {
        let (beam, rollout) = (candidate / params.rollouts, candidate % params.rollouts);
        let tokens = &self.beams[beam].token_ids;
        let ids = [u64::from(self.step), beam as u64, rollout as u64];
        Request {
            context: [&self.context[..], tokens].concat(),
            response_start: self.context.len(),
            stream: Stream::new(params.seed, "rollout", &self.record.query_id, &ids),
            sampling: Sampling {
                step_temperature: params.temperature,
                temperature: params.foresight_temperature,
                top_k: params.top_k,
                top_p: params.top_p,
                min_p: params.min_p,
            },
            limits: Limits {
                step: true,
                max_step_tokens: params.max_step_tokens,
                max_after_tokens: params.max_foresight_tokens,
                max_tokens: self.room - tokens.len(),
                stop: params.stop.clone(),
            },
        }
    }

    /// Takes the generations of a step's candidates, in their order:
    /// scores them, draws the next beams, and goes a step on.
    pub(super) fn accept(
        &mut self,
        generations: Vec<Generation>,
        params: &Params,
        text: &dyn Text,
    ) {
        let mut candidates: Vec<CandidateRecord> = generations
            .into_iter()
            .enumerate()
            .map(|(index, generation)| self.candidate(index, generation, params, text))
            .collect();
        let light = params.foresight
            && params
                .light
                .as_ref()
                .is_some_and(|light| all_sure(&candidates, light.threshold));
        for c in &mut candidates {
            c.completion = light || !params.foresight;
            let q = self.beams[c.parent as usize].q;
            c.f = candidate_score(c, q, params.terminal_score);
        }
        let scores: Vec<Option<f64>> = candidates.iter().map(|c| c.f).collect();
        for (c, probability) in candidates.iter_mut().zip(softmax(&scores, params.tau)) {
            c.probability = probability;
        }
        let selected = select_beams(
            &candidates,
            &self.beams,
            params.beams,
            params.tau,
            params.selection,
            params.replacement,
            &beam_stream(params.seed, &self.record.query_id, self.step),
        );
        let next = selected
            .iter()
            .map(|&origin| (origin, &candidates[origin as usize]))
            .filter(|(_, c)| !c.ended)
            .map(|(origin, c)| BeamRecord {
                token_ids: grown(&self.beams, c),
                q: c.f.unwrap_or_default(),
                origin: Some(origin),
            })
            .collect();
        let beams = std::mem::replace(&mut self.beams, next);
        self.record.steps.push(StepRecord {
            step: self.step,
            beams,
            candidates,
            selected,
            light,
        });
        self.step += 1;
        if self.step as usize > params.steps {
            self.beams.clear();
        }
    }

    /// The record of a generation, without its scores.
    fn candidate(
        &self,
        index: usize,
        mut generation: Generation,
        params: &Params,
        text: &dyn Text,
    ) -> CandidateRecord {
        let parent = index / params.rollouts;
        let before = self.beams[parent].token_ids.len();
        let inside = generation.step_boundary == StepBoundary::Inside;
        // Engines count no end token to a step; here it stands in the part that it ends.
        let step_len = if inside {
            generation.tokens.len()
        } else {
            generation.step_len
        };
        let foresight = generation.tokens.split_off(step_len);
        let foresight_logprobs = generation.logprobs.split_off(step_len);
        // A stop text may end with the step's newline, and a step may fill the
        // response to its last token: then there is nothing left to roll out.
        let stopped = generation.end == GenerationEnd::StopText && foresight.is_empty();
        let full = before + step_len >= self.room;
        let mut candidate = CandidateRecord {
            index: index as u32,
            parent: parent as u32,
            rollout: (index % params.rollouts) as u32,
            step_text: text.decode(&generation.tokens),
            step_token_ids: generation.tokens,
            step_logprobs: generation.logprobs,
            step_end: match generation.step_boundary {
                StepBoundary::Newline => StepEnd::Newline,
                StepBoundary::Limit => StepEnd::Limit,
                StepBoundary::Inside => StepEnd::Response,
            },
            content: Content::Text,
            foresight_text: text.decode(&foresight),
            foresight_token_ids: foresight,
            foresight_logprobs,
            completion: false,
            finish: finish(generation.end),
            f: None,
            probability: 0.0,
            ended: inside || stopped || full,
        };
        candidate.content = self.content(&candidate, params, text);
        candidate
    }

    /// What a candidate adds to its beam. A stop text may begin in the beam.
    fn content(&self, c: &CandidateRecord, params: &Params, text: &dyn Text) -> Content {
        let beam = &self.beams[c.parent as usize];
        if c.finish != Finish::StopText || !c.foresight_token_ids.is_empty() {
            return content(c, &c.step_text, !beam.token_ids.is_empty());
        }
        let whole = text.decode(&grown(&self.beams, c));
        let stops = params.stop.iter().filter(|stop| !stop.is_empty());
        let end = stops.filter_map(|stop| whole.find(stop.as_str())).min();
        let response = &whole[..end.unwrap_or(whole.len())];
        let before = text.decode(&beam.token_ids).len();
        let said = match end {
            Some(end) if end <= before => "",
            Some(_) => response.get(before..).unwrap_or(&c.step_text),
            None => c.step_text.as_str(),
        };
        content(c, said, !response.trim().is_empty())
    }
}

/// How a generation's end reads in a record.
pub(crate) fn finish(end: GenerationEnd) -> Finish {
    match end {
        GenerationEnd::EndToken => Finish::EndToken,
        GenerationEnd::StopText => Finish::StopText,
        GenerationEnd::Limit => Finish::Limit,
    }
}
