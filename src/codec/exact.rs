//! Exact summation of doubles: the result depends neither on order nor on grouping, and is rounded once.
//!
//! Called by page aggregates and by every query that adds. Neal, "Fast exact summation using small and
//! large superaccumulators" (2015): a sum of doubles is a fixed-point number of some 2,100 bits. Most sums
//! need few of them, so a 128-bit window is tried first; what it cannot hold goes to the full width.

/// The unit of the window is `2^-WINDOW_FRACTION_BITS`: any double of magnitude 2^-24 to 2^50 fits whole.
const WINDOW_FRACTION_BITS: i32 = 76;
const WINDOW_UNIT: f64 = 1.0 / (1u128 << WINDOW_FRACTION_BITS) as f64;
/// Exponent field of the smallest double whose last bit is the window's unit.
const WINDOW_EXPONENT_MIN: u32 = (1075 - WINDOW_FRACTION_BITS) as u32;
/// Most places a significand is shifted up: its 53 bits then end at bit 125.
const WINDOW_SHIFT_MAX: u32 = 73;

const MANTISSA_BITS: u32 = 52;
const EXPONENT_FIELD_MAX: u32 = 0x7ff;

/// An exact sum of doubles. Infinities and NaN are counted, so that they too commute.
#[derive(Clone, Debug, Default)]
pub(crate) struct ExactSum {
    window: i128,
    wide: Option<Box<Wide>>,
    plus_infinities: u64,
    minus_infinities: u64,
    nans: u64,
}

impl ExactSum {
    /// Nothing added yet.
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Adds one double.
    #[inline]
    pub(crate) fn add(&mut self, value: f64) {
        let shift = exponent_field(value).wrapping_sub(WINDOW_EXPONENT_MIN);
        if shift <= WINDOW_SHIFT_MAX {
            let magnitude = i128::from(significand(value)) << shift;
            let term = if value.is_sign_negative() { -magnitude } else { magnitude };
            if let Some(sum) = self.window.checked_add(term) {
                self.window = sum;
                return;
            }
        }
        self.add_slowly(value);
    }

    #[cold]
    fn add_slowly(&mut self, value: f64) {
        if value.is_nan() {
            self.nans += 1;
        } else if value == f64::INFINITY {
            self.plus_infinities += 1;
        } else if value == f64::NEG_INFINITY {
            self.minus_infinities += 1;
        } else if value != 0.0 {
            self.wide.get_or_insert_default().add(value);
        }
    }

    /// Adds a sum that is kept as two doubles, as [`ExactSum::to_pair`] gives it.
    pub(crate) fn add_pair(&mut self, (high, low): (f64, f64)) {
        self.add(high);
        self.add(low);
    }

    /// Adds `value` `count` times.
    pub(crate) fn add_repeated(&mut self, value: f64, count: u32) {
        for bit in (0..u32::BITS).filter(|bit| count >> bit & 1 == 1) {
            // A power of two scales exactly, unless it overflows.
            let scaled = value * f64::from(1u32 << bit);
            if scaled.is_finite() || !value.is_finite() {
                self.add(scaled);
            } else {
                (0..1u32 << bit).for_each(|_| self.add(value));
            }
        }
    }

    /// Adds everything that was added to `other`.
    pub(crate) fn merge(&mut self, other: &ExactSum) {
        match self.window.checked_add(other.window) {
            Some(sum) => self.window = sum,
            None => self.wide.get_or_insert_default().add_window(other.window),
        }
        if let Some(wide) = &other.wide {
            self.wide.get_or_insert_default().merge(wide);
        }
        self.plus_infinities += other.plus_infinities;
        self.minus_infinities += other.minus_infinities;
        self.nans += other.nans;
    }

    /// The sum, rounded once to the nearest double, ties to even. An exact zero is `0.0`; infinities of
    /// both signs, or any NaN, give the canonical NaN.
    pub(crate) fn round(&self) -> f64 {
        match (self.nans, self.plus_infinities, self.minus_infinities) {
            (0, 0, 0) => self.round_finite(),
            (0, _, 0) => f64::INFINITY,
            (0, 0, _) => f64::NEG_INFINITY,
            _ => f64::NAN,
        }
    }

    fn round_finite(&self) -> f64 {
        match &self.wide {
            // Rust rounds an integer to the nearest double, ties to even; the scale is a power of two.
            None => self.window as f64 * WINDOW_UNIT,
            Some(wide) => {
                let mut wide = wide.clone();
                wide.add_window(self.window);
                wide.round()
            }
        }
    }

