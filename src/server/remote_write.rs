//! Prometheus remote write, in: `POST /api/v1/write`.
//!
//! Answers as the specifications have it: 204 when all is stored; 400 when a part was refused, which senders do not try
//! again, 429 when it was for a limit of the database, the good series being stored; for 2.0 with the counts of what was
//! written.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, HeaderValue, Response, StatusCode};

use super::answer::{World, refuse, status};
use super::handles::{Generations, Handle, Place};
use super::import::empty;
use super::intake::{Refused, Room, Times};
use super::{Frame, take};
use crate::db::Batch;
use crate::error::{Error, ErrorKind, Result};
use crate::model::SeriesKey;
use crate::protocol::remote_write::{
    Entry, HISTOGRAM_REFUSED, Labels, Limits, MetricMetadata, Sample, TimeSeries, Version, WriteRequest,
};

/// Samples of one record of the log: with 16 bytes each some 3 MiB.
const PART_SAMPLE_COUNT: usize = 200_000;

/// Memory that a series takes while its request is read, and with its handle if it is new, in bytes.
const SERIES_SIZE: usize = 24;
const NEW_SERIES_SIZE: usize = 400;
/// Memory that a sample takes while its request is read, and in the batch, in bytes.
const SAMPLE_SIZE: usize = 40;

/// Takes a request.
pub(super) async fn write(State(frame): State<Arc<Frame>>, request: Request) -> Response<Body> {
    take(&frame, request, |parts, body| {
        let content_type = parts.headers.get(CONTENT_TYPE).map_or(Ok(""), HeaderValue::to_str);
        let Some(version) = content_type.ok().and_then(Version::from_content_type) else {
            let message = "the content type is application/x-protobuf, of prometheus.WriteRequest or \
                           io.prometheus.write.v2.Request";
            return refuse(World::Text, StatusCode::UNSUPPORTED_MEDIA_TYPE, message, &parts.headers);
        };
        match store(&frame, version, body) {
            Ok(stored) => stored.answer(version, &parts.headers),
            Err(error) => refuse(World::Text, status(&error), &error.to_string(), &parts.headers),
        }
    })
    .await
}

/// What became of a request.
#[derive(Debug, Default)]
struct Stored {
    sample_count: usize,
    refused: Refused,
}

impl Stored {
    fn answer(&self, version: Version, headers: &HeaderMap) -> Response<Body> {
        let mut answer = if self.refused.count == 0 {
            empty(StatusCode::NO_CONTENT)
        } else {
            // What was refused for a limit of the database may be taken later.
            let limited = self.refused.by_limit;
            let status = if limited { StatusCode::TOO_MANY_REQUESTS } else { StatusCode::BAD_REQUEST };
            refuse(World::Text, status, &self.refused.summary("series"), headers)
        };
        if version == Version::V2 {
            let more = answer.headers_mut();
            more.insert("x-prometheus-remote-write-samples-written", HeaderValue::from(self.sample_count));
            more.insert("x-prometheus-remote-write-histograms-written", HeaderValue::from(0));
            more.insert("x-prometheus-remote-write-exemplars-written", HeaderValue::from(0));
        }
        answer
    }
}

/// A series of a request: where its handle is, and where its samples end among all.
struct Found {
    handle: Where,
    samples_end: usize,
}

enum Where {
    /// Among the series that senders have sent before.
    Known(Place),
    /// Among those of this request.
    New(usize),
}

/// What is read of a request before anything of it is written.
struct Reading<'f, 'a> {
    frame: &'f Frame,
    request: WriteRequest<'a>,
    known: Generations,
    /// Handles that are not among the known ones.
    new: Vec<Handle>,
    found: Vec<Found>,
    samples: Vec<Sample>,
    metadata: Vec<MetricMetadata<'a>>,
    refused: Refused,
    /// The series before.
    last: Option<Place>,
    labels: Labels<'a>,
    times: Times,
    room: Room,
}

fn store(frame: &Frame, version: Version, body: &[u8]) -> Result<Stored> {
    let limits = Limits {
        series_count_max: frame.options.limits.series_count_max,
        sample_count_max: frame.options.limits.sample_count_max,
        ..Limits::default()
    };
    let mut reading = Reading {
        frame,
        request: WriteRequest::new(version, body, limits).map_err(for_good)?,
        known: frame.handles.at(frame.env.clock.monotonic()),
        new: Vec::new(),
        found: Vec::new(),
        samples: Vec::new(),
        metadata: Vec::new(),
        refused: Refused::default(),
        last: None,
        labels: Labels::default(),
        times: Times::new(frame, frame.env.clock.now()),
        room: Room::new(frame),
    };
    loop {
        let expected = reading.known.after(reading.last);
        let (place, labels) = expected.map_or((None, &[][..]), |(place, labels)| (Some(place), labels));
        match reading.request.next_expecting(labels).map_err(for_good)? {
            None => break,
            Some(Entry::Metadata(entry)) => reading.metadata.push(entry),
            Some(Entry::Series(series)) => {
                let place = place.filter(|_| series.as_expected());
                if let Err(error) = reading.series(version, &series, place) {
                    reading.refused.add(&error);
                }
            }
        }
    }
    reading.room.check()?;
    let sample_count = reading.write()?;
    store_metadata(frame, &reading.metadata)?;
    Ok(Stored { sample_count, refused: reading.refused })
}

