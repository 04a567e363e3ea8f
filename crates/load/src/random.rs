//! Random numbers that stay the same for ever.
//!
//! A dataset is identified by its seed alone, so the generator is part of its format and must not
//! change with a library's version. It is `SplitMix64` (Steele, Lea, Flood: "Fast Splittable
//! Pseudorandom Number Generators", OOPSLA 2014): good enough to choose test data, useless for
//! secrets.

/// A stream of pseudorandom numbers, the same for the same seed.
#[derive(Clone, Debug)]
pub struct Random {
    state: u64,
}

impl Random {
    /// Returns the stream of this seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// Returns an independent stream for the `index`th part of whatever `seed` is for.
    #[must_use]
    pub fn part(seed: u64, index: u64) -> Self {
        let mut random = Self::new(seed ^ index.wrapping_mul(0xd6e8_feb8_6659_fd93));
        // The first output mixes seed and index; as the new state, it separates the streams of
        // similar seeds.
        Self::new(random.next_u64())
    }

    /// Returns the next 64 bits.
    pub const fn next_u64(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Returns a number below `bound`, or 0 if `bound` is 0. For any bound, the bias is less than
    /// one in 2^32.
    pub const fn below(&mut self, bound: u32) -> u32 {
        (((self.next_u64() >> 32) * bound as u64) >> 32) as u32
    }

    /// Returns an index into a list of `length`, or `None` if the list is empty.
    pub fn index(&mut self, length: usize) -> Option<usize> {
        let wide = u128::from(self.next_u64()) * length as u128;
        (length > 0).then_some((wide >> 64) as usize)
    }

    /// Returns a number from 0 (included) to 1 (excluded).
    #[expect(
        clippy::cast_precision_loss,
        reason = "53 bits are what a double holds exactly"
    )]
    pub const fn unit(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Returns true with this probability.
    pub const fn chance(&mut self, probability: f64) -> bool {
        self.unit() < probability
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_random_sequence_matches_the_reference_implementation() {
        // The first outputs of the reference implementation for this seed.
        let mut random = Random::new(1_234_567);
        let first: [u64; 3] = std::array::from_fn(|_| random.next_u64());
        assert_eq!(
            first,
            [
                6_457_827_717_110_365_317,
                3_203_168_211_198_807_973,
                9_817_491_932_198_370_423
            ]
        );
    }

    #[test]
    fn random_numbers_cover_their_range_and_stay_below_its_bound() {
        let mut random = Random::new(1);
        let mut seen = [0u32; 3];
        for _ in 0..3000 {
            seen[random.below(3) as usize] += 1;
        }
        assert!(
            seen.iter().all(|&count| (800..1200).contains(&count)),
            "{seen:?}"
        );
        assert_eq!(random.below(0), 0);
        assert_eq!(random.index(0), None);
        assert!((0..1000).all(|_| random.index(2).is_some_and(|index| index < 2)));
        assert!((0..1000).all(|_| (0.0..1.0).contains(&random.unit())));
    }
}
