//! The child of `icecore demo`: samples this host as fast as it is asked to, writes each tick as one batch, and says
//! on standard output what was acknowledged. It goes on until it is killed.

use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Write;
use std::str::FromStr;
use std::time::{Duration, Instant};

use icecore::{Batch, Db, Metadata, MetricKind, SeriesKey, Timestamp, ValueRef};
use sysinfo::{Disks, Networks, ProcessRefreshKind, ProcessesToUpdate, System, UpdateKind};

use crate::failure::Outcome;
use crate::interrupt;
use crate::select::Database;
use crate::time;

/// Disks answer slowly, and change slowly.
const DISK_INTERVAL: Duration = Duration::from_secs(1);
/// Most processes of one tick, so that a large host does not become a slow one.
const PROCESS_COUNT_MAX: usize = 500;

/// Samples this host until it is killed.
#[derive(Debug, clap::Args)]
pub(crate) struct SampleHost {
    #[command(flatten)]
    database: Database,
    /// Least time between two ticks, in milliseconds.
    #[arg(long, default_value_t = 10)]
    interval_ms: u64,
}

/// What was acknowledged so far, as a line of text: samples, time of the first and last tick, and a fingerprint of
/// every sample.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Acknowledged {
    pub(crate) samples: u64,
    pub(crate) first: Timestamp,
    pub(crate) last: Timestamp,
    pub(crate) fingerprint: u64,
}

impl Acknowledged {
    /// Counts a sample in. The order does not matter.
    pub(crate) fn add(&mut self, key: &SeriesKey, time: Timestamp, value: ValueRef<'_>) {
        let bits = match value {
            ValueRef::F64(value) => value.to_bits(),
            ValueRef::I64(value) => value as u64,
            ValueRef::Bytes(_) => 0,
        };
        let mut hasher = DefaultHasher::new();
        (key.as_bytes(), time.nanos(), bits).hash(&mut hasher);
        self.fingerprint = self.fingerprint.wrapping_add(hasher.finish());
        self.samples += 1;
    }
}

impl fmt::Display for Acknowledged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ACK {} {} {} {:016x}", self.samples, self.first, self.last, self.fingerprint)
    }
}

impl FromStr for Acknowledged {
    type Err = ();

    fn from_str(line: &str) -> Result<Self, ()> {
        let mut words = line.split(' ');
        let mut word = || words.next().ok_or(());
        if word()? != "ACK" {
            return Err(());
        }
        let samples = word()?.parse().map_err(drop)?;
        let mut time = || word()?.parse().map(Timestamp::from_nanos).map_err(drop);
        let (first, last) = (time()?, time()?);
        let fingerprint = words.next().ok_or(())?;
        // A line that the kill cut short is no acknowledgement.
        if fingerprint.len() != 16 {
            return Err(());
        }
        let fingerprint = u64::from_str_radix(fingerprint, 16).map_err(drop)?;
        Ok(Acknowledged { samples, first, last, fingerprint })
    }
}

/// Samples and writes until it is killed, or nobody listens any more.
pub(crate) fn run(arguments: &SampleHost) -> Outcome {
    let db = Db::open(&arguments.database.data)?;
    describe(&db)?;
    let mut host = Host::new();
    let mut acknowledged = Acknowledged::default();
    let mut output = std::io::stdout().lock();
    let mut batch = Batch::new();
    while !interrupt::is_set() {
        let begun = Instant::now();
        let now = time::now();
        let tick = if now > acknowledged.last { now } else { acknowledged.last.saturating_add(1) };
        host.refresh();
        let mut next = Acknowledged { last: tick, ..acknowledged };
        if next.samples == 0 {
            next.first = tick;
        }
        for (key, value) in host.samples()? {
            next.add(&key, tick, value);
            batch.push_key(&key, tick, value)?;
        }
        db.write(&mut batch)?;
        acknowledged = next;
        writeln!(output, "{acknowledged}")?;
        output.flush()?;
        std::thread::sleep(Duration::from_millis(arguments.interval_ms).saturating_sub(begun.elapsed()));
    }
    Ok(db.close()?)
}

fn describe(db: &Db) -> Outcome {
    let metrics = [
        ("host_cpu_usage_percent", MetricKind::Gauge, "percent", "Use of each core."),
        ("host_memory_used_bytes", MetricKind::Gauge, "bytes", "Memory in use."),
        ("host_network_received_bytes", MetricKind::Counter, "bytes", "Received by each interface."),
        ("host_network_transmitted_bytes", MetricKind::Counter, "bytes", "Sent by each interface."),
        ("host_process_cpu_milliseconds", MetricKind::Counter, "milliseconds", "Time on a core, by process."),
        ("host_process_memory_bytes", MetricKind::Gauge, "bytes", "Memory of each process."),
    ];
    for (name, kind, unit, help) in metrics {
        db.set_metadata(name, Metadata { kind, unit: unit.to_owned(), help: help.to_owned() })?;
    }
    Ok(())
}

