//! Parts of dates in UTC, from seconds since the Unix epoch.
//!
//! Civil dates from day numbers after Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms".

/// A date and time of day.
struct Civil {
    year: i64,
    month: i64,
    day: i64,
    /// Days since the epoch.
    days: i64,
    /// Second of the day.
    second: i64,
}

fn civil(seconds: f64) -> Civil {
    let whole = seconds as i64;
    let days = whole.div_euclid(86_400);
    let second = whole.rem_euclid(86_400);
    // Eras of 400 years that begin on March 1, so that the leap day is the last of its year.
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    Civil { year, month, day, days, second }
}

fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

fn month_size(year: i64, month: i64) -> i64 {
    match month {
        2 => 28 + i64::from(is_leap(year)),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// The function of this name, applied to seconds since the epoch.
pub(super) fn find(name: &str) -> Option<fn(f64) -> f64> {
    Some(match name {
        "minute" => |s| (civil(s).second / 60 % 60) as f64,
        "hour" => |s| (civil(s).second / 3_600) as f64,
        "day_of_week" => |s| (civil(s).days + 4).rem_euclid(7) as f64,
        "day_of_month" => |s| civil(s).day as f64,
        "day_of_year" => |s| {
            let date = civil(s);
            ((1..date.month).map(|month| month_size(date.year, month)).sum::<i64>() + date.day) as f64
        },
        "days_in_month" => |s| {
            let date = civil(s);
            month_size(date.year, date.month) as f64
        },
        "month" => |s| civil(s).month as f64,
        "year" => |s| civil(s).year as f64,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(seconds: f64, name: &str, expected: f64) {
        assert_eq!(find(name).unwrap()(seconds), expected);
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (name, expected) in [("year", 1970.0), ("month", 1.0), ("day_of_week", 4.0), ("day_of_year", 1.0)]
        {
            check(0.0, name, expected);
        }
        // 2024-02-29T23:59:59Z.
        for (name, expected) in [
            ("day_of_month", 29.0),
            ("days_in_month", 29.0),
            ("hour", 23.0),
            ("minute", 59.0),
            ("day_of_year", 60.0),
        ] {
            check(1_709_251_199.0, name, expected);
        }
        check(-1.0, "year", 1969.0);
        assert!(find("year").unwrap()(f64::NAN).is_finite());
        assert!(find("year").unwrap()(f64::INFINITY).is_finite());
        assert!(find("day_of_year").unwrap()(f64::NEG_INFINITY).is_finite());
    }
}
