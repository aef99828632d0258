//! The table of functions: names, arguments, results.

use super::ast::ValueType;
use ValueType::{Matrix, Scalar, String, Vector};

/// A function of the language.
#[derive(Debug)]
pub struct Function {
    /// Its name.
    pub name: &'static str,
    /// The types of its arguments.
    pub args: &'static [ValueType],
    /// How many of the arguments may be left out or, when the last one repeats, added.
    pub variadic: Variadic,
    /// What it returns.
    pub returns: ValueType,
    /// Whether Prometheus calls it experimental.
    pub experimental: bool,
}

/// How the number of arguments may vary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variadic {
    /// It may not.
    Fixed,
    /// The last one is optional, and there may be this many of it.
    UpTo(usize),
    /// The last one may be absent or repeat without limit.
    Any,
}

impl Function {
    /// The function of this name.
    pub fn find(name: &str) -> Option<&'static Function> {
        FUNCTIONS.binary_search_by(|f| f.name.cmp(name)).ok().map(|index| &FUNCTIONS[index])
    }

    /// Whether its result at one time depends on the time of evaluation even when its arguments do not.
    pub fn depends_on_time(&self) -> bool {
        matches!(
            self.name,
            "days_in_month"
                | "day_of_month"
                | "day_of_week"
                | "day_of_year"
                | "hour"
                | "minute"
                | "month"
                | "predict_linear"
                | "time"
                | "timestamp"
                | "year"
        )
    }
}

const fn f(name: &'static str, args: &'static [ValueType], returns: ValueType) -> Function {
    Function { name, args, variadic: Variadic::Fixed, returns, experimental: false }
}

const fn varying(
    name: &'static str,
    args: &'static [ValueType],
    returns: ValueType,
    variadic: Variadic,
) -> Function {
    Function { name, args, variadic, returns, experimental: false }
}

const fn experimental(name: &'static str, args: &'static [ValueType], variadic: Variadic) -> Function {
    Function { name, args, variadic, returns: Vector, experimental: true }
}

/// All functions, sorted by name.
#[rustfmt::skip]
pub static FUNCTIONS: &[Function] = &[
    f("abs", &[Vector], Vector),
    f("absent", &[Vector], Vector),
    f("absent_over_time", &[Matrix], Vector),
    f("acos", &[Vector], Vector),
    f("acosh", &[Vector], Vector),
    f("asin", &[Vector], Vector),
    f("asinh", &[Vector], Vector),
    f("atan", &[Vector], Vector),
    f("atanh", &[Vector], Vector),
    f("avg_over_time", &[Matrix], Vector),
    f("ceil", &[Vector], Vector),
    f("changes", &[Matrix], Vector),
    f("clamp", &[Vector, Scalar, Scalar], Vector),
    f("clamp_max", &[Vector, Scalar], Vector),
    f("clamp_min", &[Vector, Scalar], Vector),
    f("cos", &[Vector], Vector),
    f("cosh", &[Vector], Vector),
    f("count_over_time", &[Matrix], Vector),
    varying("day_of_month", &[Vector], Vector, Variadic::UpTo(1)),
    varying("day_of_week", &[Vector], Vector, Variadic::UpTo(1)),
    varying("day_of_year", &[Vector], Vector, Variadic::UpTo(1)),
    varying("days_in_month", &[Vector], Vector, Variadic::UpTo(1)),
    f("deg", &[Vector], Vector),
    f("delta", &[Matrix], Vector),
    f("deriv", &[Matrix], Vector),
    experimental("double_exponential_smoothing", &[Matrix, Scalar, Scalar], Variadic::Fixed),
    f("exp", &[Vector], Vector),
    experimental("first_over_time", &[Matrix], Variadic::Fixed),
    f("floor", &[Vector], Vector),
    f("histogram_avg", &[Vector], Vector),
    f("histogram_count", &[Vector], Vector),
    f("histogram_fraction", &[Scalar, Scalar, Vector], Vector),
    f("histogram_quantile", &[Scalar, Vector], Vector),
    f("histogram_stddev", &[Vector], Vector),
    f("histogram_stdvar", &[Vector], Vector),
    f("histogram_sum", &[Vector], Vector),
    varying("hour", &[Vector], Vector, Variadic::UpTo(1)),
    f("idelta", &[Matrix], Vector),
    f("increase", &[Matrix], Vector),
    experimental("info", &[Vector, Vector], Variadic::UpTo(1)),
    f("irate", &[Matrix], Vector),
    varying("label_join", &[Vector, String, String, String], Vector, Variadic::Any),
    f("label_replace", &[Vector, String, String, String, String], Vector),
    f("last_over_time", &[Matrix], Vector),
    f("ln", &[Vector], Vector),
    f("log10", &[Vector], Vector),
    f("log2", &[Vector], Vector),
    experimental("mad_over_time", &[Matrix], Variadic::Fixed),
    f("max_over_time", &[Matrix], Vector),
    f("min_over_time", &[Matrix], Vector),
    varying("minute", &[Vector], Vector, Variadic::UpTo(1)),
    varying("month", &[Vector], Vector, Variadic::UpTo(1)),
    f("pi", &[], Scalar),
    f("predict_linear", &[Matrix, Scalar], Vector),
    f("present_over_time", &[Matrix], Vector),
    f("quantile_over_time", &[Scalar, Matrix], Vector),
    f("rad", &[Vector], Vector),
    f("rate", &[Matrix], Vector),
    f("resets", &[Matrix], Vector),
    varying("round", &[Vector, Scalar], Vector, Variadic::UpTo(1)),
    f("scalar", &[Vector], Scalar),
    f("sgn", &[Vector], Vector),
    f("sin", &[Vector], Vector),
    f("sinh", &[Vector], Vector),
    f("sort", &[Vector], Vector),
    experimental("sort_by_label", &[Vector, String], Variadic::Any),
    experimental("sort_by_label_desc", &[Vector, String], Variadic::Any),
    f("sort_desc", &[Vector], Vector),
    f("sqrt", &[Vector], Vector),
    f("stddev_over_time", &[Matrix], Vector),
    f("stdvar_over_time", &[Matrix], Vector),
    f("sum_over_time", &[Matrix], Vector),
    f("tan", &[Vector], Vector),
    f("tanh", &[Vector], Vector),
    f("time", &[], Scalar),
    f("timestamp", &[Vector], Vector),
    experimental("ts_of_first_over_time", &[Matrix], Variadic::Fixed),
    experimental("ts_of_last_over_time", &[Matrix], Variadic::Fixed),
    experimental("ts_of_max_over_time", &[Matrix], Variadic::Fixed),
    experimental("ts_of_min_over_time", &[Matrix], Variadic::Fixed),
    f("vector", &[Scalar], Vector),
    varying("year", &[Vector], Vector, Variadic::UpTo(1)),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted() {
        assert!(FUNCTIONS.windows(2).all(|pair| pair[0].name < pair[1].name));
        assert!(FUNCTIONS.iter().all(|f| Function::find(f.name).is_some_and(|found| found.name == f.name)));
        assert!(Function::find("nonsense").is_none());
    }
}
