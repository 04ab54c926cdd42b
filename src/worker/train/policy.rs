//! Whose pairs are trained on: [`check`]. A pair names the model that rolled
//! both its sides out by the hash of its content; its log-probabilities, scores and
//! advantages mean nothing for another one.

use serde::Serialize;

use genius::artifact::PairRecord;
use genius::protocol::{Context, Failure, Level};

/// How many pairs came from which policy.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Policies {
    /// From the model to train.
    pub same: usize,
    /// From another one.
    pub other: usize,
    /// Pairs that name none, or all where the model's own hash is not known.
    pub unknown: usize,
}

/// Compares the policies that the pairs name with the content of the input `model`.
/// Pairs that name none (made by hand, or by another program) are trained on with a
/// warning.
///
/// # Errors
/// When a pair names another policy, unless `allow_other` is set.
pub fn check(
    ctx: &Context,
    records: &[PairRecord],
    allow_other: bool,
) -> Result<Policies, Failure> {
    let model = ctx.job.input_hashes.get("model");
    let mut policies = Policies::default();
    let mut first_other: Option<(&PairRecord, &String)> = None;
    for record in records {
        match (&record.policy, model) {
            (Some(policy), Some(model)) if policy.eq_ignore_ascii_case(model) => policies.same += 1,
            (Some(policy), Some(_)) => {
                policies.other += 1;
                first_other.get_or_insert((record, policy));
            }
            _ => policies.unknown += 1,
        }
    }
    if let (Some((record, policy)), Some(model)) = (first_other, model) {
        let what = format!(
            "{} of {} pairs came from another policy than the model to train: the pair of query {}, step {} names {policy}, the input `model` is {model}",
            policies.other,
            records.len(),
            record.query_id,
            record.step,
        );
        if !allow_other {
            return Err(Failure::new(what).hint(
                "train the model that the pairs were rolled out with, or roll out again with this one; \
                 `allow_other_policy: true` trains on them all the same",
            ));
        }
        ctx.log(
            Level::Warn,
            format!("{what}; trained on because `allow_other_policy` is set"),
        );
    }
    if policies.unknown > 0 && model.is_some() {
        ctx.log(
            Level::Warn,
            format!(
                "{} of {} pairs name no policy: whether they came from the model to train is not known",
                policies.unknown,
                records.len()
            ),
        );
    }
    Ok(policies)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::TestJob;
    use crate::train::data::tests::record;
    use crate::train::run::tests::params;
    use genius::kind::StageKind;

    /// What came of pairs of these policies, the model to train being `b`; and the warnings.
    fn checked(
        policies: &[Option<&str>],
        allow_other: bool,
    ) -> (Result<Policies, Failure>, Vec<String>) {
        let records: Vec<PairRecord> = policies
            .iter()
            .map(|policy| PairRecord {
                policy: policy.map(|p| p.repeat(64)),
                ..record("q", 3, &[1], &[2], &[3])
            })
            .collect();
        let job = TestJob::new(StageKind::Train, params()).with_hash("model", &"b".repeat(64));
        let mut result = Ok(Policies::default());
        let ended = job.run(|ctx| {
            result = check(ctx, &records, allow_other);
            Ok(Vec::new())
        });
        assert!(ended.is_ok());
        (result, job.logged(Level::Warn))
    }

    #[test]
    fn pairs_of_another_policy_are_refused() {
        for policies in [&[Some("a")][..], &[Some("b"), Some("a"), None]] {
            let failure = checked(policies, false).0.unwrap_err();
            let of = policies.len();
            let (a, b) = ("a".repeat(64), "b".repeat(64));
            assert_eq!(
                failure.message,
                format!(
                    "1 of {of} pairs came from another policy than the model to train: the pair of \
                     query q, step 3 names {a}, the input `model` is {b}"
                )
            );
            assert!(failure.hint.unwrap().contains("allow_other_policy: true"));
        }
    }

    #[test]
    fn asked_for_they_are_trained_on_and_counted() {
        let (policies, warned) = checked(&[Some("a"), Some("b"), Some("c")], true);
        let want = Policies {
            same: 1,
            other: 2,
            unknown: 0,
        };
        assert_eq!(policies.unwrap(), want);
        assert_eq!(warned.len(), 1);
        assert!(warned[0].starts_with("2 of 3 pairs came from another policy"));
    }

    #[test]
    fn pairs_of_the_model_itself_pass_in_silence() {
        for allow_other in [false, true] {
            let (policies, warned) = checked(&[Some("b"), Some("B")], allow_other);
            assert_eq!((policies.unwrap().same, warned.len()), (2, 0));
        }
    }

    #[test]
    fn pairs_without_a_policy_are_warned_of() {
        let (policies, warned) = checked(&[None, Some("b"), None], false);
        assert_eq!(policies.unwrap().unknown, 2);
        assert_eq!(warned.len(), 1);
        assert!(warned[0].starts_with("2 of 3 pairs name no policy"));
    }
}
