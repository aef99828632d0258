//! Charts of text: one series as columns of eighths of a character, many as a line each.

use icecore::{SeriesColumns, Timestamp};

use crate::output::number;
use crate::time::format_time;

const EIGHTHS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
const WIDTH: usize = 72;
const HEIGHT: usize = 10;
/// More series than these are drawn as a line each.
const CHART_COUNT_MAX: usize = 4;

/// Draws an answer.
pub(crate) fn draw(series: &[SeriesColumns]) -> String {
    let drawn: Vec<Line<'_>> = series.iter().filter_map(Line::of).collect();
    let (Some(start), Some(end)) =
        (drawn.iter().map(|line| line.start).min(), drawn.iter().map(|line| line.end).max())
    else {
        return "nothing to draw\n".to_owned();
    };
    let mut text = String::new();
    for line in &drawn {
        let columns = line.columns(start, end);
        if drawn.len() <= CHART_COUNT_MAX {
            text += &format!("{}\n{}", line.series.key, large(&columns));
        } else {
            text += &format!("{}  {}  {}\n", small(&columns), bounds(&columns), line.series.key);
        }
    }
    text + &format!("{} .. {}\n", format_time(start), format_time(end))
}

/// One series that can be drawn.
struct Line<'a> {
    series: &'a SeriesColumns,
    values: Vec<f64>,
    start: Timestamp,
    end: Timestamp,
}

impl<'a> Line<'a> {
    fn of(series: &'a SeriesColumns) -> Option<Self> {
        let values = match &series.values {
            icecore::Column::F64(values) => values.clone(),
            icecore::Column::I64(values) => values.iter().map(|value| *value as f64).collect(),
            icecore::Column::Bytes(_) => return None,
        };
        let (start, end) = (*series.times.first()?, *series.times.last()?);
        Some(Line { series, values, start, end })
    }

    /// The greatest finite value in each column of the chart. A value holds until the next one, so that few values make
    /// a closed picture, but not across a hole.
    fn columns(&self, start: Timestamp, end: Timestamp) -> Vec<Option<f64>> {
        let span = distance(start, end) + 1;
        let column = |time| (distance(start, time) * WIDTH as i128 / span) as usize;
        let hole = 2 * self.usual_step();
        let mut columns = vec![None; WIDTH];
        let times = &self.series.times;
        for (index, (time, value)) in times.iter().zip(&self.values).enumerate() {
            if !value.is_finite() {
                continue;
            }
            let next = times.get(index + 1).filter(|next| distance(*time, **next) <= hole);
            let first = column(*time);
            let last = next.map_or(first, |next| column(*next).saturating_sub(1).max(first));
            for cell in columns.iter_mut().take(last + 1).skip(first) {
                *cell = Some(cell.map_or(*value, |other: f64| other.max(*value)));
            }
        }
        columns
    }

    /// The median distance of two times.
    fn usual_step(&self) -> i128 {
        let pairs = self.series.times.iter().zip(self.series.times.iter().skip(1));
        let mut steps: Vec<i128> = pairs.map(|(a, b)| distance(*a, *b)).collect();
        steps.sort_unstable();
        steps.get(steps.len() / 2).copied().unwrap_or(0)
    }
}

fn distance(start: Timestamp, end: Timestamp) -> i128 {
    i128::from(end.nanos()) - i128::from(start.nanos())
}

fn range_of(columns: &[Option<f64>]) -> (f64, f64) {
    columns
        .iter()
        .flatten()
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(*value), high.max(*value)))
}

fn bounds(columns: &[Option<f64>]) -> String {
    let (low, high) = range_of(columns);
    if low > high { "no number".to_owned() } else { format!("{} .. {}", short(low), short(high)) }
}

/// Where a value lies between the bounds, in `steps`; a value at the lower bound still shows.
fn level(value: f64, low: f64, high: f64, steps: usize) -> usize {
    let share = if high > low { (value - low) / (high - low) } else { 0.5 };
    1 + (share * (steps - 1) as f64).round() as usize
}

fn small(columns: &[Option<f64>]) -> String {
    let (low, high) = range_of(columns);
    let cell = |value: &Option<f64>| value.map_or(0, |value| level(value, low, high, EIGHTHS.len() - 1));
    columns.iter().map(|value| EIGHTHS.get(cell(value)).copied().unwrap_or(' ')).collect()
}

fn large(columns: &[Option<f64>]) -> String {
    let (low, high) = range_of(columns);
    if low > high {
        return "no number to draw\n".to_owned();
    }
    let levels: Vec<usize> =
        columns.iter().map(|value| value.map_or(0, |value| level(value, low, high, HEIGHT * 8))).collect();
    let mut text = String::new();
    for row in (0..HEIGHT).rev() {
        let label = match row {
            _ if row == HEIGHT - 1 => short(high),
            0 => short(low),
            _ => String::new(),
        };
        let cells: String = levels
            .iter()
            .map(|level| EIGHTHS.get(level.saturating_sub(row * 8).min(8)).copied().unwrap_or(' '))
            .collect();
        text += &format!("{label:>10} |{}\n", cells.trim_end());
    }
    text
}

/// Four digits are enough beside a picture.
fn short(value: f64) -> String {
    let digits = format!("{value:.3e}").parse().unwrap_or(value);
    number(digits)
}

#[cfg(test)]
mod tests {
    use super::*;
    use icecore::{Column, SeriesKey};

    fn series(name: &str, values: Vec<f64>) -> SeriesColumns {
        let times = (0..values.len()).map(|n| Timestamp::from_secs(n as i64)).collect();
        SeriesColumns {
            key: SeriesKey::new::<&str, &str>(name, []).unwrap(),
            times,
            values: Column::F64(values),
        }
    }

    #[test]
    fn a_ramp_rises_from_its_least_to_its_greatest() {
        let text = draw(&[series("ramp", (0..72).map(f64::from).collect())]);
        let rows: Vec<&str> = text.lines().collect();
        assert_eq!(rows[0], "ramp");
        assert!(rows[1].starts_with("        71 |") && rows[1].ends_with('█'), "{text}");
        assert!(rows[10].starts_with("         0 |▁"), "{text}");
        assert_eq!(rows[11], "1970-01-01T00:00:00Z .. 1970-01-01T00:01:11Z");
    }

    #[test]
    fn many_series_take_a_line_each_and_odd_values_no_panic() {
        let odd = vec![f64::NAN, f64::INFINITY, 1.0, -1e308, 1e308];
        let all: Vec<SeriesColumns> = (0..6).map(|n| series(&format!("s{n}"), odd.clone())).collect();
        assert_eq!(draw(&all).lines().count(), 7);
        draw(&[series("nan", vec![f64::NAN])]);
        assert_eq!(draw(&[]), "nothing to draw\n");
    }
}
