//! Header, footer and group table of a block, and its numbers; `docs/format.md`, "Blocks", says what they
//! mean, and a test compares the two.

use crate::codec::varint::{Reader, put_u8, put_u16, put_u32, put_u64};
use crate::error::{Error, Result};

/// First and last four bytes of a block.
pub(crate) const MAGIC: [u8; 4] = *b"iceB";
/// The version that this build writes, and the newest that it reads.
pub(crate) const VERSION: u16 = 1;
/// The one kind of block.
pub(crate) const KIND: u8 = 1;
/// Size of the header, in bytes.
pub(crate) const HEADER_SIZE: usize = 32;
/// Size of the footer, in bytes.
pub(crate) const FOOTER_SIZE: usize = 200;
/// Size of an entry of the group table, in bytes.
pub(crate) const GROUP_ENTRY_SIZE: usize = 36;
/// Most series of a group.
pub(crate) const GROUP_SERIES_COUNT_MAX: usize = 64;
/// A group with this many pages takes no further series.
pub(crate) const GROUP_PAGE_COUNT: usize = 1024;
/// Encoded values up to this size lie in the directory, in bytes.
pub(crate) const INLINE_SIZE_MAX: usize = 48;
/// Most keys that the bounds section describes.
pub(crate) const BOUND_COUNT_MAX: usize = 64;
/// Longest text of a bound, in bytes; longer ones are cut.
pub(crate) const BOUND_SIZE_MAX: usize = 64;

/// Bytes of the header that its CRC covers.
const HEADER_CHECKED_SIZE: usize = HEADER_SIZE - 4;
/// Bytes of the footer that its CRC covers.
const FOOTER_CHECKED_SIZE: usize = FOOTER_SIZE - 8;

/// Bytes of the file that are read and checked together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Section {
    /// Bytes from the start of the file.
    pub(crate) offset: u64,
    /// Bytes.
    pub(crate) size: u64,
    /// CRC-32 of those bytes.
    pub(crate) crc: u32,
}

impl Section {
    /// Whether it lies in the first `size` bytes of the file.
    pub(crate) fn is_inside(&self, size: u64) -> bool {
        self.offset.checked_add(self.size).is_some_and(|end| end <= size)
    }
}

/// The sections that the footer points at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sections {
    /// Where each group lies.
    pub(crate) groups: Section,
    /// The transducer of symbols.
    pub(crate) symbols: Section,
    /// Where the postings of each symbol lie.
    pub(crate) offsets: Section,
    /// Postings.
    pub(crate) postings: Section,
    /// Smallest and largest values of tags.
    pub(crate) bounds: Section,
}

impl Sections {
    /// Every section with its name, in the order of the footer.
    pub(crate) fn all(&self) -> [(&'static str, Section); 5] {
        [
            ("group table", self.groups),
            ("symbols", self.symbols),
            ("postings offsets", self.offsets),
            ("postings", self.postings),
            ("bounds", self.bounds),
        ]
    }
}

/// The footer: all that is known of a block without reading more of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Footer {
    pub(crate) database_id: [u8; 16],
    pub(crate) number: u64,
    pub(crate) min_time: i64,
    pub(crate) max_time: i64,
    pub(crate) first_lsn: u64,
    pub(crate) last_lsn: u64,
    pub(crate) sample_count: u64,
    pub(crate) page_count: u64,
    pub(crate) series_count: u32,
    pub(crate) group_count: u32,
    pub(crate) symbol_count: u32,
    pub(crate) level: u8,
    pub(crate) sections: Sections,
}

/// The first bytes of a block of the database `database_id`.
pub(crate) fn encode_header(database_id: [u8; 16]) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEADER_SIZE);
    out.extend_from_slice(&MAGIC);
    put_u16(&mut out, VERSION);
    put_u8(&mut out, KIND);
    put_u8(&mut out, 0);
    out.extend_from_slice(&database_id);
    put_u32(&mut out, 0);
    let crc = crc32fast::hash(&out);
    put_u32(&mut out, crc);
    out
}

/// What a header can be, besides damaged.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Header {
    /// This version, of the database with this id.
    Known([u8; 16]),
    /// A version that came later.
    Newer(u16),
}

