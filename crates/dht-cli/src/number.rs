//! Whole numbers as arguments of commands.

use std::{fmt::Display, ops::RangeInclusive, str::FromStr};

/// Parses a number of this range, which the error names.
pub(crate) fn number<T>(range: RangeInclusive<T>) -> impl Fn(&str) -> Result<T, String> + Clone
where
    T: Clone + Display + FromStr + PartialOrd,
{
    move |text| {
        let number = text.trim().parse().ok();
        number
            .filter(|number| range.contains(number))
            .ok_or_else(|| {
                let (min, max) = (range.start(), range.end());
                format!("it is not a whole number in the range {min} to {max}")
            })
    }
}

#[cfg(test)]
mod tests {
    use super::number;

    #[test]
    fn mistyped_numbers_name_the_range() {
        for text in ["", "0", "-1", "4", "1.5", "many", "99999999999999999999"] {
            let error = number(1..=3_u64)(text).unwrap_err();
            assert!(error.ends_with("range 1 to 3"), "{text}: {error}");
        }
        assert_eq!(number(1..=3_u64)(" 3 "), Ok(3));
        assert_eq!(number(i32::MIN..=i32::MAX)("-1"), Ok(-1));
    }
}
