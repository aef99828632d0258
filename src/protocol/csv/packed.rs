//! All tags of a series in one field: `key=value`, joined by `;`.
//!
//! A backslash before `;`, `=` or a backslash means that character; before any other it means itself. Keys have their
//! `=` that way, values need it only for `;` and for a backslash that stands before one of the three, or at the end.

use std::borrow::Cow;

const ESCAPE: char = '\\';

/// Puts tags into one field, so that it reads as the same tags.
///
/// ```
/// use icecore::protocol::csv::pack_tags;
/// assert_eq!(pack_tags([("path", "/a;b"), ("dir", "C:\\x")]), "path=/a\\;b;dir=C:\\\\x");
/// ```
pub fn pack_tags<'a>(tags: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    let mut packed = String::new();
    for (key, value) in tags {
        if !packed.is_empty() {
            packed.push(';');
        }
        push_escaped(&mut packed, key, &[';', '=', ESCAPE]);
        packed.push('=');
        push_escaped(&mut packed, value, &[';', ESCAPE]);
    }
    packed
}

fn push_escaped(out: &mut String, text: &str, special: &[char]) {
    for c in text.chars() {
        if special.contains(&c) {
            out.push(ESCAPE);
        }
        out.push(c);
    }
}

/// The tags of a field, as they are written.
pub(super) fn split_tags(packed: &str) -> impl Iterator<Item = &str> {
    let mut rest = Some(packed);
    std::iter::from_fn(move || {
        let text = rest?;
        let end = find(text, ';');
        rest = end.and_then(|end| text.get(end + 1..));
        Some(text.get(..end.unwrap_or(text.len())).unwrap_or_default())
    })
}

/// Key and value of a tag; `None` when there is no `=` between them.
pub(super) fn tag_parts(tag: &str) -> Option<(Cow<'_, str>, Cow<'_, str>)> {
    let at = find(tag, '=')?;
    Some((unescaped(tag.get(..at)?), unescaped(tag.get(at + 1..)?)))
}

/// Where the first `wanted` stands that no backslash is before.
fn find(text: &str, wanted: char) -> Option<usize> {
    let mut characters = text.char_indices();
    while let Some((at, c)) = characters.next() {
        if c == ESCAPE {
            let rest = characters.as_str();
            if rest.starts_with(is_special) {
                characters.next();
            }
        } else if c == wanted {
            return Some(at);
        }
    }
    None
}

fn is_special(c: char) -> bool {
    matches!(c, ';' | '=' | ESCAPE)
}

fn unescaped(text: &str) -> Cow<'_, str> {
    if !text.contains(ESCAPE) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    let mut characters = text.chars().peekable();
    while let Some(c) = characters.next() {
        let escaped = characters.next_if(|next| c == ESCAPE && is_special(*next));
        out.push(escaped.unwrap_or(c));
    }
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(packed: &str) -> Vec<(String, String)> {
        let tags = split_tags(packed).filter_map(tag_parts);
        tags.map(|(key, value)| (key.into_owned(), value.into_owned())).collect()
    }

    #[test]
    fn any_tags_come_back() {
        let texts = ["a", "a;b", "a=b", "\\", "\\\\", ";", "=", "C:\\dir\\", "\\;", "ü\\=;", "a\nb"];
        for key in texts {
            for value in texts {
                let packed = pack_tags([(key, value), ("k", "v"), (value, key)]);
                let tag = |k: &str, v: &str| (k.to_owned(), v.to_owned());
                assert_eq!(read(&packed), [tag(key, value), tag("k", "v"), tag(value, key)], "{packed}");
            }
        }
    }

    #[test]
    fn a_backslash_before_anything_else_is_itself() {
        assert_eq!(read("dir=C:\\temp\\x"), [("dir".to_owned(), "C:\\temp\\x".to_owned())]);
        assert_eq!(read("k=a=b\\=c"), [("k".to_owned(), "a=b=c".to_owned())]);
        assert_eq!(read("a=1;;b=2;"), read("a=1;b=2"));
        assert_eq!(read("k=end\\"), [("k".to_owned(), "end\\".to_owned())]);
    }
}