/// Reads a header. Its layout is the same in every version.
pub(crate) fn decode_header(bytes: &[u8; HEADER_SIZE]) -> Result<Header> {
    let mut reader = Reader::new(bytes);
    let magic = reader.array::<4>()?;
    let version = reader.u16()?;
    let (kind, flags) = (reader.u8()?, reader.u8()?);
    let database_id = reader.array()?;
    let (reserved, crc) = (reader.u32()?, reader.u32()?);
    if magic != MAGIC {
        return Err(Error::corrupt("the file does not begin as a block"));
    }
    check_crc("header", bytes.get(..HEADER_CHECKED_SIZE).unwrap_or_default(), crc)?;
    if version > VERSION {
        return Ok(Header::Newer(version));
    }
    if version == 0 || kind != KIND || flags != 0 || reserved != 0 {
        return Err(Error::corrupt("the header holds values that this version does not write"));
    }
    Ok(Header::Known(database_id))
}

impl Footer {
    /// Its bytes.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(FOOTER_SIZE);
        out.extend_from_slice(&self.database_id);
        put_u64(&mut out, self.number);
        put_u64(&mut out, self.min_time as u64);
        put_u64(&mut out, self.max_time as u64);
        put_u64(&mut out, self.first_lsn);
        put_u64(&mut out, self.last_lsn);
        put_u64(&mut out, self.sample_count);
        put_u64(&mut out, self.page_count);
        put_u32(&mut out, self.series_count);
        put_u32(&mut out, self.group_count);
        put_u32(&mut out, self.symbol_count);
        put_u32(&mut out, u32::from(self.level));
        for (_, section) in self.sections.all() {
            put_u64(&mut out, section.offset);
            put_u64(&mut out, section.size);
            put_u32(&mut out, section.crc);
        }
        put_u32(&mut out, 0);
        let crc = crc32fast::hash(&out);
        put_u32(&mut out, crc);
        out.extend_from_slice(&MAGIC);
        out
    }

    /// Reads the footer of a file of `file_size` bytes.
    ///
    /// # Errors
    /// `Corruption` when the CRC differs or a section does not lie before the footer.
    pub(crate) fn decode(bytes: &[u8; FOOTER_SIZE], file_size: u64) -> Result<Self> {
        let (checked, rest) = bytes.split_at(FOOTER_CHECKED_SIZE);
        let mut rest = Reader::new(rest);
        let (crc, magic) = (rest.u32()?, rest.array::<4>()?);
        if magic != MAGIC {
            return Err(Error::corrupt("the file does not end as a block; it may have been cut short"));
        }
        check_crc("footer", checked, crc)?;
        let mut reader = Reader::new(checked);
        let mut footer = Footer {
            database_id: reader.array()?,
            number: reader.u64()?,
            min_time: reader.u64()? as i64,
            max_time: reader.u64()? as i64,
            first_lsn: reader.u64()?,
            last_lsn: reader.u64()?,
            sample_count: reader.u64()?,
            page_count: reader.u64()?,
            series_count: reader.u32()?,
            group_count: reader.u32()?,
            symbol_count: reader.u32()?,
            ..Footer::default()
        };
        let level = reader.u32()?;
        footer.level =
            u8::try_from(level).map_err(|_| Error::corrupt(format!("the level of a block is {level}")))?;
        let mut section = || -> Result<Section> {
            Ok(Section { offset: reader.u64()?, size: reader.u64()?, crc: reader.u32()? })
        };
        footer.sections = Sections {
            groups: section()?,
            symbols: section()?,
            offsets: section()?,
            postings: section()?,
            bounds: section()?,
        };
        footer.check(reader.u32()?, file_size)?;
        Ok(footer)
    }

    fn check(&self, reserved: u32, file_size: u64) -> Result<()> {
        let body_size = file_size.saturating_sub(FOOTER_SIZE as u64);
        if reserved != 0 || !self.sections.all().iter().all(|(_, section)| section.is_inside(body_size)) {
            return Err(Error::corrupt("the footer points outside the file"));
        }
        let groups_size = u64::from(self.group_count) * GROUP_ENTRY_SIZE as u64;
        if self.min_time > self.max_time || self.series_count == 0 || self.sections.groups.size != groups_size
        {
            return Err(Error::corrupt("the footer contradicts itself"));
        }
        Ok(())
    }
}

