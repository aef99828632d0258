//! Files to read: from a path or standard input, gzip or not, with how far the reading got.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use flate2::bufread::MultiGzDecoder;

use crate::failure::{Outcome, in_file};

const BUFFER_SIZE: usize = 256 << 10;
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];

/// An open file.
pub(crate) struct Input {
    /// The bytes, unpacked.
    pub(crate) reader: Box<dyn BufRead>,
    /// Size of the file, 0 where that is not known.
    pub(crate) size: u64,
    /// How much of the file was read.
    pub(crate) position: Position,
}

/// How many bytes of a file were read, shared with whoever reads it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Position(Arc<AtomicU64>);

impl Position {
    /// Bytes read so far.
    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

struct Counted<R> {
    inner: R,
    position: Position,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.position.0.fetch_add(count as u64, Ordering::Relaxed);
        Ok(count)
    }
}

/// Opens a file, `-` for standard input. What starts as gzip does is unpacked.
pub(crate) fn open(path: &Path) -> Outcome<Input> {
    let failed = |error: io::Error| in_file("read", path, &error);
    let (source, size): (Box<dyn Read>, u64) = if path == Path::new("-") {
        (Box::new(io::stdin().lock()), 0)
    } else {
        let file = File::open(path).map_err(failed)?;
        let info = file.metadata().map_err(failed)?;
        if info.is_dir() {
            return Err(in_file("read", path, &io::ErrorKind::IsADirectory.into()));
        }
        (Box::new(file), info.len())
    };
    let position = Position::default();
    let counted = Counted { inner: source, position: position.clone() };
    let mut raw = BufReader::with_capacity(BUFFER_SIZE, counted);
    let is_gzip = raw.fill_buf().map_err(failed)?.starts_with(&GZIP_MAGIC);
    let reader: Box<dyn BufRead> = if is_gzip {
        Box::new(BufReader::with_capacity(BUFFER_SIZE, MultiGzDecoder::new(raw)))
    } else {
        Box::new(raw)
    };
    Ok(Input { reader, size, position })
}
