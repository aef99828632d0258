//! The protobuf wire format, read without copying: fields of a message as numbers and borrowed slices.
//!
//! Encoding as in the Protocol Buffers documentation, "Encoding". Called by the decoders of remote write, remote
//! read, OTLP and metric families; knows no message. A message is walked field by field and nothing is collected, so
//! that no input allocates here; see `docs/decisions/0035-protobuf-reader.md` for why prost does not decode.

use crate::error::{Error, Result};

/// The fields of one message that are not read yet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fields<'a> {
    rest: &'a [u8],
}

/// One field's value, as its wire type has it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Wire<'a> {
    /// Type 0: integers, enums, booleans.
    Varint(u64),
    /// Type 1: doubles, fixed 64-bit integers.
    Fixed64(u64),
    /// Type 2: strings, bytes, messages, packed lists.
    Bytes(&'a [u8]),
    /// Type 5: floats, fixed 32-bit integers.
    Fixed32(u32),
}

impl<'a> Fields<'a> {
    /// The fields of `message`.
    pub(crate) fn new(message: &'a [u8]) -> Self {
        Fields { rest: message }
    }

    /// The next field's number and value; `None` after the last.
    ///
    /// # Errors
    /// `InvalidInput` when the bytes end inside a field, or for groups and unknown wire types.
    #[inline]
    pub(crate) fn next(&mut self) -> Result<Option<(u64, Wire<'a>)>> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let key = take_varint(&mut self.rest)?;
        let value = match key & 7 {
            0 => Wire::Varint(take_varint(&mut self.rest)?),
            1 => Wire::Fixed64(u64::from_le_bytes(take_array(&mut self.rest)?)),
            2 => Wire::Bytes(take_bytes(&mut self.rest)?),
            5 => Wire::Fixed32(u32::from_le_bytes(take_array(&mut self.rest)?)),
            other => return Err(malformed(&format!("field {} has wire type {other}", key >> 3))),
        };
        Ok(Some((key >> 3, value)))
    }

    /// Skips the fields in front that are length-delimited, have the number `number` (below 16) and are shorter than
    /// 128 bytes. Only a short cut: what it leaves is for [`Fields::next`].
    #[inline]
    pub(crate) fn skip_short(&mut self, number: u8) {
        let key = number << 3 | 2;
        while let [first, size, after @ ..] = self.rest
            && *first == key
            && *size < 0x80
            && let Some(after) = after.get(usize::from(*size)..)
        {
            self.rest = after;
        }
    }

    /// The bytes that are not read yet: a suffix of the message.
    pub(crate) fn rest(&self) -> &'a [u8] {
        self.rest
    }
}

impl<'a> Wire<'a> {
    /// As bytes, or a message; `field` names it in the error.
    #[inline]
    pub(crate) fn bytes(self, field: &str) -> Result<&'a [u8]> {
        match self {
            Wire::Bytes(bytes) => Ok(bytes),
            _ => Err(wrong_type(field)),
        }
    }

    /// As a string.
    #[inline]
    pub(crate) fn string(self, field: &str) -> Result<&'a str> {
        std::str::from_utf8(self.bytes(field)?).map_err(|_| malformed(&format!("{field} is not UTF-8")))
    }

    /// As a double.
    #[inline]
    pub(crate) fn double(self, field: &str) -> Result<f64> {
        self.fixed64(field).map(f64::from_bits)
    }

    /// As a fixed 64-bit integer.
    #[inline]
    pub(crate) fn fixed64(self, field: &str) -> Result<u64> {
        match self {
            Wire::Fixed64(bits) => Ok(bits),
            _ => Err(wrong_type(field)),
        }
    }

    /// As an unsigned integer.
    #[inline]
    pub(crate) fn uint(self, field: &str) -> Result<u64> {
        match self {
            Wire::Varint(value) => Ok(value),
            _ => Err(wrong_type(field)),
        }
    }

    /// As a signed integer in two's complement (`int32`, `int64`, enums).
    #[inline]
    pub(crate) fn int(self, field: &str) -> Result<i64> {
        self.uint(field).map(u64::cast_signed)
    }
}

/// Takes a varint off the front of `rest`: at most ten bytes, bits beyond the 64th must be zero.
#[inline]
pub(crate) fn take_varint(rest: &mut &[u8]) -> Result<u64> {
    if let [first, after @ ..] = *rest
        && *first < 0x80
    {
        *rest = after;
        return Ok(u64::from(*first));
    }
    take_long_varint(rest)
}

fn take_long_varint(rest: &mut &[u8]) -> Result<u64> {
    let mut value = 0u64;
    for (index, byte) in rest.iter().take(10).enumerate() {
        let bits = u64::from(byte & 0x7f);
        if index == 9 && bits > 1 {
            break;
        }
        value |= bits << (7 * index);
        if *byte < 0x80 {
            *rest = &rest[index + 1..];
            return Ok(value);
        }
    }
    Err(malformed("a varint does not end"))
}

