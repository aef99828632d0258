//! Base64 (RFC 4648) as it comes in headers and paths: either alphabet, padded or not.

/// The bytes of `text`; `None` when it is not base64. Padding may be absent, or be one `=` too many for nothing at all,
/// which is how Pushgateway clients write an empty value.
pub(crate) fn decode(text: &str) -> Option<Vec<u8>> {
    let digits = text.trim_end_matches('=');
    let padding = text.len() - digits.len();
    if padding > 2
        || digits.len() % 4 == 1
        || (padding > 0 && !digits.is_empty() && !text.len().is_multiple_of(4))
    {
        return None;
    }
    let mut bytes = Vec::with_capacity(digits.len() / 4 * 3 + 2);
    for group in digits.as_bytes().chunks(4) {
        let mut bits = 0u32;
        for digit in group {
            bits = bits << 6 | value(*digit)?;
        }
        bits <<= 6 * (4 - group.len());
        let [_, first, second, third] = bits.to_be_bytes();
        bytes.extend_from_slice([first, second, third].get(..group.len() - 1)?);
    }
    Some(bytes)
}

fn value(digit: u8) -> Option<u32> {
    Some(u32::from(match digit {
        b'A'..=b'Z' => digit - b'A',
        b'a'..=b'z' => digit - b'a' + 26,
        b'0'..=b'9' => digit - b'0' + 52,
        b'+' | b'-' => 62,
        b'/' | b'_' => 63,
        _ => return None,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: Option<&str>) {
        assert_eq!(decode(text).as_deref(), expected.map(str::as_bytes));
    }

    #[test]
    fn both_alphabets_with_and_without_padding() {
        // The test vectors of RFC 4648, section 10.
        for (plain, text) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("foobar", "Zm9vYmFy"),
        ] {
            check(text, Some(plain));
            check(text.trim_end_matches('='), Some(plain));
        }
        check("L3Zhci90bXA=", Some("/var/tmp"));
        check("=", Some(""));
        check("8J-Yig", Some("😊"));
        check("8J+Yig", Some("😊"));
    }

    #[test]
    fn what_is_no_base64_is_refused() {
        for text in ["Z", "Zg=", "Z===", "Zm9v=", "Zm 9v", "Zm=9", "é"] {
            check(text, None);
        }
    }
}
