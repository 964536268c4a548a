//! Values of keys: one small parser per kind. Must not know any key.

use super::Bad;

/// A whole number.
pub(super) fn number(text: &str) -> Result<u64, Bad> {
    text.replace('_', "").parse().map_err(|_| Bad::Value("a whole number"))
}

/// A whole number between `least` and `most`, or the word `auto`.
pub(super) fn optional_number(
    text: &str,
    least: u64,
    most: u64,
    expected: &'static str,
) -> Result<Option<u64>, Bad> {
    if text == "auto" {
        return Ok(None);
    }
    let value = number(text).map_err(|_| Bad::Value(expected))?;
    within(value, least, most, expected).map(Some)
}

/// `true` or `false`.
pub(super) fn flag(text: &str) -> Result<bool, Bad> {
    text.parse().map_err(|_| Bad::Value("true or false"))
}

/// A size: a whole number with an optional binary unit.
pub(super) fn bytes(text: &str) -> Result<u64, Bad> {
    const EXPECTED: Bad = Bad::Value("bytes, such as 65536, 64 KiB, 1 GiB");
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '_').unwrap_or(text.len());
    let (digits, unit) = text.split_at(split);
    let shift = match unit.trim() {
        "" | "B" => 0,
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => 30,
        "TiB" => 40,
        _ => return Err(EXPECTED),
    };
    let count = number(digits).map_err(|_| EXPECTED)?;
    count.checked_mul(1 << shift).ok_or(EXPECTED)
}

/// One of a few words.
pub(super) fn word<T: Copy>(text: &str, words: &[(&str, T)], expected: &'static str) -> Result<T, Bad> {
    words.iter().find(|(word, _)| *word == text).map(|(_, value)| *value).ok_or(Bad::Value(expected))
}

/// `value`, if it is `least` or more.
pub(super) fn at_least(value: u64, least: u64, expected: &'static str) -> Result<u64, Bad> {
    within(value, least, u64::MAX, expected)
}

/// `value`, if it is between `least` and `most`.
pub(super) fn within(value: u64, least: u64, most: u64, expected: &'static str) -> Result<u64, Bad> {
    if (least..=most).contains(&value) { Ok(value) } else { Err(Bad::Value(expected)) }
}