#[inline]
fn take_array<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N]> {
    let Some((array, after)) = rest.split_first_chunk::<N>() else {
        return Err(malformed("the bytes end inside a number"));
    };
    *rest = after;
    Ok(*array)
}

/// Takes a length and as many bytes off the front of `rest`.
#[inline]
pub(crate) fn take_bytes<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8]> {
    let size = take_varint(rest)?;
    let bytes: &'a [u8] = rest;
    let Some((bytes, after)) = usize::try_from(size).ok().and_then(|size| bytes.split_at_checked(size))
    else {
        return Err(malformed(&format!("a length of {size} bytes, {} are left", rest.len())));
    };
    *rest = after;
    Ok(bytes)
}

/// Takes a length-delimited field off the front of `rest` if it has the number `number` (below 16) and is shorter than
/// 128 bytes: the short cut for fields that nearly always come in this order. A stretch of short fields with strings
/// in them is UTF-8 as a whole, so that one check serves for all.
#[inline]
pub(crate) fn take_short<'a>(rest: &mut &'a str, number: u8) -> Option<&'a str> {
    let text: &'a str = rest;
    let [first, size, ..] = text.as_bytes() else { return None };
    if *first != (number << 3 | 2) || *size >= 0x80 {
        return None;
    }
    let (field, after) = text.get(2..)?.split_at_checked(usize::from(*size))?;
    *rest = after;
    Some(field)
}

/// Appends a varint.
pub(crate) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    out.push(value.to_le_bytes()[0]);
}

/// Appends a field with bytes, a string or a message.
pub(crate) fn put_bytes(out: &mut Vec<u8>, number: u32, bytes: &[u8]) {
    put_varint(out, u64::from(number << 3 | 2));
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Appends a double, zeros of either sign included.
pub(crate) fn put_double(out: &mut Vec<u8>, number: u32, value: f64) {
    put_varint(out, u64::from(number << 3 | 1));
    out.extend_from_slice(&value.to_le_bytes());
}

/// Appends an integer or enum in two's complement, zero included.
pub(crate) fn put_int(out: &mut Vec<u8>, number: u32, value: i64) {
    put_varint(out, u64::from(number << 3));
    put_varint(out, value.cast_unsigned());
}

#[cold]
pub(crate) fn malformed(reason: &str) -> Error {
    Error::invalid_input(format!("malformed protobuf: {reason}"))
}

#[cold]
fn wrong_type(field: &str) -> Error {
    malformed(&format!("{field} has the wrong wire type"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(bytes: &[u8]) -> Result<Vec<(u64, Wire<'_>)>> {
        let mut fields = Fields::new(bytes);
        let mut found = Vec::new();
        while let Some(field) = fields.next()? {
            found.push(field);
        }
        Ok(found)
    }

    #[test]
    fn each_wire_type_is_read() {
        let bytes = [
            0x08, 0x96, 0x01, // 1: 150, the example of the documentation
            0x12, 0x02, b'h', b'i', // 2: "hi"
            0x19, 0, 0, 0, 0, 0, 0, 0xf0, 0x3f, // 3: 1.0
            0x25, 1, 0, 0, 0, // 4: 1
        ];
        let fields = all(&bytes).unwrap();
        assert_eq!(fields[0], (1, Wire::Varint(150)));
        assert_eq!(fields[1].1.string("b").unwrap(), "hi");
        assert_eq!(fields[2].1.double("c").unwrap(), 1.0);
        assert_eq!(fields[3], (4, Wire::Fixed32(1)));
        assert!(fields[0].1.bytes("a").unwrap_err().to_string().contains("a has the wrong wire type"));
    }

    #[test]
    fn varints_reach_both_ends() {
        #[track_caller]
        fn check(bytes: &[u8], expected: Option<u64>) {
            let mut rest = bytes;
            assert_eq!(take_varint(&mut rest).ok(), expected);
            assert!(expected.is_none() || rest.is_empty());
        }
        check(&[0], Some(0));
        check(&[0x7f], Some(127));
        check(&[0xff, 0x01], Some(255));
        check(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01], Some(u64::MAX));
        check(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02], None);
        check(&[0x80; 11], None);
        check(&[0x80], None);
        check(&[], None);
    }

    #[test]
    fn lengths_beyond_the_end_are_refused() {
        for bytes in
            [&[0x12, 0x05, b'h'][..], &[0x12, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01]]
        {
            assert!(all(bytes).unwrap_err().to_string().contains("a length of"));
        }
        assert!(all(&[0x0b]).is_err(), "groups are refused");
        assert!(all(&[0x19, 0, 0]).is_err());
    }
}
