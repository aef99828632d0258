//! Prometheus remote write, in: `POST /api/v1/write`.
//!
//! Answers as the specifications have it: 204 when all is stored; 400 when a part was refused, which senders do not try
//! again, the good series being stored; for 2.0 with the counts of what was written.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, HeaderValue, Response, StatusCode};

use super::answer::{World, refuse, status};
use super::handles::Handle;
use super::import::empty;
use super::intake::{Refused, check_time, time_max};
use super::{Frame, take};
use crate::db::Batch;
use crate::error::{Error, ErrorKind, Result};
use crate::model::{SeriesKey, Timestamp};
use crate::protocol::remote_write::{
    Entry, HISTOGRAM_REFUSED, Labels, Limits, MetricMetadata, Sample, TimeSeries, Version, WriteRequest,
};

/// Samples of one record of the log: with 16 bytes each some 3 MiB.
const PART_SAMPLE_COUNT: usize = 200_000;

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
            refuse(World::Text, StatusCode::BAD_REQUEST, &self.refused.summary("series"), headers)
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

/// A series of a request: its handle, once it is known, and where its samples end among all.
struct Found<'a> {
    series: TimeSeries<'a>,
    handle: Option<Handle>,
    samples_end: usize,
}

fn store(frame: &Frame, version: Version, body: &[u8]) -> Result<Stored> {
    let mut request = WriteRequest::new(version, body, Limits::default())?;
    let mut stored = Stored::default();
    let (mut found, mut samples, mut metadata) = (Vec::new(), Vec::new(), Vec::new());
    let time_max = time_max(frame.env.clock.now());
    let mut one = Vec::new();
    while let Some(entry) = request.next()? {
        let series = match entry {
            Entry::Metadata(entry) => {
                metadata.push(entry);
                continue;
            }
            Entry::Series(series) => series,
        };
        if series.histogram_count > 0 {
            stored.refused.add(&Error::invalid_input(HISTOGRAM_REFUSED));
        }
        match series.samples(&mut one).and_then(|()| check_times(&one, time_max)) {
            Ok(()) => samples.extend_from_slice(&one),
            Err(error) => {
                stored.refused.add(&error);
                continue;
            }
        }
        found.push(Found { series, handle: None, samples_end: samples.len() });
    }
    look_up(frame, version, &request, &mut found, &mut metadata, &mut stored.refused);
    stored.sample_count = write_samples(frame, &found, &samples)?;
    store_metadata(frame, &metadata)?;
    Ok(stored)
}

fn check_times(samples: &[Sample], time_max: Timestamp) -> Result<()> {
    samples.iter().try_for_each(|sample| check_time(sample.time, time_max))
}

/// Finds the handles: those of series sent before by their bytes, those of others by name and tags.
fn look_up<'a>(
    frame: &Frame,
    version: Version,
    request: &WriteRequest<'a>,
    found: &mut [Found<'a>],
    metadata: &mut Vec<MetricMetadata<'a>>,
    refused: &mut Refused,
) {
    frame.handles.age(frame.env.clock.monotonic());
    if version == Version::V1 {
        let known = frame.handles.find(found.iter().map(|found| found.series.label_bytes()));
        for (found, handle) in found.iter_mut().zip(known) {
            found.handle = handle;
        }
    }
    let mut labels = Labels::default();
    for found in found.iter_mut().filter(|found| found.handle.is_none()) {
        let handle = match version {
            Version::V1 => {
                let bytes = found.series.label_bytes();
                frame.handles.find_old(bytes).map_or_else(
                    || {
                        let handle = new_handle(frame, request, &found.series, &mut labels)?;
                        frame.handles.insert(bytes, Arc::clone(&handle));
                        Ok(handle)
                    },
                    Ok,
                )
            }
            Version::V2 => new_handle(frame, request, &found.series, &mut labels).inspect(|_| {
                // What cannot be read of the metadata is no reason to refuse the samples.
                metadata.extend(request.metadata(&found.series, labels.name).ok().flatten());
            }),
        };
        match handle {
            Ok(handle) => found.handle = Some(handle),
            Err(error) => refused.add(&error),
        }
    }
}

fn new_handle<'a>(
    frame: &Frame,
    request: &WriteRequest<'a>,
    series: &TimeSeries<'a>,
    labels: &mut Labels<'a>,
) -> Result<Handle> {
    request.labels(series, labels)?;
    let key = SeriesKey::new(labels.name, labels.tags.iter().map(|(key, value)| (*key, value.as_ref())))?;
    frame.db.series_of_key(&key).map(Arc::new)
}

/// Writes the samples of all series that have a handle; returns how many.
fn write_samples(frame: &Frame, found: &[Found<'_>], samples: &[Sample]) -> Result<usize> {
    let mut batch = Batch::new();
    let (mut start, mut count) = (0, 0);
    for found in found {
        let own = samples.get(start..found.samples_end).unwrap_or_default();
        start = found.samples_end;
        let Some(handle) = &found.handle else { continue };
        for sample in own {
            batch.push(handle, sample.time, sample.value)?;
            if batch.len() >= PART_SAMPLE_COUNT {
                frame.db.write(&mut batch)?;
            }
        }
        count += own.len();
    }
    if !batch.is_empty() {
        frame.db.write(&mut batch)?;
    }
    Ok(count)
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
