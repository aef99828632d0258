//! Identifiers of sessions: UUIDs of version 7 (RFC 9562) that hold the time of creation to the nanosecond.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Result};
use crate::model::Timestamp;

const NANOS_PER_MILLI: u64 = 1_000_000;
/// Bits of a UUID of version 7 that remain when the nanoseconds are in it.
const RANDOM_BITS: u32 = 54;

/// The identifier of a session.
///
/// Ids of one database rise with the time of creation, so that an index holds them almost for free.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId([u8; 16]);

impl SessionId {
    /// The id of a session created at `time`; `random` keeps those of two databases apart.
    ///
    /// RFC 9562, section 6.2, method 3: the milliseconds are followed by the fraction of the millisecond, here with all
    /// 20 bits that nanoseconds have.
    pub(super) fn new(time: Timestamp, random: u64) -> Self {
        let nanos = u64::try_from(time.nanos()).unwrap_or(0);
        let (millis, fraction) = (nanos / NANOS_PER_MILLI, nanos % NANOS_PER_MILLI);
        let version = 7;
        let high = millis << 16 | version << 12 | fraction >> 8;
        let variant = 0b10;
        let low = variant << 62 | (fraction & 0xff) << RANDOM_BITS | random & ((1 << RANDOM_BITS) - 1);
        SessionId((u128::from(high) << 64 | u128::from(low)).to_be_bytes())
    }

    /// When the session was created, if the id is one of ours.
    pub fn created_at(self) -> Timestamp {
        let bits = u128::from_be_bytes(self.0);
        let (high, low) = ((bits >> 64) as u64, bits as u64);
        let millis = high >> 16;
        let fraction = (high & 0xfff) << 8 | (low >> RANDOM_BITS & 0xff);
        let nanos = millis.saturating_mul(NANOS_PER_MILLI).saturating_add(fraction);
        Timestamp::from_nanos(i64::try_from(nanos).unwrap_or(i64::MAX))
    }
}

impl fmt::Display for SessionId {
    /// As UUIDs are written: 8, 4, 4, 4 and 12 hexadecimal digits.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = [b'-'; 36];
        // The places of the first digit of each byte.
        let places = [0, 2, 4, 6, 9, 11, 14, 16, 19, 21, 24, 26, 28, 30, 32, 34];
        for (byte, place) in self.0.iter().zip(places) {
            text[place] = digit(byte >> 4);
            text[place + 1] = digit(byte & 15);
        }
        f.write_str(std::str::from_utf8(&text).unwrap_or_default())
    }
}

fn digit(nibble: u8) -> u8 {
    if nibble < 10 { b'0' + nibble } else { b'a' + nibble - 10 }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for SessionId {
    type Err = Error;

    /// Reads a UUID of any version, in either case.
    fn from_str(text: &str) -> Result<Self> {
        let refused = || Error::invalid_input(format!("{:?} is not the id of a session", shortened(text)));
        let dashes = text.len() == 36 && [8, 13, 18, 23].iter().all(|place| text.as_bytes()[*place] == b'-');
        let digits: String = text.chars().filter(|c| *c != '-').collect();
        if !dashes || digits.len() != 32 || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(refused());
        }
        let bits = u128::from_str_radix(&digits, 16).map_err(|_| refused())?;
        Ok(SessionId(bits.to_be_bytes()))
    }
}

fn shortened(text: &str) -> String {
    text.chars().take(40).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_a_uuid_that_holds_its_time() {
        let time = Timestamp::from_nanos(1_795_218_736_476_709_123);
        let id = SessionId::new(time, u64::MAX);
        assert_eq!(id.created_at(), time);
        let text = id.to_string();
        assert_eq!(text.parse::<SessionId>().unwrap(), id);
        assert_eq!(text.to_uppercase().parse::<SessionId>().unwrap(), id);
        assert_eq!((&text[14..15], text.len()), ("7", 36));
        assert!("89ab".contains(&text[19..20]), "{text}");
    }

    #[test]
    fn ids_and_their_texts_are_in_order_of_time() {
        let times = [0, 1, 255, 256, 999_999, 1_000_000, 1_700_000_000_000_000_000, i64::MAX];
        let ids: Vec<SessionId> =
            times.iter().map(|nanos| SessionId::new(Timestamp::from_nanos(*nanos), 7)).collect();
        assert!(ids.is_sorted());
        assert!(ids.iter().map(ToString::to_string).is_sorted());
        let back: Vec<i64> = ids.iter().map(|id| id.created_at().nanos()).collect();
        assert_eq!(back, times);
        assert_ne!(SessionId::new(Timestamp::from_nanos(5), 1), SessionId::new(Timestamp::from_nanos(5), 2));
    }

    #[test]
    fn other_texts_are_no_ids() {
        for text in [
            "",
            "550e8400",
            "550e8400-e29b-41d4-a716-44665544000",
            "550e8400-e29b-41d4-a716-4466554400000",
            "550e8400e29b-41d4-a716-446655440000--",
            "550e8400-e29b-41d4-a716-44665544000g",
            "+50e8400-e29b-41d4-a716-446655440000",
            "../../../../../../../../etc/passwd..",
            "ééééééééé-éé-éééé-ééé",
        ] {
            assert!(text.parse::<SessionId>().is_err(), "{text}");
        }
        assert!("550e8400-e29b-41d4-a716-446655440000".parse::<SessionId>().is_ok());
    }
}