/// Compares the CRC of `bytes`, which `what` names.
pub(crate) fn check_crc(what: &str, bytes: &[u8], expected: u32) -> Result<()> {
    let found = crc32fast::hash(bytes);
    if found == expected { Ok(()) } else { Err(differs(what, expected, found)) }
}

#[cold]
fn differs(what: &str, expected: u32, found: u32) -> Error {
    Error::corrupt(format!("{what}: CRC is {found:#010x}, {expected:#010x} is expected"))
}

/// One entry of the group table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct GroupEntry {
    /// Ordinal of the first series.
    pub(crate) first: u32,
    /// The directory of its chunks.
    pub(crate) directory: Section,
    /// The keys of its series.
    pub(crate) keys: Section,
}

impl GroupEntry {
    /// Appends its bytes.
    ///
    /// # Errors
    /// `LimitExceeded` for a directory or keys of 4 GiB.
    pub(crate) fn put(&self, out: &mut Vec<u8>) -> Result<()> {
        let size = |section: &Section| {
            u32::try_from(section.size).map_err(|_| Error::limit_exceeded("a group of series exceeds 4 GiB"))
        };
        put_u32(out, self.first);
        for section in [&self.directory, &self.keys] {
            put_u64(out, section.offset);
            put_u32(out, size(section)?);
            put_u32(out, section.crc);
        }
        Ok(())
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self> {
        let first = reader.u32()?;
        let mut section = || -> Result<Section> {
            Ok(Section { offset: reader.u64()?, size: u64::from(reader.u32()?), crc: reader.u32()? })
        };
        Ok(GroupEntry { first, directory: section()?, keys: section()? })
    }
}

/// The group table of a block: for each group, its first series and where its parts lie.
#[derive(Debug)]
pub(crate) struct GroupTable {
    entries: Vec<GroupEntry>,
    series_count: u32,
}

impl GroupTable {
    /// Reads the checked bytes of the section.
    ///
    /// # Errors
    /// `Corruption` when first ordinals do not rise from 0, or a group has too many series.
    pub(crate) fn decode(bytes: &[u8], series_count: u32) -> Result<Self> {
        let mut reader = Reader::new(bytes);
        let mut entries = Vec::with_capacity(bytes.len() / GROUP_ENTRY_SIZE);
        while !reader.is_empty() {
            entries.push(GroupEntry::read(&mut reader)?);
        }
        let table = GroupTable { entries, series_count };
        let good = |group: usize| (1..=GROUP_SERIES_COUNT_MAX).contains(&table.series_of(group).len());
        let starts_at_zero = table.entries.first().is_some_and(|entry| entry.first == 0);
        if !starts_at_zero || !(0..table.entries.len()).all(good) {
            return Err(Error::corrupt("the group table does not divide the series"));
        }
        Ok(table)
    }

    /// How many groups there are.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Where the parts of a group lie.
    pub(crate) fn entry(&self, group: usize) -> Option<&GroupEntry> {
        self.entries.get(group)
    }

    /// The ordinals of a group.
    pub(crate) fn series_of(&self, group: usize) -> std::ops::Range<u32> {
        let first = |group: usize| self.entries.get(group).map_or(self.series_count, |entry| entry.first);
        first(group)..first(group + 1)
    }

    /// The group that holds a series.
    pub(crate) fn group_of(&self, ordinal: u32) -> usize {
        self.entries.partition_point(|entry| entry.first <= ordinal).saturating_sub(1)
    }

    /// How many bytes of memory it takes.
    pub(crate) fn size(&self) -> usize {
        self.entries.capacity() * size_of::<GroupEntry>() + size_of::<Self>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn footer() -> Footer {
        let section = |offset| Section { offset, size: 10, crc: 7 };
        Footer {
            database_id: [3; 16],
            number: 9,
            min_time: -5,
            max_time: 5,
            first_lsn: 1,
            last_lsn: u64::MAX,
            sample_count: 11,
            page_count: 2,
            series_count: 2,
            group_count: 1,
            symbol_count: 4,
            level: 2,
            sections: Sections {
                groups: Section { offset: 40, size: GROUP_ENTRY_SIZE as u64, crc: 1 },
                symbols: section(80),
                offsets: section(90),
                postings: section(100),
                bounds: section(110),
            },
        }
    }

    fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
        bytes.try_into().unwrap()
    }