/// A request over a limit of one request is wrong for good, so that no sender tries it again.
#[cold]
fn for_good(error: Error) -> Error {
    if error.kind() != ErrorKind::LimitExceeded {
        return error;
    }
    Error::invalid_input(format!("{error} (--request-series-count-max, --request-sample-count-max)"))
}

impl<'a> Reading<'_, 'a> {
    /// Takes in a series, known if it has a place; one that is refused leaves nothing behind.
    #[inline]
    fn series(&mut self, version: Version, series: &TimeSeries<'a>, place: Option<Place>) -> Result<()> {
        if series.histogram_count > 0 {
            self.refused.add(&Error::invalid_input(HISTOGRAM_REFUSED));
        }
        let start = self.samples.len();
        let taken = self.samples(series).and_then(|()| match (version, place) {
            (_, Some(place)) => Ok(self.known(place)),
            (Version::V1, None) => self.look_up(series),
            (Version::V2, None) => self.look_up_new(series),
        });
        match taken {
            Ok(handle) => self.found.push(Found { handle, samples_end: self.samples.len() }),
            Err(error) => {
                self.samples.truncate(start);
                return Err(error);
            }
        }
        Ok(())
    }

    fn samples(&mut self, series: &TimeSeries<'a>) -> Result<()> {
        self.room.take(series.sample_count, SERIES_SIZE + series.sample_count * SAMPLE_SIZE)?;
        let start = self.samples.len();
        series.append_samples(&mut self.samples)?;
        let own = self.samples.get(start..).unwrap_or_default();
        own.iter().try_for_each(|sample| self.times.check(sample.time))
    }

    /// Finds a handle by the bytes of the labels, or by name and tags and keeps it for them.
    fn look_up(&mut self, series: &TimeSeries<'a>) -> Result<Where> {
        if !series.labels_first() {
            return self.look_up_new(series);
        }
        let bytes = series.label_bytes();
        if let Some(place) = self.known.find(bytes, self.last) {
            return Ok(self.known(place));
        }
        let handle = self.handle(series)?;
        match self.known.insert(bytes, Arc::clone(&handle), self.last) {
            Some(place) => Ok(self.known(place)),
            None => Ok(self.keep(handle)),
        }
    }

    fn known(&mut self, place: Place) -> Where {
        self.last = Some(place);
        Where::Known(place)
    }

    fn look_up_new(&mut self, series: &TimeSeries<'a>) -> Result<Where> {
        self.room.take(0, NEW_SERIES_SIZE)?;
        let handle = self.handle(series)?;
        // What cannot be read of the metadata is no reason to refuse the samples.
        self.metadata.extend(self.request.metadata(series, self.labels.name).ok().flatten());
        Ok(self.keep(handle))
    }

    fn handle(&mut self, series: &TimeSeries<'a>) -> Result<Handle> {
        self.request.labels(series, &mut self.labels)?;
        let tags = self.labels.tags.iter().map(|(key, value)| (*key, value.as_ref()));
        let key = SeriesKey::new(self.labels.name, tags)?;
        self.frame.db.series_of_key(&key).map(Arc::new)
    }

    fn keep(&mut self, handle: Handle) -> Where {
        self.new.push(handle);
        Where::New(self.new.len() - 1)
    }

    /// Writes all samples; returns how many.
    fn write(&self) -> Result<usize> {
        let mut batch = Batch::new();
        let mut start = 0;
        for found in &self.found {
            let own = self.samples.get(start..found.samples_end).unwrap_or_default();
            start = found.samples_end;
            let series = match found.handle {
                Where::Known(place) => self.known.series(place),
                Where::New(index) => self.new.get(index).map(|handle| &**handle),
            };
            let Some(series) = series else { continue };
            for part in own.chunks(PART_SAMPLE_COUNT) {
                for sample in part {
                    batch.push(series, sample.time, sample.value)?;
                }
                if batch.len() >= PART_SAMPLE_COUNT {
                    self.frame.db.write(&mut batch)?;
                }
            }
        }
        if !batch.is_empty() {
            self.frame.db.write(&mut batch)?;
        }
        Ok(self.samples.len())
    }
}

/// A name or text over its limit is not worth failing for.
fn store_metadata(frame: &Frame, metadata: &[MetricMetadata<'_>]) -> Result<()> {
    for entry in metadata {
        match frame.describe(entry.name, entry.to_metadata()) {
            Err(error) if error.kind() != ErrorKind::InvalidInput => return Err(error),
            _ => {}
        }
    }
    Ok(())
}