    /// The exact sum as the rounded sum and a rest, where two doubles can hold it and it is finite.
    pub(crate) fn to_pair(&self) -> Option<(f64, f64)> {
        let high = self.round();
        if !high.is_finite() {
            return None;
        }
        let mut rest = self.clone();
        rest.add(-high);
        let low = rest.round();
        rest.add(-low);
        (rest.is_zero()).then_some((high, low))
    }

    fn is_zero(&self) -> bool {
        self.round() == 0.0
    }
}

fn exponent_field(value: f64) -> u32 {
    (value.to_bits() >> MANTISSA_BITS) as u32 & EXPONENT_FIELD_MAX
}

/// The 53 bits of a normal double's significand.
fn significand(value: f64) -> u64 {
    value.to_bits() & ((1 << MANTISSA_BITS) - 1) | 1 << MANTISSA_BITS
}

/// Most terms that are added at one [`Scale`].
const SCALE_TERM_COUNT_MAX: usize = 1 << 11;
/// Widest span of exponents at one scale: 53 bits, the span, 11 bits for the count and the sign fit 128.
const SCALE_SPAN_MAX: u32 = 128 - 1 - 11 - (MANTISSA_BITS + 1);

/// A unit of which all values of one column are multiples, so that they add as 128-bit integers. Faster
/// than [`ExactSum`] where the column is known, and with the same result.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scale {
    exponent_min: u32,
}

impl Scale {
    /// The scale of `values`, of which there are 1 to 2,048, if their exponents lie close enough; and the
    /// smallest and largest value, -0.0 below 0.0. `None` when one is not finite.
    pub(crate) fn of(values: &[f64]) -> Option<(Option<Scale>, f64, f64)> {
        let (mut low, mut high) = (i64::MAX, i64::MIN);
        let mut exponent_min = EXPONENT_FIELD_MAX;
        let mut exponent_max = 0;
        for value in values {
            let key = order_key(*value);
            low = low.min(key);
            high = high.max(key);
            // A zero has no exponent; it takes the largest, which makes no scale finer.
            let exponent = exponent_field(*value);
            let finest = if *value == 0.0 { EXPONENT_FIELD_MAX } else { exponent };
            exponent_min = exponent_min.min(finest);
            exponent_max = exponent_max.max(exponent);
        }
        if exponent_max == EXPONENT_FIELD_MAX {
            return None;
        }
        // Subnormals have another significand; nobody's metrics need them to be fast.
        let fits = exponent_min > 0
            && exponent_max.saturating_sub(exponent_min) <= SCALE_SPAN_MAX
            && values.len() <= SCALE_TERM_COUNT_MAX;
        // Zeros alone leave the largest; any exponent will do for them.
        let exponent_min = exponent_min.min(exponent_max.max(1));
        let scale = fits.then_some(Scale { exponent_min });
        Some((scale, from_order_key(low), from_order_key(high)))
    }

    /// `value`, which the scale was made of, in units.
    #[inline]
    pub(crate) fn units(self, value: f64) -> i128 {
        // A zero may lie below the smallest exponent; its significand is cleared.
        let shift = exponent_field(value).saturating_sub(self.exponent_min);
        let significand = if value == 0.0 { 0 } else { significand(value) };
        let magnitude = i128::from(significand) << shift;
        let sign = -i128::from(value.is_sign_negative());
        (magnitude ^ sign) - sign
    }

    /// The sum of so many units.
    pub(crate) fn sum(self, units: i128) -> ExactSum {
        let mut sum = ExactSum::new();
        let unit_exponent = self.exponent_min as i32 - 1075;
        let mut rest = units.unsigned_abs();
        let mut place = 0;
        while rest != 0 {
            // 52 bits at a time are exact as doubles, and so is scaling them, in two steps for the range.
            let part = (rest & ((1 << MANTISSA_BITS) - 1)) as f64;
            let part = if units < 0 { -part } else { part };
            add_scaled(&mut sum, part, unit_exponent + place);
            rest >>= MANTISSA_BITS;
            place += MANTISSA_BITS as i32;
        }
        sum
    }
}

/// Adds `part * 2^exponent`, a multiple of the smallest double; beyond the largest, in two terms.
fn add_scaled(sum: &mut ExactSum, part: f64, exponent: i32) {
    let scaled = part * power_of_two(exponent / 2) * power_of_two(exponent - exponent / 2);
    if scaled.is_finite() {
        sum.add(scaled);
    } else {
        sum.wide.get_or_insert_default().add_at(part as i128, (exponent + 1074) as u32);
    }
}