    /// Size of what the first table of a section of `docs/format.md` describes: rows follow each other.
    fn documented_size(section: &str) -> usize {
        let text = include_str!("../../docs/format.md");
        let start = text.find(&format!("### {section}\n")).unwrap();
        let rows = text[start..].lines().skip_while(|line| !line.starts_with("|---")).skip(1);
        let mut size = 0;
        for row in rows.take_while(|line| line.starts_with('|')) {
            let cells: Vec<&str> = row.split('|').map(str::trim).collect();
            assert_eq!(cells[1], size.to_string(), "{row}");
            size += cells[2].parse::<usize>().unwrap();
        }
        size
    }

    #[test]
    fn the_documented_numbers_are_these() {
        assert_eq!(documented_size("Block header"), HEADER_SIZE);
        assert_eq!(documented_size("Block footer"), FOOTER_SIZE);
        assert_eq!(documented_size("Group table"), GROUP_ENTRY_SIZE);
        let text = include_str!("../../docs/format.md");
        for stated in [
            format!("magic `{}`", std::str::from_utf8(&MAGIC).unwrap()),
            format!("| 4 | 2 | version: {VERSION} |\n| 6 | 1 | kind: {KIND} |"),
            format!("is up to {GROUP_SERIES_COUNT_MAX} consecutive series"),
            format!("has {}, {:03} pages or more", GROUP_PAGE_COUNT / 1000, GROUP_PAGE_COUNT % 1000)
                .replace(", ", ","),
            format!("Values of up to {INLINE_SIZE_MAX} bytes are kept in the directory"),
            format!("only the {BOUND_COUNT_MAX} with the most values"),
            format!("cut to their first {BOUND_SIZE_MAX} bytes"),
            format!("up to {} of them are a uvarint each", crate::index::LIST_COUNT_MAX),
        ] {
            assert!(text.contains(&stated), "docs/format.md does not say {stated:?}");
        }
    }

    #[test]
    fn header_and_footer_come_back_and_any_flipped_bit_is_noticed() {
        let header = encode_header([8; 16]);
        assert_eq!(decode_header(&array(&header)).unwrap(), Header::Known([8; 16]));
        let end = footer().encode();
        let file_size = 120 + FOOTER_SIZE as u64;
        assert_eq!(Footer::decode(&array(&end), file_size).unwrap(), footer());
        assert!(Footer::decode(&array(&end), file_size - 1).is_err());
        for bit in 0..header.len() * 8 {
            let mut bad = header.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(decode_header(&array(&bad)).is_err(), "bit {bit}");
        }
        for bit in 0..end.len() * 8 {
            let mut bad = end.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(Footer::decode(&array(&bad), file_size).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn a_newer_header_is_told_from_a_damaged_one() {
        let mut header = encode_header([8; 16]);
        header[4] = 2;
        header.truncate(HEADER_CHECKED_SIZE);
        let crc = crc32fast::hash(&header);
        put_u32(&mut header, crc);
        assert_eq!(decode_header(&array(&header)).unwrap(), Header::Newer(2));
    }

    fn table(firsts: &[u32], series_count: u32) -> Result<GroupTable> {
        let mut bytes = Vec::new();
        for first in firsts {
            GroupEntry { first: *first, ..GroupEntry::default() }.put(&mut bytes).unwrap();
        }
        assert_eq!(bytes.len(), firsts.len() * GROUP_ENTRY_SIZE);
        GroupTable::decode(&bytes, series_count)
    }

    #[test]
    fn groups_divide_the_series() {
        let groups = table(&[0, 64, 70], 100).unwrap();
        assert_eq!((groups.series_of(0), groups.series_of(1), groups.series_of(2)), (0..64, 64..70, 70..100));
        let found: Vec<usize> = [0, 63, 64, 69, 70, 99].map(|ordinal| groups.group_of(ordinal)).to_vec();
        assert_eq!(found, [0, 0, 1, 1, 2, 2]);
        for bad in [&[][..], &[1], &[0, 65], &[0, 0], &[0, 50, 40], &[0, 64, 100]] {
            assert!(table(bad, 100).is_err(), "{bad:?}");
        }
    }
}
