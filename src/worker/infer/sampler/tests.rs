//! Draws against softmax, against brute force, and what the filters leave.

use super::*;

fn stream() -> Stream {
    Stream::new(7, "sampler test", "", &[])
}

fn plain() -> Sampling {
    Sampling {
        step_temperature: 1.0,
        temperature: 1.0,
        top_k: None,
        top_p: 1.0,
        min_p: 0.0,
    }
}

fn token(logits: &[f32], temperature: f64, sampling: &Sampling, position: u64) -> u32 {
    draw(
        logits,
        logits.len(),
        temperature,
        sampling,
        &stream(),
        position,
    )
    .unwrap()
    .token
}

/// How often each token comes, over 20 000 positions.
fn frequencies(logits: &[f32], temperature: f64, sampling: &Sampling) -> Vec<f64> {
    const N: u64 = 20_000;
    let mut counts = vec![0.0; logits.len()];
    for position in 0..N {
        counts[token(logits, temperature, sampling, position) as usize] += 1.0 / N as f64;
    }
    counts
}

fn softmax(logits: &[f32], temperature: f64) -> Vec<f64> {
    let weights: Vec<f64> = logits
        .iter()
        .map(|&l| (f64::from(l) / temperature).exp())
        .collect();
    let total: f64 = weights.iter().sum();
    weights.iter().map(|w| w / total).collect()
}

fn assert_near(got: &[f64], want: &[f64]) {
    for (g, w) in got.iter().zip(want) {
        // Five standard errors of 20 000 draws are at most 0.018.
        assert!((g - w).abs() < 0.018, "{got:?} is not near {want:?}");
    }
}

#[test]
fn draws_follow_the_tempered_softmax() {
    let logits = [1.0, 0.0, -1.0, 2.0, 1.5];
    for temperature in [0.6, 1.0, 1.7] {
        assert_near(
            &frequencies(&logits, temperature, &plain()),
            &softmax(&logits, temperature),
        );
    }
}

#[test]
fn the_logprob_is_of_the_untempered_unfiltered_policy() {
    let logits = [3.0_f32, 1.0, 0.5];
    let exact = softmax(&logits, 1.0)[0].ln() as f32;
    let filters = Sampling {
        top_k: Some(1),
        ..plain()
    };
    for (temperature, sampling) in [(0.0, plain()), (0.1, filters)] {
        let drawn = draw(&logits, 3, temperature, &sampling, &stream(), 0).unwrap();
        assert_eq!(drawn.token, 0);
        assert!((drawn.logprob - exact).abs() < 1e-6);
    }
}

#[test]
fn logprobs_stay_exact_far_from_zero() {
    let logits = [1e4_f32, 1e4 - 1.0];
    let drawn = draw(&logits, 2, 0.0, &plain(), &stream(), 0).unwrap();
    assert!((f64::from(drawn.logprob) + (1.0 + (-1.0_f64).exp()).ln()).abs() < 1e-6);
}

#[test]
fn temperature_zero_takes_the_likeliest_of_lowest_id() {
    assert_eq!(token(&[0.0, 5.0, 5.0, 1.0], 0.0, &plain(), 3), 1);
    assert_eq!(token(&[-0.0, 0.0], 0.0, &plain(), 3), 0);
}

/// What pruning must equal: every token gets its noise.
fn brute_force(logits: &[f32], temperature: f64, position: u64) -> usize {
    let scores: Vec<f64> = logits
        .iter()
        .enumerate()
        .map(|(i, &l)| f64::from(l) / temperature + stream().row(position).gumbel(i as u64))
        .collect();
    (0..scores.len()).fold(0, |b, i| if scores[i] > scores[b] { i } else { b })
}

#[test]
fn pruning_changes_nothing() {
    let noise = Stream::new(1, "logits", "", &[]);
    for (row, spread) in [0.0, 0.01, 1.0, 5.0, 30.0].into_iter().enumerate() {
        let logits: Vec<f32> = (0..500)
            .map(|i| (spread * noise.gumbel(row as u64, i)) as f32)
            .collect();
        for temperature in [0.05, 0.6, 1.0, 3.0] {
            for position in 0..40 {
                assert_eq!(
                    token(&logits, temperature, &plain(), position) as usize,
                    brute_force(&logits, temperature, position),
                    "spread {spread}, temperature {temperature}, position {position}"
                );
            }
        }
    }
}

/// A vocabulary of real size, with a few likely tokens, none, and many alike.
#[test]
fn pruning_changes_nothing_in_a_large_vocabulary() {
    let noise = Stream::new(2, "logits", "", &[]);
    for (row, (spread, peak)) in [
        (1.0, 8.0),
        (2.5, 0.0),
        (0.0, 0.0),
        (4.0, 30.0),
        (1.0, 1000.0),
    ]
    .into_iter()
    .enumerate()
    {
        let logits: Vec<f32> = (0..20_011)
            .map(|i| {
                let likely = if i % 997 == 5 { peak } else { 0.0 };
                (spread * noise.gumbel(row as u64, i) + likely) as f32
            })
            .collect();
        for temperature in [1e-9, 0.01, 0.6, 1.0, 2.0] {
            for position in 0..4 {
                assert_eq!(
                    token(&logits, temperature, &plain(), position) as usize,
                    brute_force(&logits, temperature, position),
                    "row {row}, temperature {temperature}, position {position}"
                );
            }
        }
    }
}