/// 2 to a power within the range of normal doubles.
fn power_of_two(exponent: i32) -> f64 {
    f64::from_bits(((exponent + 1023) as u64) << MANTISSA_BITS)
}

/// A number that orders as the doubles do, -0.0 below 0.0.
fn order_key(value: f64) -> i64 {
    let bits = value.to_bits() as i64;
    bits ^ ((bits >> 63) as u64 >> 1) as i64
}

fn from_order_key(key: i64) -> f64 {
    f64::from_bits((key ^ ((key >> 63) as u64 >> 1) as i64) as u64)
}

const LIMB_BITS: u32 = 32;
const LIMB_MASK: i64 = (1 << LIMB_BITS) - 1;
/// Bits from 2^-1074 to 2^1024, and 64 more for the growth of up to 2^64 terms.
const LIMB_COUNT: usize = (1074 + 1024 + 64usize).div_ceil(LIMB_BITS as usize);
/// A term changes a limb by less than 2^32, so this many are safe in 64 bits between carries.
const TERMS_BETWEEN_CARRIES: u32 = 1 << 29;
/// Place of the window's unit, counted in bits from 2^-1074.
const WINDOW_PLACE: u32 = (1074 - WINDOW_FRACTION_BITS) as u32;

/// The full-width fixed-point number, unit 2^-1074, in limbs of 32 bits with room for carries.
#[derive(Clone, Debug)]
struct Wide {
    limbs: [i64; LIMB_COUNT],
    terms: u32,
}

impl Default for Wide {
    fn default() -> Self {
        Wide { limbs: [0; LIMB_COUNT], terms: 0 }
    }
}

impl Wide {
    /// Adds a finite double.
    fn add(&mut self, value: f64) {
        let field = exponent_field(value);
        let (magnitude, place) =
            if field == 0 { (value.to_bits() << 1 >> 1, 0) } else { (significand(value), field - 1) };
        let magnitude = i128::from(magnitude);
        self.add_at(if value.is_sign_negative() { -magnitude } else { magnitude }, place);
    }

    fn add_window(&mut self, window: i128) {
        // In two halves, so that shifting within a limb cannot overflow.
        self.add_at(window & i128::from(u64::MAX), WINDOW_PLACE);
        self.add_at(window >> u64::BITS, WINDOW_PLACE + u64::BITS);
    }

    /// Adds `term * 2^(place - 1074)`; `term` has at most 65 bits.
    fn add_at(&mut self, term: i128, place: u32) {
        if self.terms >= TERMS_BETWEEN_CARRIES {
            self.carry();
        }
        self.terms += 1;
        let shifted = term << (place % LIMB_BITS);
        let first = (place / LIMB_BITS) as usize;
        for (index, limb) in self.limbs.iter_mut().skip(first).take(3).enumerate() {
            let part = (shifted.unsigned_abs() >> (LIMB_BITS as usize * index)) as i64 & LIMB_MASK;
            *limb += if shifted < 0 { -part } else { part };
        }
        // The part above 96 bits: one more limb, where there is one.
        if let Some(limb) = self.limbs.get_mut(first + 3) {
            let part = (shifted.unsigned_abs() >> (3 * LIMB_BITS)) as i64;
            *limb += if shifted < 0 { -part } else { part };
        }
    }

    fn merge(&mut self, other: &Wide) {
        let mut other = other.clone();
        other.carry();
        self.carry();
        for (limb, more) in self.limbs.iter_mut().zip(other.limbs) {
            *limb += more;
        }
        self.carry();
    }

    /// Brings every limb but the last into 0..2^32.
    fn carry(&mut self) {
        let mut carried = 0;
        let (last, lower) = self.limbs.split_last_mut().expect("there are limbs");
        for limb in lower {
            let sum = *limb + carried;
            *limb = sum & LIMB_MASK;
            carried = sum >> LIMB_BITS;
        }
        *last += carried;
        self.terms = 1;
    }

    fn round(mut self) -> f64 {
        self.carry();
        let negative = self.limbs[LIMB_COUNT - 1] < 0;
        if negative {
            self.limbs.iter_mut().for_each(|limb| *limb = -*limb);
            self.carry();
        }
        let magnitude = self.round_magnitude();
        if negative { -magnitude } else { magnitude }
    }

