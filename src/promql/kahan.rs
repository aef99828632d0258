//! Compensated summation: Neumaier's variant of Kahan's method, as Prometheus uses it.
//!
//! A. Neumaier, "Rundungsfehleranalyse einiger Verfahren zur Summation endlicher Summen", 1974.

/// A running sum and the part of it that rounding lost.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Kahan {
    /// The rounded sum.
    pub(super) sum: f64,
    /// What it lost.
    pub(super) lost: f64,
}

impl Kahan {
    pub(super) fn new(sum: f64) -> Self {
        Kahan { sum, lost: 0.0 }
    }

    /// The sum with `value` added.
    #[must_use]
    pub(super) fn plus(self, value: f64) -> Self {
        let sum = self.sum + value;
        let lost = if sum.is_infinite() {
            0.0
        } else if self.sum.abs() >= value.abs() {
            self.lost + ((self.sum - sum) + value)
        } else {
            self.lost + ((value - sum) + self.sum)
        };
        Kahan { sum, lost }
    }

    /// Both sums together.
    #[must_use]
    pub(super) fn join(self, other: Self) -> Self {
        let mut joined = self.plus(other.sum);
        if !joined.sum.is_infinite() {
            joined.lost += other.lost;
        }
        joined
    }

    /// The best single number for it.
    pub(super) fn value(self) -> f64 {
        if self.sum.is_infinite() { self.sum } else { self.sum + self.lost }
    }
}

/// A mean whose sum may overflow: it is a sum while that is finite, and a moving mean from there on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mean {
    kahan: Kahan,
    count: f64,
    moving: bool,
}

impl Mean {
    pub(super) fn new(value: f64) -> Self {
        Mean { kahan: Kahan::new(value), count: 1.0, moving: false }
    }

    /// The mean with `value` counted in.
    #[must_use]
    pub(super) fn plus(mut self, value: f64) -> Self {
        self.count += 1.0;
        if !self.moving {
            let next = self.kahan.plus(value);
            if !next.sum.is_infinite() {
                self.kahan = next;
                return self;
            }
            self.moving = true;
            self.kahan.sum /= self.count - 1.0;
            self.kahan.lost /= self.count - 1.0;
        }
        let weight = (self.count - 1.0) / self.count;
        let scaled = Kahan { sum: self.kahan.sum * weight, lost: self.kahan.lost * weight };
        self.kahan = scaled.plus(value / self.count);
        self
    }

    pub(super) fn value(self) -> f64 {
        if self.moving {
            return self.kahan.sum + self.kahan.lost;
        }
        self.kahan.sum / self.count + self.kahan.lost / self.count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_terms_survive_large_ones() {
        let sum = [1.0, 1e100, 1.0, -1e100].iter().fold(Kahan::default(), |sum, v| sum.plus(*v));
        assert_eq!(sum.value(), 2.0);
        let (a, b) = (Kahan::new(1.0).plus(1e100), Kahan::new(1.0).plus(-1e100));
        assert_eq!(a.join(b).value(), 2.0);
    }

    #[test]
    fn infinities_stay() {
        assert_eq!(Kahan::new(f64::INFINITY).plus(1.0).value(), f64::INFINITY);
        assert!(Kahan::new(f64::INFINITY).plus(f64::NEG_INFINITY).value().is_nan());
    }

    #[test]
    fn a_mean_of_large_numbers_does_not_overflow() {
        assert_eq!(Mean::new(f64::MAX).plus(f64::MAX).value(), f64::MAX);
        assert_eq!(Mean::new(1.0).plus(2.0).plus(6.0).value(), 3.0);
    }
}