#[test]
fn the_sum_of_exponentials_is_exact_to_a_millionth() {
    let noise = Stream::new(3, "logits", "", &[]);
    for len in [1, 15, 16, 17, 1024, 49_152, 50_001] {
        for spread in [0.0, 1.0, 6.0] {
            let logits: Vec<f32> = (0..len)
                .map(|i| (spread * noise.gumbel(len, i)) as f32)
                .collect();
            let sum: f64 = logits.iter().map(|&l| f64::from(l).exp()).sum();
            let off = (log_sum_exp(&logits) - sum.ln()).abs();
            assert!(off < 1e-6, "{len} logits of spread {spread}: off by {off}");
        }
    }
}

#[test]
fn top_k_leaves_the_k_likeliest() {
    let logits = [1.0, 0.0, 2.0, 1.5];
    let two = Sampling {
        top_k: Some(2),
        ..plain()
    };
    let p = softmax(&[2.0, 1.5], 1.0);
    assert_near(&frequencies(&logits, 1.0, &two), &[0.0, 0.0, p[0], p[1]]);
    assert_eq!(filtered(&[1.0; 4], 1.0, &two).unwrap().len(), 2);
}

#[test]
fn top_p_leaves_the_fewest_that_reach_it() {
    // Probabilities 0.5, 0.3, 0.15, 0.05.
    let logits = [0.5_f32, 0.3, 0.15, 0.05].map(f32::ln);
    let kept = |top_p| {
        let s = Sampling { top_p, ..plain() };
        filtered(&logits, 1.0, &s).map(|k| k.len())
    };
    assert_eq!(kept(0.0), Some(1));
    assert_eq!(kept(0.49), Some(1));
    assert_eq!(kept(0.51), Some(2));
    assert_eq!(kept(0.94), Some(3));
    assert_eq!(kept(0.999), Some(4));
    assert_eq!(kept(1.0), None);
}

#[test]
fn min_p_is_a_share_of_the_likeliest() {
    let logits = [0.5_f32, 0.3, 0.15, 0.05].map(f32::ln);
    let kept = |min_p, temperature| {
        let s = Sampling { min_p, ..plain() };
        filtered(&logits, temperature, &s).unwrap()
    };
    assert_eq!(kept(0.2, 1.0), [0, 1, 2]);
    assert_eq!(kept(0.59, 1.0), [0, 1]);
    assert_eq!(kept(2.0, 1.0), [0]);
    // The tempered distribution counts: 0.3^2 / 0.5^2 is 0.36.
    assert_eq!(kept(0.4, 0.5), [0]);
}

#[test]
fn broken_logits_are_refused() {
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let e = draw(&[0.0, bad], 2, 1.0, &plain(), &stream(), 0).unwrap_err();
        assert!(e.to_string().contains("logit of token 1"), "{e}");
    }
    assert_eq!(
        draw(&[], 0, 1.0, &plain(), &stream(), 0),
        Err(DrawError::Empty)
    );
}

#[test]
fn rows_behind_the_vocabulary_are_never_drawn() {
    let drawn = draw(&[0.0, 1.0, 9.0], 2, 0.0, &plain(), &stream(), 0).unwrap();
    assert_eq!(drawn.token, 1);
    assert!(drawn.logprob < -7.0);
}

#[test]
fn a_draw_among_some_is_their_own_softmax() {
    let logits = [1.0_f32, 0.0, -1.0, 2.0, 1.5];
    let among = |ids: &[usize], sampling: &Sampling, temperature: f64, position: u64| {
        let keep = |id| ids.contains(&id);
        draw_among(&logits, 5, keep, temperature, sampling, &stream(), position).unwrap()
    };
    let ids = [4, 1, 2, 99];
    for temperature in [0.6, 1.7] {
        let mut counts = [0.0; 5];
        for position in 0..20_000 {
            let drawn = among(&ids, &plain(), temperature, position).unwrap();
            counts[drawn.token as usize] += 1.0 / 20_000.0;
        }
        let want = softmax(&[1.5, 0.0, -1.0], temperature);
        assert_near(&counts, &[0.0, want[1], want[2], 0.0, want[0]]);
    }
    // The log-probability is of the whole policy.
    let greedy = among(&ids, &plain(), 0.0, 0).unwrap();
    assert_eq!(greedy.token, 4);
    assert!((f64::from(greedy.logprob) - softmax(&logits, 1.0)[4].ln()).abs() < 1e-6);
    // The filters see every token: of the likeliest two only 4 may be drawn, of the
    // likeliest one none.
    let top = |k| Sampling {
        top_k: Some(k),
        ..plain()
    };
    for position in 0..100 {
        let drawn = among(&ids, &top(2), 1.7, position).unwrap();
        assert_eq!(drawn.token, 4);
    }
    assert_eq!(among(&ids, &top(1), 1.7, 0), None);
    assert_eq!(among(&[5], &plain(), 1.0, 0), None);
}
