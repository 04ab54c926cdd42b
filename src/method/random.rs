//! Randomness that is a function of its purpose: a counter-based
//! generator (Philox4x32-10, Salmon et al. 2011), keyed by a hash of
//! (seed, purpose, ids), so that no result depends on order.

/// Random numbers of one purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stream {
    key: [u32; 2],
}

impl Stream {
    /// The stream of `purpose` (a constant word) and `ids` under `seed`. Strings are
    /// length-prefixed in the hash, so no two lists of ids share a stream.
    pub fn new(seed: u64, purpose: &str, text_id: &str, ids: &[u64]) -> Self {
        Self::with_texts(seed, purpose, &[text_id], ids)
    }

    /// The same with several texts as ids. A purpose always has the same number of texts.
    pub fn with_texts(seed: u64, purpose: &str, texts: &[&str], ids: &[u64]) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&seed.to_le_bytes());
        for text in std::iter::once(&purpose).chain(texts) {
            hasher.update(&(text.len() as u64).to_le_bytes());
            hasher.update(text.as_bytes());
        }
        hasher.update(&(ids.len() as u64).to_le_bytes());
        for id in ids {
            hasher.update(&id.to_le_bytes());
        }
        let h = hasher.finalize();
        let b = h.as_bytes();
        Self {
            key: [
                u32::from_le_bytes([b[0], b[1], b[2], b[3]]),
                u32::from_le_bytes([b[4], b[5], b[6], b[7]]),
            ],
        }
    }

    /// Four random words for a 128-bit counter.
    pub fn words(&self, counter: [u32; 4]) -> [u32; 4] {
        philox4x32_10(counter, self.key)
    }

    /// A uniform number in (0, 1) for (position, index), 52 bits.
    pub fn uniform(&self, position: u64, index: u64) -> f64 {
        let w = self.words([
            index as u32,
            (index >> 32) as u32,
            position as u32,
            (position >> 32) as u32,
        ]);
        let bits = ((u64::from(w[0]) << 32) | u64::from(w[1])) >> 12;
        open_unit(bits)
    }

    /// Numbers for all the indices of a position, others than those of [`Stream::uniform`].
    pub fn row(&self, position: u64) -> Row {
        Row {
            stream: *self,
            position,
        }
    }

    /// A standard Gumbel number, -ln(-ln(u)), for (position, index).
    pub fn gumbel(&self, position: u64, index: u64) -> f64 {
        -(-self.uniform(position, index).ln()).ln()
    }
}

/// Indices whose upper bits come at once.
pub const GROUP: usize = 64;

/// Uniform numbers in (0, 1) for the indices of one position: 52 bits each, of
/// which the upper 32 are cheap where many are wanted. A block of the generator
/// gives those of four indices; the lower 20 have one block each.
#[derive(Debug, Clone, Copy)]
pub struct Row {
    stream: Stream,
    position: u64,
}

impl Row {
    /// In the uppermost bits of the counter, where no position comes; 0 is [`Stream::uniform`]'s.
    const UPPER: u32 = 1 << 31;
    const LOWER: u32 = 3 << 30;

    /// A uniform number in (0, 1), 52 bits.
    pub fn uniform(&self, index: u64) -> f64 {
        let group = GROUP as u64;
        let (within, blocks) = (index % group, index / group * (group / 4));
        let upper = self.block(blocks + within % 16, Self::UPPER)[within as usize / 16];
        let lower = self.block(index, Self::LOWER)[0];
        open_unit(((u64::from(upper) << 32) | u64::from(lower)) >> 12)
    }

    /// A standard Gumbel number, -ln(-ln(u)).
    pub fn gumbel(&self, index: u64) -> f64 {
        -(-self.uniform(index).ln()).ln()
    }

    fn block(&self, number: u64, part: u32) -> [u32; 4] {
        self.stream.words([
            number as u32,
            (number >> 32) as u32,
            self.position as u32,
            (self.position >> 32) as u32 | part,
        ])
    }

