//! What a query computes of the samples of a window, and which samples it looks at: the words of the
//! public interface. `docs/query.md` defines each; `fold.rs` computes them.

use std::cmp::Ordering;
use std::fmt;

use crate::chunk::{Ends, PageAggregate, Summary};
use crate::error::{Error, Result};

/// A function of the samples in one window. Staleness markers are never among them.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Aggregate {
    /// How many samples.
    Count,
    /// Their sum, rounded once.
    Sum,
    /// Sum by count.
    Avg,
    /// The smallest; NaN only when all are. -0.0 is below 0.0.
    Min,
    /// The largest; NaN only when all are.
    Max,
    /// The value of the earliest.
    First,
    /// The value of the latest.
    Last,
    /// Standard deviation of the population.
    Stddev,
    /// The quantile at this rank from 0 to 1, linear between neighbours; NaN samples are left out.
    Quantile(f64),
    /// Increase by seconds of the window, not extrapolated.
    Rate,
    /// How much a counter rose, resets corrected; needs two samples.
    Increase,
    /// Last less first; needs two samples.
    Delta,
}

impl Aggregate {
    /// The name that tools and results show.
    pub fn name(self) -> &'static str {
        match self {
            Aggregate::Count => "count",
            Aggregate::Sum => "sum",
            Aggregate::Avg => "avg",
            Aggregate::Min => "min",
            Aggregate::Max => "max",
            Aggregate::First => "first",
            Aggregate::Last => "last",
            Aggregate::Stddev => "stddev",
            Aggregate::Quantile(_) => "quantile",
            Aggregate::Rate => "rate",
            Aggregate::Increase => "increase",
            Aggregate::Delta => "delta",
        }
    }

    /// Refuses a rank that is not one.
    pub(crate) fn check(self) -> Result<()> {
        match self {
            Aggregate::Quantile(rank) if !(0.0..=1.0).contains(&rank) => {
                Err(Error::invalid_input(format!("quantile rank {rank} is not between 0 and 1")))
            }
            _ => Ok(()),
        }
    }
}

impl std::str::FromStr for Aggregate {
    type Err = Error;

    /// A name as [`Aggregate::name`] gives it, `mean` for `avg`, or `quantile(0.9)`.
    ///
    /// # Errors
    /// `InvalidInput` for anything else.
    fn from_str(text: &str) -> Result<Self> {
        Ok(match text {
            "count" => Aggregate::Count,
            "sum" => Aggregate::Sum,
            "avg" | "mean" => Aggregate::Avg,
            "min" => Aggregate::Min,
            "max" => Aggregate::Max,
            "first" => Aggregate::First,
            "last" => Aggregate::Last,
            "stddev" => Aggregate::Stddev,
            "rate" => Aggregate::Rate,
            "increase" => Aggregate::Increase,
            "delta" => Aggregate::Delta,
            other => return quantile(other),
        })
    }
}

fn quantile(text: &str) -> Result<Aggregate> {
    let rank = text.strip_prefix("quantile(").and_then(|rest| rest.strip_suffix(')'));
    let Some(rank) = rank.and_then(|rank| rank.trim().parse().ok()) else {
        return Err(Error::invalid_input(format!(
            "there is no aggregate {text:?}; there are count, sum, avg, min, max, first, last, stddev, \
             quantile(rank), rate, increase, delta"
        )));
    };
    let aggregate = Aggregate::Quantile(rank);
    aggregate.check()?;
    Ok(aggregate)
}

impl fmt::Display for Aggregate {
    /// What [`Aggregate::from_str`](std::str::FromStr::from_str) reads.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Aggregate::Quantile(rank) => write!(f, "quantile({rank})"),
            other => f.write_str(other.name()),
        }
    }
}

/// How a sample's value is compared with a constant, as IEEE 754 does: NaN is unequal to everything
/// and neither below nor above it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compare {
    /// Equal.
    Equal,
    /// Not equal.
    NotEqual,
    /// Below.
    Less,
    /// Below or equal.
    LessOrEqual,
    /// Above.
    Greater,
    /// Above or equal.
    GreaterOrEqual,
}

impl Compare {
    /// Reads a condition such as `>90`, `<= 0`, `==1` or `!=0`: how to compare, and with what.
    ///
    /// # Errors
    /// `InvalidInput` for anything else.
    pub fn parse_condition(text: &str) -> Result<(Compare, f64)> {
        let forms = [
            (">=", Compare::GreaterOrEqual),
            ("<=", Compare::LessOrEqual),
            ("==", Compare::Equal),
            ("!=", Compare::NotEqual),
            (">", Compare::Greater),
            ("<", Compare::Less),
            ("=", Compare::Equal),
        ];
        let read = |(sign, compare): &(&str, Compare)| {
            text.trim().strip_prefix(sign).and_then(|rest| Some((*compare, rest.trim().parse().ok()?)))
        };
        let wrong = || Error::invalid_input(format!("{text:?} is no condition; give one such as >90"));
        forms.iter().find_map(read).ok_or_else(wrong)
    }
}