    /// Of a number that is carried and not negative.
    fn round_magnitude(&self) -> f64 {
        let Some(top) = self.limbs.iter().rposition(|limb| *limb != 0) else { return 0.0 };
        let top_bit = top as u32 * LIMB_BITS + (i64::BITS - 1 - self.limbs[top].leading_zeros());
        if top_bit <= MANTISSA_BITS {
            // Few enough units of 2^-1074 to be the bits of the double themselves.
            return f64::from_bits(self.bits_from(0) & ((1 << (MANTISSA_BITS + 1)) - 1));
        }
        let place = top_bit - MANTISSA_BITS;
        let kept = self.bits_from(place) & ((1 << (MANTISSA_BITS + 1)) - 1);
        let half = self.bits_from(place - 1) & 1 == 1;
        let odd = kept & 1 == 1;
        let up = half && (odd || self.any_below(place - 1));
        // The leading bit of `kept` raises the exponent by one, and so does a carry out of rounding up.
        let bits = (u64::from(place) << MANTISSA_BITS) + kept + u64::from(up);
        f64::from_bits(bits.min(f64::INFINITY.to_bits()))
    }

    /// 64 bits from `place` up.
    fn bits_from(&self, place: u32) -> u64 {
        let first = (place / LIMB_BITS) as usize;
        let limb = |index: usize| self.limbs.get(first + index).map_or(0, |limb| *limb as u128);
        let joined = limb(0) | limb(1) << LIMB_BITS | limb(2) << (2 * LIMB_BITS);
        (joined >> (place % LIMB_BITS)) as u64
    }

