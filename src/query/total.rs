//! Exact sums of what series hold: doubles and integers, rounded once at the end.

use crate::codec::exact::ExactSum;

/// An exact sum of doubles and integers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Total {
    pub doubles: ExactSum,
    pub integers: i128,
}

impl Total {
    /// Adds doubles.
    pub(crate) fn add_f64(&mut self, values: &[f64]) {
        for chunk in values.chunks(WHOLE_CHUNK) {
            match sum_of_whole(chunk) {
                Some(sum) => self.doubles.add(sum),
                None => chunk.iter().for_each(|value| self.doubles.add(*value)),
            }
        }
    }

    /// Adds integers.
    pub(crate) fn add_i64(&mut self, values: &[i64]) {
        self.integers += values.iter().map(|value| i128::from(*value)).sum::<i128>();
    }

    /// Adds another sum.
    pub(crate) fn merge(&mut self, other: &Total) {
        self.doubles.merge(&other.doubles);
        self.integers += other.integers;
    }

    /// Doubles and integers as one exact sum.
    fn unite(mut self) -> ExactSum {
        const BITS: u32 = 53;
        const MASK: i128 = (1 << BITS) - 1;
        let scale = |place: u32| (1_u128 << place) as f64;
        // Three pieces of at most 53 bits: each is a double exactly.
        self.doubles.add((self.integers & MASK) as f64);
        self.doubles.add((self.integers >> BITS & MASK) as f64 * scale(BITS));
        self.doubles.add((self.integers >> (2 * BITS)) as f64 * scale(2 * BITS));
        self.doubles
    }

    /// The sum, rounded once.
    pub(crate) fn round(self) -> f64 {
        if self.integers == 0 { self.doubles.round() } else { self.unite().round() }
    }
}

/// So many whole numbers from -2^41 to 2^41 add up to at most 2^53, which a double holds exactly.
const WHOLE_CHUNK: usize = 1 << 12;
const WHOLE_BITS: u32 = 41;

/// The sum of at most `WHOLE_CHUNK` doubles if all of them are small whole numbers, as most gauges and
/// counters are. One loop without branches and with integers alone to carry, so that it runs on vector units.
fn sum_of_whole(values: &[f64]) -> Option<f64> {
    // Adding 1.5 * 2^52 to a small whole number leaves that number in the low bits of the sum; what was no
    // whole number is rounded, and does not come back when the constant is taken away again.
    const ROUNDER: f64 = 6_755_399_441_055_744.0;
    const LOWEST: u64 = ROUNDER.to_bits() - (1 << WHOLE_BITS);
    let (mut outside, mut changed, mut sum) = (0, 0, 0_u64);
    for value in values {
        let rounded = value + ROUNDER;
        let whole = rounded.to_bits().wrapping_sub(LOWEST);
        outside |= whole >> (WHOLE_BITS + 1);
        changed |= (rounded - ROUNDER).to_bits() ^ value.to_bits();
        sum = sum.wrapping_add(whole);
    }
    let lowest = (values.len() as u64) << WHOLE_BITS;
    (outside | changed == 0).then(|| sum.wrapping_sub(lowest).cast_signed() as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_numbers_are_told_from_others() {
        let edge = (1_u64 << WHOLE_BITS) as f64;
        assert_eq!(sum_of_whole(&[]), Some(0.0));
        assert_eq!(sum_of_whole(&[1.0, -3.0, 0.0, 7.0, 100.0]), Some(105.0));
        assert_eq!(sum_of_whole(&[-edge; WHOLE_CHUNK]), Some(-(2_f64.powi(53))));
        assert_eq!(sum_of_whole(&[edge - 1.0; WHOLE_CHUNK]), Some((edge - 1.0) * WHOLE_CHUNK as f64));
        for other in
            [0.5, 1e-300, -0.0, edge, -edge - 1.0, 1e18, 1e300, f64::NAN, f64::INFINITY, -f64::INFINITY]
        {
            assert_eq!(sum_of_whole(&[1.0, other, 2.0]), None, "{other}");
        }
    }

    #[test]
    fn doubles_and_integers_are_rounded_together() {
        let mut total = Total::default();
        total.add_i64(&[i64::MAX, 1, 1]);
        total.add_f64(&[0.5, -9_223_372_036_854_775_808.0]);
        assert_eq!(total.clone().round(), 1.5);
        total.add_i64(&[i64::MIN; 1_000]);
        let mut other = Total::default();
        other.add_i64(&[i64::MAX; 1_000]);
        total.merge(&other);
        assert_eq!(total.round(), -998.5);
    }
}
