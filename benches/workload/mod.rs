//! Workload S of `docs/benchmarks/`, shared by the benches: TSBS devops cpu-only, 100 hosts x 10 metrics x 24 h
//! at 10 s, integer random walks in 0..=100 with N(0, 1) steps, 10 tags a host, all hosts of a tick before the next.

#![allow(dead_code, reason = "each bench uses a part of it")]

use icecore::{Batch, Db, Durability, Series, Timestamp, ValueRef};

pub(crate) const METRICS: [&str; 10] = [
    "usage_user",
    "usage_system",
    "usage_idle",
    "usage_nice",
    "usage_iowait",
    "usage_irq",
    "usage_softirq",
    "usage_steal",
    "usage_guest",
    "usage_guest_nice",
];
pub(crate) const START: i64 = 1_451_606_400; // 2016-01-01T00:00:00Z, as TSBS has it
pub(crate) const STEP: i64 = 10;

/// splitmix64, and from it normal steps by the sum of twelve uniform numbers.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn normal(&mut self) -> f64 {
        (0..12).map(|_| (self.next() >> 11) as f64 / (1u64 << 53) as f64).sum::<f64>() - 6.0
    }
}

pub(crate) struct Workload {
    pub(crate) hosts: usize,
    pub(crate) ticks: usize,
    pub(crate) tags: Vec<Vec<(String, String)>>,
    /// By tick, host, metric.
    pub(crate) values: Vec<f64>,
}

impl Workload {
    pub(crate) fn new(hosts: usize, ticks: usize) -> Self {
        let mut random = Random(1);
        let tags = (0..hosts)
            .map(|host| {
                let mut pick = |key: &str, of: &str, count: u64| {
                    (key.to_owned(), format!("{of}{}", random.next() % count))
                };
                let mut tags = vec![("hostname".to_owned(), format!("host_{host}"))];
                tags.push(pick("region", "eu-west-", 9));
                tags.push(pick("datacenter", "eu-west-1", 26));
                tags.push(pick("rack", "", 100));
                tags.push(pick("os", "Ubuntu16.04", 3));
                tags.push(pick("arch", "x", 2));
                tags.push(pick("team", "team_", 4));
                tags.push(pick("service", "", 20));
                tags.push(pick("service_version", "", 2));
                tags.push(pick("service_environment", "env", 3));
                tags.sort();
                tags
            })
            .collect();
        let width = hosts * METRICS.len();
        let mut state: Vec<f64> = (0..width).map(|_| (random.next() % 101) as f64).collect();
        let mut values = Vec::with_capacity(width * ticks);
        for _ in 0..ticks {
            for value in &mut state {
                *value = (*value + random.normal()).clamp(0.0, 100.0);
                values.push(value.trunc());
            }
        }
        Workload { hosts, ticks, tags, values }
    }

    /// S, or a thousandth of it in test mode.
    pub(crate) fn small() -> Self {
        if is_test() { Workload::new(10, 36) } else { Workload::new(100, 8640) }
    }

    pub(crate) fn samples(&self) -> u64 {
        self.values.len() as u64
    }

    pub(crate) fn tick_values(&self, tick: usize) -> &[f64] {
        let width = self.hosts * METRICS.len();
        &self.values[tick * width..(tick + 1) * width]
    }

    pub(crate) fn handles(&self, db: &Db) -> Vec<Series<f64>> {
        let tags =
            |host: usize| self.tags[host].iter().map(|(k, v)| (k.as_str(), v.as_str())).collect::<Vec<_>>();
        (0..self.hosts)
            .flat_map(|host| METRICS.map(|metric| db.series(metric, &tags(host)).unwrap()))
            .collect()
    }

    /// Writes everything by handle in batches of `size`.
    pub(crate) fn ingest(&self, db: &Db, size: usize, durability: Durability) {
        let handles = self.handles(db);
        let mut batch = Batch::new();
        for tick in 0..self.ticks {
            let time = Timestamp::from_secs(START + tick as i64 * STEP);
            for (series, value) in handles.iter().zip(self.tick_values(tick)) {
                batch.push(series, time, *value).unwrap();
                if batch.len() == size {
                    db.write_with(&mut batch, durability).unwrap();
                }
            }
        }
        db.write_with(&mut batch, durability).unwrap();
    }

    /// Writes everything by name and tags in batches of `size`.
    pub(crate) fn ingest_named(&self, db: &Db, size: usize) {
        let tags: Vec<Vec<(&str, &str)>> = self
            .tags
            .iter()
            .map(|tags| tags.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect())
            .collect();
        let mut batch = Batch::new();
        for tick in 0..self.ticks {
            let time = Timestamp::from_secs(START + tick as i64 * STEP);
            let mut values = self.tick_values(tick).iter();
            for tags in &tags {
                for (metric, value) in METRICS.iter().zip(&mut values) {
                    batch.push_named(metric, tags, time, ValueRef::F64(*value)).unwrap();
                    if batch.len() == size {
                        db.write(&mut batch).unwrap();
                    }
                }
            }
        }
        db.write(&mut batch).unwrap();
    }
}

/// Whether everything runs once and small.
pub(crate) fn is_test() -> bool {
    !std::env::args().any(|argument| argument == "--bench")
}
