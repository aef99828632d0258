//! StatsD datagrams of one line each at a fixed rate; every one is received, or counted as dropped by the system.

use std::net::UdpSocket;
use std::time::{Duration, Instant};

use crate::{Bench, Served, count};

const SERIES_COUNT: u64 = 1000;
/// Datagrams sent between two looks at the clock.
const BURST: u64 = 50;

pub(crate) fn run(small: bool) {
    let (rate, total) = if small { (10_000, 5_000) } else { (300_000, 3_000_000) };
    let lines: Vec<String> = (0..SERIES_COUNT).map(line).collect();
    let bench = Bench::start(&["--statsd-interval", "1s"]);
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(bench.served.statsd).unwrap();
    let start = Instant::now();
    let mut sent_in = Duration::ZERO;
    let cost = bench.measure(|| {
        let mut lines = lines.iter().cycle();
        for first in (0..total).step_by(BURST as usize) {
            let due = Duration::from_secs_f64(first as f64 / rate as f64);
            std::thread::sleep(due.saturating_sub(start.elapsed()));
            for line in lines.by_ref().take(BURST as usize) {
                socket.send(line.as_bytes()).unwrap();
            }
        }
        sent_in = start.elapsed();
        wait_for_all(&bench.served, total);
    });
    let (received, dropped) = counts(&bench.served);
    assert_eq!(received + dropped, total, "a datagram was lost and not counted");
    assert_eq!(bench.served.metric("icecore_statsd_lines_total") as u64, received);
    let (db, _directory) = bench.stop();
    assert!(count(&db, "requests") >= SERIES_COUNT);
    let last = db.query("requests").latest().run().unwrap();
    let sum: f64 = last.series.iter().flat_map(|series| series.doubles()).sum();
    assert_eq!(sum as u64, received, "each datagram counts one");
    println!(
        "statsd: {total} datagrams sent at {:.0}/s, {received} received ({:.0}/s, target 300,000), {dropped} dropped by \
         the system and counted; {}",
        total as f64 / sent_in.as_secs_f64(),
        received as f64 / sent_in.as_secs_f64(),
        cost.cpu_per_million(total),
    );
}

fn line(index: u64) -> String {
    format!("requests:1|c|#env:prod,host:web-{},route:/api/v1/items/{}", index % 50, index / 50)
}

/// Waits until every datagram is received or dropped.
fn wait_for_all(served: &Served, total: u64) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while Instant::now() < deadline {
        let (received, dropped) = counts(served);
        if received + dropped >= total {
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn counts(served: &Served) -> (u64, u64) {
    let received = served.metric("icecore_statsd_datagrams_total");
    (received as u64, served.metric("icecore_statsd_kernel_drops_total") as u64)
}
