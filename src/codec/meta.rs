//! Small metadata by serde: bincode inside our own frame. The only place that uses bincode.
//!
//! Called for manifest edits and other rare, small records whose shape follows Rust types; never for
//! log, chunk or index bytes. Layout in `docs/format.md`, "Frames".

use bincode::config::{Configuration, Limit, LittleEndian, Varint};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::codec::frame::{put_frame, read_frame};
use crate::codec::varint::Reader;
use crate::error::{Error, Result};

/// Most bytes of one record, and most memory that decoding one may claim.
pub(crate) const META_SIZE_MAX: usize = 16 << 20;

type Config = Configuration<LittleEndian, Varint, Limit<META_SIZE_MAX>>;

fn config() -> Config {
    bincode::config::standard().with_little_endian().with_limit::<META_SIZE_MAX>()
}

/// Appends `value` as one frame.
///
/// # Errors
/// `LimitExceeded` when it takes more than [`META_SIZE_MAX`]; nothing is appended then.
pub(crate) fn put_meta<T: Serialize>(out: &mut Vec<u8>, value: &T) -> Result<()> {
    let bytes = bincode::serde::encode_to_vec(value, config())
        .map_err(|error| Error::invalid_input(format!("metadata cannot be encoded: {error}")))?;
    if bytes.len() > META_SIZE_MAX {
        return Err(Error::limit_exceeded(format!(
            "metadata of {} bytes is over META_SIZE_MAX, {META_SIZE_MAX} bytes",
            bytes.len()
        )));
    }
    put_frame(out, &bytes);
    Ok(())
}

/// The value in the frame at the cursor.
///
/// # Errors
/// `Corruption` when the frame is damaged, or does not hold exactly one `T`.
pub(crate) fn read_meta<T: DeserializeOwned>(reader: &mut Reader<'_>) -> Result<T> {
    let bytes = read_frame(reader)?;
    let (value, size) = bincode::serde::decode_from_slice(bytes, config())
        .map_err(|error| Error::corrupt(format!("metadata cannot be decoded: {error}")))?;
    if size == bytes.len() {
        Ok(value)
    } else {
        Err(Error::corrupt(format!("{} bytes follow the metadata in its frame", bytes.len() - size)))
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;
    use crate::error::ErrorKind;

    #[derive(Serialize, Deserialize, Debug, PartialEq)]
    enum Edit {
        Add { number: u64, name: String },
        Floor(i64),
    }

    #[test]
    fn records_round_trip_in_sequence() {
        let mut out = Vec::new();
        put_meta(&mut out, &Edit::Add { number: 7, name: "a".into() }).unwrap();
        put_meta(&mut out, &Edit::Floor(-1)).unwrap();
        assert_eq!(out[..8], [4, 0, 0, 0, 0, 7, 1, b'a']);
        let mut reader = Reader::new(&out);
        assert_eq!(read_meta::<Edit>(&mut reader).unwrap(), Edit::Add { number: 7, name: "a".into() });
        assert_eq!(read_meta::<Edit>(&mut reader).unwrap(), Edit::Floor(-1));
    }

    #[test]
    fn a_record_of_another_shape_is_corrupt() {
        let mut out = Vec::new();
        put_meta(&mut out, &(9u8, 2u8)).unwrap();
        assert_eq!(read_meta::<u8>(&mut Reader::new(&out)).unwrap_err().kind(), ErrorKind::Corruption);
        assert!(read_meta::<Edit>(&mut Reader::new(&out)).is_err());
    }

    #[test]
    fn a_length_in_the_record_allocates_nothing_beyond_the_limit() {
        let mut out = Vec::new();
        put_meta(&mut out, &u64::MAX).unwrap();
        assert!(read_meta::<Vec<u8>>(&mut Reader::new(&out)).is_err());
        assert!(read_meta::<String>(&mut Reader::new(&out)).is_err());
    }

    #[test]
    fn a_record_over_the_limit_is_refused() {
        let mut out = Vec::new();
        let error = put_meta(&mut out, &vec![0u8; META_SIZE_MAX]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::LimitExceeded);
        assert!(out.is_empty());
    }
}