/// What a filter makes of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Every sample stays.
    All,
    /// No sample stays.
    Nothing,
    /// One has to look.
    Unknown,
}

/// Keeps samples whose value compares so with the constant.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Filter {
    pub compare: Compare,
    pub constant: f64,
}

impl Filter {
    /// Whether a double stays.
    pub(crate) fn keeps_f64(self, value: f64) -> bool {
        self.keeps(value.partial_cmp(&self.constant))
    }

    /// Whether an integer stays; compared exactly, also beyond 2^53.
    pub(crate) fn keeps_i64(self, value: i64) -> bool {
        self.keeps(compare_exactly(value, self.constant))
    }

    /// What it makes of a page, as far as the page's extremes tell.
    pub(crate) fn verdict(self, page: &PageAggregate) -> Verdict {
        let (low, high) = match &page.ends {
            Ends::F64(Summary { detail: Some(detail), .. }) => {
                (detail.min.partial_cmp(&self.constant), detail.max.partial_cmp(&self.constant))
            }
            Ends::I64(Summary { detail: Some(detail), .. }) => {
                (compare_exactly(detail.min, self.constant), compare_exactly(detail.max, self.constant))
            }
            _ => return Verdict::Unknown,
        };
        // All values lie between the extremes. An order holds between them when it holds at both ends;
        // equality only when both ends lie on the same side.
        match (self.keeps(low), self.keeps(high)) {
            _ if low != high && matches!(self.compare, Compare::Equal | Compare::NotEqual) => {
                Verdict::Unknown
            }
            (true, true) => Verdict::All,
            (false, false) => Verdict::Nothing,
            _ => Verdict::Unknown,
        }
    }

    fn keeps(self, ordering: Option<Ordering>) -> bool {
        match self.compare {
            Compare::Equal => ordering == Some(Ordering::Equal),
            Compare::NotEqual => ordering != Some(Ordering::Equal),
            Compare::Less => ordering == Some(Ordering::Less),
            Compare::LessOrEqual => matches!(ordering, Some(Ordering::Less | Ordering::Equal)),
            Compare::Greater => ordering == Some(Ordering::Greater),
            Compare::GreaterOrEqual => matches!(ordering, Some(Ordering::Greater | Ordering::Equal)),
        }
    }
}

fn compare_exactly(value: i64, constant: f64) -> Option<Ordering> {
    const TWO_63: f64 = 9_223_372_036_854_775_808.0;
    if constant.is_nan() {
        None
    } else if constant >= TWO_63 {
        Some(Ordering::Less)
    } else if constant < -TWO_63 {
        Some(Ordering::Greater)
    } else {
        // The whole part fits an i64 here; among equals the fraction decides.
        let whole = constant.trunc();
        let fraction = constant - whole;
        Some(
            value
                .cmp(&(whole as i64))
                .then_with(|| 0.0_f64.partial_cmp(&fraction).unwrap_or(Ordering::Equal)),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_parse_back() {
        for name in
            ["count", "sum", "avg", "min", "max", "first", "last", "stddev", "rate", "increase", "delta"]
        {
            assert_eq!(name.parse::<Aggregate>().unwrap().to_string(), name);
        }
        assert_eq!("mean".parse::<Aggregate>().unwrap(), Aggregate::Avg);
        assert_eq!("quantile(0.25)".parse::<Aggregate>().unwrap(), Aggregate::Quantile(0.25));
        for wrong in ["median", "quantile", "quantile(2)", "quantile(x)", ""] {
            assert!(wrong.parse::<Aggregate>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn conditions_are_read() {
        assert_eq!(Compare::parse_condition(">= 90").unwrap(), (Compare::GreaterOrEqual, 90.0));
        assert_eq!(Compare::parse_condition("<-1.5").unwrap(), (Compare::Less, -1.5));
        for wrong in ["90", ">x", ">", "", "=>1"] {
            assert!(Compare::parse_condition(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn integers_compare_exactly_with_doubles() {
        let order = compare_exactly;
        assert_eq!(order(i64::MAX, 9_223_372_036_854_775_807.0), Some(Ordering::Less), "the double is 2^63");
        assert_eq!(order((1 << 53) + 1, 9_007_199_254_740_992.0), Some(Ordering::Greater));
        assert_eq!(order(i64::MIN, -9_223_372_036_854_775_808.0), Some(Ordering::Equal));
        assert_eq!(order(0, -0.0), Some(Ordering::Equal));
        assert_eq!(order(0, 0.5), Some(Ordering::Less));
        assert_eq!(order(0, -0.5), Some(Ordering::Greater));
        assert_eq!(order(-1, -0.5), Some(Ordering::Less));
        assert_eq!(order(3, f64::INFINITY), Some(Ordering::Less));
        assert_eq!(order(3, f64::NAN), None);
    }
}