type Sample = (SeriesKey, ValueRef<'static>);

/// What can be asked of the host. What a system does not answer is left out.
struct Host {
    system: Option<System>,
    disks: Option<Disks>,
    networks: Option<Networks>,
    disks_asked: Instant,
}

impl Host {
    fn new() -> Self {
        Host {
            system: System::new().ok(),
            disks: Disks::new_with_refreshed_list().ok(),
            networks: Networks::new_with_refreshed_list().ok(),
            disks_asked: Instant::now(),
        }
    }

    fn refresh(&mut self) {
        if let Some(system) = &mut self.system {
            system.refresh_cpu_usage();
            system.refresh_memory();
            let kind = ProcessRefreshKind::nothing()
                .with_cpu()
                .with_memory()
                .with_disk_usage()
                .with_exe(UpdateKind::Never)
                .without_tasks();
            system.refresh_processes_specifics(ProcessesToUpdate::All, true, kind);
        }
        if let Some(networks) = &mut self.networks {
            networks.refresh(true);
        }
        if let Some(disks) = self.disks.as_mut().filter(|_| self.disks_asked.elapsed() >= DISK_INTERVAL) {
            disks.refresh(true);
            self.disks_asked = Instant::now();
        }
    }

    /// Everything that is known now, one sample of each series.
    fn samples(&self) -> icecore::Result<Vec<Sample>> {
        let mut samples = Vec::new();
        if let Some(system) = &self.system {
            self.system_samples(system, &mut samples)?;
            process_samples(system, &mut samples)?;
        }
        for (name, data) in self.networks.iter().flat_map(|networks| networks.iter()) {
            let tags = [("interface", name.to_string_lossy().into_owned())];
            put(&mut samples, "host_network_received_bytes", &tags, int(data.total_received()))?;
            put(&mut samples, "host_network_transmitted_bytes", &tags, int(data.total_transmitted()))?;
            put(&mut samples, "host_network_received_packets", &tags, int(data.total_packets_received()))?;
            put(
                &mut samples,
                "host_network_transmitted_packets",
                &tags,
                int(data.total_packets_transmitted()),
            )?;
        }
        for disk in self.disks.iter().flatten() {
            let tags = [("mount", disk.mount_point().to_string_lossy().into_owned())];
            let usage = disk.usage();
            put(&mut samples, "host_disk_available_bytes", &tags, int(disk.available_space()))?;
            put(&mut samples, "host_disk_read_bytes", &tags, int(usage.total_read_bytes))?;
            put(&mut samples, "host_disk_written_bytes", &tags, int(usage.total_written_bytes))?;
        }
        // A key can come up twice (one mount point, two disks); the first stays, so that a batch holds each once.
        samples.sort_by(|a, b| a.0.cmp(&b.0));
        samples.dedup_by(|a, b| a.0 == b.0);
        Ok(samples)
    }

    fn system_samples(&self, system: &System, samples: &mut Vec<Sample>) -> icecore::Result<()> {
        for (core, cpu) in system.cpus().iter().enumerate() {
            let tags = [("core", core.to_string())];
            put(samples, "host_cpu_usage_percent", &tags, ValueRef::F64(f64::from(cpu.usage())))?;
        }
        put(samples, "host_memory_used_bytes", &[], int(system.used_memory()))?;
        put(samples, "host_memory_available_bytes", &[], int(system.available_memory()))?;
        put(samples, "host_memory_free_bytes", &[], int(system.free_memory()))?;
        put(samples, "host_swap_used_bytes", &[], int(system.used_swap()))?;
        put(samples, "host_process_count", &[], int(system.processes().len() as u64))?;
        if let Ok(load) = System::load_average() {
            for (window, value) in [("1m", load.one), ("5m", load.five), ("15m", load.fifteen)] {
                put(samples, "host_load", &[("window", window.to_owned())], ValueRef::F64(value))?;
            }
        }
        Ok(())
    }
}

fn process_samples(system: &System, samples: &mut Vec<Sample>) -> icecore::Result<()> {
    for (pid, process) in system.processes().iter().take(PROCESS_COUNT_MAX) {
        let tags = [("pid", pid.to_string()), ("process", process.name().to_string_lossy().into_owned())];
        let disk = process.disk_usage();
        put(samples, "host_process_cpu_milliseconds", &tags, int(process.accumulated_cpu_time()))?;
        put(samples, "host_process_memory_bytes", &tags, int(process.memory()))?;
        put(samples, "host_process_virtual_memory_bytes", &tags, int(process.virtual_memory()))?;
        put(samples, "host_process_read_bytes", &tags, int(disk.total_read_bytes))?;
        put(samples, "host_process_written_bytes", &tags, int(disk.total_written_bytes))?;
    }
    Ok(())
}

fn put(
    samples: &mut Vec<Sample>,
    name: &str,
    tags: &[(&str, String)],
    value: ValueRef<'static>,
) -> icecore::Result<()> {
    samples.push((SeriesKey::new(name, tags.iter().map(|(key, value)| (*key, value.as_str())))?, value));
    Ok(())
}

/// Counts of bytes are far below `i64::MAX`; what claims otherwise counts as that.
fn int(value: u64) -> ValueRef<'static> {
    ValueRef::I64(i64::try_from(value).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_acknowledgement_reads_back_and_a_torn_one_does_not() {
        let mut acknowledged = Acknowledged {
            first: Timestamp::from_nanos(-5),
            last: Timestamp::from_nanos(7),
            ..Default::default()
        };
        acknowledged.add(
            &SeriesKey::new::<&str, &str>("m", []).unwrap(),
            acknowledged.last,
            ValueRef::I64(1),
        );
        let line = acknowledged.to_string();
        assert_eq!(line.parse(), Ok(acknowledged));
        for cut in 0..line.len() {
            assert!(line.get(..cut).unwrap().parse::<Acknowledged>().is_err(), "{cut}");
        }
    }
}