    /// The upper 32 of the bits of [`Row::uniform`] for the [`GROUP`] indices from
    /// `GROUP * group` on, sixteen by sixteen: 16 blocks of the generator side by side.
    #[inline]
    pub fn upper_bits(&self, group: u64) -> [[u32; 16]; 4] {
        let number = |i: usize| group * 16 + i as u64;
        let mut c = [
            std::array::from_fn(|i| number(i) as u32),
            std::array::from_fn(|i| (number(i) >> 32) as u32),
            [self.position as u32; 16],
            [(self.position >> 32) as u32 | Self::UPPER; 16],
        ];
        let mut k = self.stream.key;
        for round in 0..10 {
            if round > 0 {
                k = next_key(k);
            }
            let (mut high0, mut low0) = ([0_u32; 16], [0_u32; 16]);
            let (mut high1, mut low1) = ([0_u32; 16], [0_u32; 16]);
            for i in 0..16 {
                let (p0, p1) = (u64::from(c[0][i]) * M0, u64::from(c[2][i]) * M1);
                (high0[i], low0[i]) = ((p0 >> 32) as u32, p0 as u32);
                (high1[i], low1[i]) = ((p1 >> 32) as u32, p1 as u32);
            }
            for i in 0..16 {
                high1[i] ^= c[1][i] ^ k[0];
                high0[i] ^= c[3][i] ^ k[1];
            }
            c = [high1, low1, high0, low0];
        }
        c
    }
}

/// The middle of one of the 2^52 equal parts of (0, 1). With 53 bits the last
/// one would round up to 1, whose Gumbel number is infinite.
fn open_unit(bits: u64) -> f64 {
    (bits as f64 + 0.5) * (1.0 / 4_503_599_627_370_496.0)
}

const M0: u64 = 0xD251_1F53;
const M1: u64 = 0xCD9E_8D57;

/// A round's key from that of the round before.
fn next_key(k: [u32; 2]) -> [u32; 2] {
    [
        k[0].wrapping_add(0x9E37_79B9),
        k[1].wrapping_add(0xBB67_AE85),
    ]
}

/// Philox4x32 with ten rounds.
pub fn philox4x32_10(mut c: [u32; 4], mut k: [u32; 2]) -> [u32; 4] {
    for round in 0..10 {
        if round > 0 {
            k = next_key(k);
        }
        let p0 = u64::from(c[0]) * M0;
        let p1 = u64::from(c[2]) * M1;
        c = [
            (p1 >> 32) as u32 ^ c[1] ^ k[0],
            p1 as u32,
            (p0 >> 32) as u32 ^ c[3] ^ k[1],
            p0 as u32,
        ];
    }
    c
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Known answers of the reference implementation (Random123 `kat_vectors`).
    #[test]
    fn philox_gives_the_published_numbers() {
        assert_eq!(
            philox4x32_10([0; 4], [0; 2]),
            [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]
        );
        assert_eq!(
            philox4x32_10([u32::MAX; 4], [u32::MAX; 2]),
            [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]
        );
        assert_eq!(
            philox4x32_10(
                [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344],
                [0xa409_3822, 0x299f_31d0]
            ),
            [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]
        );
    }

    #[test]
    fn the_first_and_last_parts_are_inside_the_open_interval() {
        assert!(open_unit(0) > 0.0);
        assert!(open_unit(u64::MAX >> 12) < 1.0);
    }

    #[test]
    fn the_upper_bits_of_a_group_are_those_of_one_at_a_time() {
        let s = Stream::new(4, "t", "", &[2]);
        for group in [0, 1, 750, u64::from(u32::MAX) / 16] {
            for position in [0, 9, 1 << 40] {
                let row = s.row(position);
                for (i, upper) in row.upper_bits(group).as_flattened().iter().enumerate() {
                    let u = row.uniform(group * GROUP as u64 + i as u64);
                    assert_eq!((u * 4_294_967_296.0) as u32, *upper);
                }
            }
        }
    }

    #[test]
    fn a_row_s_numbers_are_uniform_and_all_different() {
        let row = Stream::new(4, "t", "", &[]).row(3);
        let mut numbers: Vec<f64> = (0..50_000).map(|i| row.uniform(i)).collect();
        let mean = numbers.iter().sum::<f64>() / 5e4;
        assert!((mean - 0.5).abs() < 0.005, "{mean}");
        numbers.sort_by(f64::total_cmp);
        assert!(numbers.windows(2).all(|w| w[0] < w[1]));
        for (i, u) in numbers.iter().enumerate() {
            assert!((u - i as f64 / 5e4).abs() < 0.01, "the {i}th is {u}");
        }
        // Others than those of another position, and than the stream's own.
        let s = Stream::new(4, "t", "", &[]);
        assert_ne!(s.row(3).uniform(0), s.row(4).uniform(0));
        assert_ne!(s.row(3).uniform(0), s.uniform(3, 0));
    }

    #[test]
    fn uniform_stays_inside_the_open_interval() {
        let s = Stream::new(1, "t", "", &[]);
        for i in 0..10_000 {
            let u = s.uniform(0, i);
            assert!(u > 0.0 && u < 1.0);
        }
    }
}
