//! Products against plain sums.

use super::super::testing::panic_message;
use super::*;
use genius::method::random::Stream;

fn numbers(purpose: &str, len: usize) -> Vec<f32> {
    let stream = Stream::new(1, "matrix test", purpose, &[]);
    (0..len)
        .map(|i| (stream.uniform(0, i as u64) - 0.5) as f32)
        .collect()
}

/// Rows of products, computed `rows` at a time.
fn product<E: Number>(matrix: &Matrix<E>, x: &[f32], rows: usize) -> Vec<Vec<f32>> {
    let (inner, padded) = (matrix.inner, matrix.padded_inner());
    let all = x.len() / inner;
    let mut narrow = vec![E::default(); all * padded];
    for (row, to) in x.chunks(inner).zip(narrow.chunks_mut(padded)) {
        for (v, to) in row.iter().zip(to) {
            *to = E::narrow(*v);
        }
    }
    let stride = matrix.panels() * PANEL;
    let mut out = vec![f32::NAN; all * stride];
    let x = Rows::new(&narrow, all, padded, padded);
    for (i, out) in out.chunks_mut(rows * stride).enumerate() {
        let count = out.len() / stride;
        for (panel, mut out) in Columns::new(out, count, stride, stride)
            .panels(PANEL)
            .enumerate()
        {
            matrix.multiply(panel, x.some(i * rows, count), &mut out, Output::Store);
        }
    }
    out.chunks(stride)
        .map(|row| row[..matrix.outputs()].to_vec())
        .collect()
}

fn check<E: Number>() {
    for (outputs, inner) in [(1, 1), (48, 64), (50, 33), (131, 70)] {
        let (w, x) = (numbers("w", outputs * inner), numbers("x", 19 * inner));
        let bias = numbers("bias", outputs);
        let matrix = Matrix::<E>::pack(&w, inner, Some(&bias));
        let got = product(&matrix, &x, 19);
        for (row, x) in got.iter().zip(x.chunks(inner)) {
            for ((got, w), bias) in row.iter().zip(w.chunks(inner)).zip(&bias) {
                let want: f64 = w
                    .iter()
                    .zip(x)
                    .map(|(w, x)| {
                        f64::from(E::narrow(*w).widen()) * f64::from(E::narrow(*x).widen())
                    })
                    .sum::<f64>()
                    + f64::from(*bias);
                assert!(
                    (f64::from(*got) - want).abs() < 1e-5,
                    "{got}, expected {want}"
                );
            }
        }
        let mut row = vec![0.0; inner];
        matrix.row(outputs - 1, &mut row);
        let last = w.chunks(inner).next_back().unwrap();
        assert!(
            row.iter()
                .zip(last)
                .all(|(a, b)| *a == E::narrow(*b).widen())
        );
        // A row's bits do not depend on how many come with it.
        for rows in [1, 2, 3, 5, 8, 11] {
            assert_eq!(product(&matrix, &x, rows), got);
        }
    }
}

#[test]
fn products_are_right_and_the_same_alone_and_in_blocks() {
    check::<f32>();
    check::<Bf16>();
}

#[test]
fn a_product_can_be_added() {
    let matrix = Matrix::<f32>::pack(&[2.0, 3.0], 2, None);
    let mut out = [1.0_f32; PANEL];
    matrix.multiply(
        0,
        Rows::new(&[10.0, 1.0], 1, 2, 2),
        &mut Columns::new(&mut out, 1, PANEL, PANEL),
        Output::Add,
    );
    assert_eq!(out[0], 24.0);
}

#[test]
fn bf16_rounds_to_the_nearest_even() {
    for (value, want) in [
        (1.0, 1.0),
        (1.003_906_3, 1.0),
        (1.011_718_8, 1.015_625),
        (-3.15, -3.156_25),
        (f32::INFINITY, f32::INFINITY),
    ] {
        assert_eq!(Bf16::narrow(value).widen(), want);
    }
    assert!(Bf16::narrow(f32::from_bits(0x7f80_0001)).widen().is_nan());
}

#[test]
fn weights_that_are_not_whole_rows_are_refused() {
    for (weights, inner) in [(7, 2), (0, 2), (4, 0), (0, 0), (3, usize::MAX), (4, 5)] {
        let message = panic_message(|| {
            Matrix::<Bf16>::pack(&vec![0.0; weights], inner, None);
        });
        assert_eq!(
            message,
            format!("{weights} weights are not rows of {inner}")
        );
    }
    for biases in [0, 1, 3, 48] {
        let message = panic_message(|| {
            Matrix::<f32>::pack(&[0.0; 4], 2, Some(&vec![0.0; biases]));
        });
        assert!(message.contains("as many biases as outputs"), "{message}");
    }
}

#[test]
fn an_output_that_is_not_there_is_refused() {
    let matrix = Matrix::<Bf16>::pack(&[0.0; 150], 3, None);
    // The panel goes on to 96.
    for output in [50, 95, 96, usize::MAX] {
        let message = panic_message(|| matrix.row(output, &mut [0.0; 3]));
        assert_eq!(message, format!("output {output} of a matrix of 50"));
    }
    for len in [0, 2, 4] {
        let message = panic_message(|| matrix.row(0, &mut vec![0.0; len]));
        assert!(message.contains("as many weights"), "{message}");
    }
}

#[test]
fn a_product_of_other_shapes_is_refused() {
    fn check<E: Number>() {
        let matrix = Matrix::<E>::pack(&[0.0; 150], 3, None);
        let padded = matrix.padded_inner();
        let product = |panel: usize, x: (usize, usize), out: (usize, usize)| {
            let numbers = vec![E::default(); x.0 * x.1];
            let mut room = vec![0.0; out.0 * out.1];
            matrix.multiply(
                panel,
                Rows::new(&numbers, x.0, x.1, x.1),
                &mut Columns::new(&mut room, out.0, out.1, out.1),
                Output::Store,
            );
        };
        product(1, (9, padded), (9, PANEL));
        product(1, (0, padded), (0, PANEL));
        for (panel, x, out, words) in [
            (2, (1, padded), (1, PANEL), "panel 2 of a matrix of 2"),
            (usize::MAX, (1, padded), (1, PANEL), "of a matrix of 2"),
            (0, (1, padded - 1), (1, PANEL), "the inner width"),
            (0, (1, padded + 1), (1, PANEL), "the inner width"),
            (0, (2, padded), (1, PANEL), "as many rows"),
            (0, (1, padded), (2, PANEL), "as many rows"),
            (0, (1, padded), (1, PANEL - 1), "fills a panel"),
            (0, (1, padded), (1, 2 * PANEL), "fills a panel"),
        ] {
            let message = panic_message(|| product(panel, x, out));
            assert!(message.contains(words), "{message}");
        }
    }
    check::<f32>();
    check::<Bf16>();
}