    fn any_below(&self, place: u32) -> bool {
        let whole = (place / LIMB_BITS) as usize;
        let rest = (1i64 << (place % LIMB_BITS)) - 1;
        self.limbs[..whole].iter().any(|limb| *limb != 0) || self.limbs[whole] & rest != 0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sum_of(values: &[f64]) -> ExactSum {
        let mut sum = ExactSum::new();
        values.iter().for_each(|value| sum.add(*value));
        sum
    }

    #[track_caller]
    fn check(values: &[f64], expected: f64) {
        assert_eq!(sum_of(values).round().to_bits(), expected.to_bits(), "{values:?}");
        let reversed: Vec<f64> = values.iter().rev().copied().collect();
        assert_eq!(sum_of(&reversed).round().to_bits(), expected.to_bits(), "reversed {values:?}");
    }

    #[test]
    fn sums_are_exact_and_rounded_once() {
        check(&[], 0.0);
        check(&[-0.0, -0.0], 0.0);
        check(&[0.1, 0.2], 0.1 + 0.2);
        check(&[1e16, 1.0, -1e16], 1.0);
        check(&[1e300, 1.0, -1e300, 1e-300], 1.0);
        check(&[0.1; 10], 1.0);
        check(&[f64::MAX, f64::MAX, -f64::MAX], f64::MAX);
        check(&[f64::MAX, f64::MAX], f64::INFINITY);
        check(&[-f64::MAX, f64::MIN_POSITIVE, -f64::MAX], f64::NEG_INFINITY);
        check(&[5e-324, 5e-324], 1e-323);
        check(&[f64::MIN_POSITIVE, -5e-324], f64::MIN_POSITIVE - 5e-324);
        check(&[1.0, 2f64.powi(-53)], 1.0);
        check(&[1.0, 2f64.powi(-53), 5e-324], 1.0 + f64::EPSILON);
        check(&[1.0 + f64::EPSILON, 2f64.powi(-53)], 1.0 + 2.0 * f64::EPSILON);
        check(&[2f64.powi(60), -1.0], 2f64.powi(60));
        check(&[9e15, 9e15, 9e15, -9e15], 18e15);
    }

    #[test]
    fn what_is_not_finite_is_counted() {
        check(&[f64::INFINITY, 1.0], f64::INFINITY);
        check(&[f64::NEG_INFINITY, 1.0], f64::NEG_INFINITY);
        assert!(sum_of(&[f64::INFINITY, f64::NEG_INFINITY]).round().is_nan());
        assert!(sum_of(&[f64::from_bits(crate::model::STALE_NAN_BITS), 1.0]).round().is_nan());
        assert_eq!(sum_of(&[f64::INFINITY]).to_pair(), None);
    }

    #[test]
    fn the_window_overflows_into_the_full_width() {
        let value = 1.1e15;
        let mut sum = ExactSum::new();
        (0..100_000).for_each(|_| sum.add(value));
        assert_eq!(sum.round(), 1.1e20);
        let mut twice = sum.clone();
        twice.merge(&sum);
        assert_eq!(twice.round(), 2.2e20);
        let mut halves = sum_of(&vec![value; 70_000]);
        halves.merge(&sum_of(&vec![value; 80_000]));
        assert_eq!(halves.round(), 1.65e20);
    }

    #[test]
    fn a_pair_is_exact_or_absent() {
        assert_eq!(sum_of(&[1.0, 2f64.powi(-80)]).to_pair(), Some((1.0, 2f64.powi(-80))));
        assert_eq!(sum_of(&[]).to_pair(), Some((0.0, 0.0)));
        assert_eq!(sum_of(&[1e300, 1.0, 1e-300]).to_pair(), None);
    }

    #[test]
    fn repeating_equals_adding() {
        for value in [0.1, -3.0, 1e-310, f64::MAX, f64::INFINITY, f64::NAN] {
            let mut repeated = ExactSum::new();
            repeated.add_repeated(value, 1_013);
            assert_eq!(repeated.round().to_bits(), sum_of(&[value; 1_013]).round().to_bits(), "{value}");
        }
    }

    fn any_finite() -> impl Strategy<Value = f64> {
        any::<u64>().prop_map(f64::from_bits).prop_filter("finite", |value| value.is_finite())
    }

    fn usual() -> impl Strategy<Value = f64> {
        prop_oneof![any_finite(), -1e6..1e6, (-1000i32..1000).prop_map(f64::from)]
    }

    #[track_caller]
    fn check_scale(values: &[f64]) {
        let (scale, min, max) = Scale::of(values).unwrap();
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        assert_eq!(min.to_bits(), sorted[0].to_bits());
        assert_eq!(max.to_bits(), sorted[sorted.len() - 1].to_bits());
        if let Some(scale) = scale {
            let units = values.iter().map(|value| scale.units(*value)).sum();
            assert_eq!(scale.sum(units).to_pair(), sum_of(values).to_pair(), "{values:?}");
        }
    }

    #[test]
    fn a_scale_adds_the_same() {
        check_scale(&[0.0, -0.0, 0.0]);
        check_scale(&[0.0, 1.5, -2.25]);
        check_scale(&[0.1, 0.2, 1e15, -1e-3]);
        check_scale(&[f64::MAX, f64::MAX / 3.0, -f64::MAX]);
        check_scale(&[f64::MAX; 2000]);
        check_scale(&[f64::MIN_POSITIVE, 3.0 * f64::MIN_POSITIVE]);
        check_scale(&[5e-324, 0.0]);
        check_scale(&[5e-324, 5e-324]);
        check_scale(&[1.0, 2f64.powi(63)]);
        check_scale(&[1.0, 2f64.powi(64)]);
        assert!(Scale::of(&[1.0, f64::NAN]).is_none());
        assert!(Scale::of(&[f64::NEG_INFINITY, 1.0]).is_none());
        assert!(Scale::of(&[0.1; 2000]).unwrap().0.is_some());
    }

    proptest! {
        #[test]
        fn any_scale_adds_the_same(values in prop::collection::vec(usual(), 1..50)) {
            check_scale(&values);
        }

        #[test]
        fn order_and_grouping_do_not_matter(mut values in prop::collection::vec(usual(), 0..50), at in 0usize..50) {
            let expected = sum_of(&values).round();
            let (left, right) = values.split_at(at.min(values.len()));
            let mut merged = sum_of(right);
            merged.merge(&sum_of(left));
            prop_assert_eq!(merged.round().to_bits(), expected.to_bits());
            values.sort_by(f64::total_cmp);
            prop_assert_eq!(sum_of(&values).round().to_bits(), expected.to_bits());
        }

        #[test]
        fn two_terms_round_as_the_processor_does(a in any_finite(), b in any_finite()) {
            prop_assume!(a + b != 0.0);
            prop_assert_eq!(sum_of(&[a, b]).round().to_bits(), (a + b).to_bits());
            let mut wide = Wide::default();
            wide.add(a);
            wide.add(b);
            prop_assert_eq!(wide.round().to_bits(), (a + b).to_bits());
        }

        #[test]
        fn a_pair_gives_the_sum_back(values in prop::collection::vec(usual(), 0..50)) {
            let sum = sum_of(&values);
            if let Some(pair) = sum.to_pair() {
                let mut other = ExactSum::new();
                other.add_pair(pair);
                for value in &values {
                    other.add(-value);
                }
                prop_assert_eq!(other.round(), 0.0);
            }
        }
    }
}
