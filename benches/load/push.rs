//! Pushes of ten samples to the Pushgateway's routes, a connection for each, and what they leave on disk.

use std::time::Duration;

use icecore::Selector;

use crate::http::{Connection, request};
use crate::{Bench, count, directory_size};

const CLIENT_COUNT: usize = 8;
const GROUP_COUNT: usize = 100;

pub(crate) fn run(small: bool) {
    let pushes = if small { 20 } else { 2_500 };
    let total = (pushes * CLIENT_COUNT) as u64;
    let bench = Bench::start(&[]);
    let address = bench.served.address;
    let cost = bench.measure(|| {
        std::thread::scope(|scope| {
            for client in 0..CLIENT_COUNT {
                scope.spawn(move || {
                    for index in 0..pushes {
                        let group = (index * CLIENT_COUNT + client) % GROUP_COUNT;
                        let path = format!("/metrics/job/bench/instance/{group}");
                        let body = page(index);
                        Connection::open(address).ask(&request("PUT", &path, "Connection: close\r\n", &body));
                    }
                });
            }
        });
    });
    let (db, directory) = bench.stop();
    // Ten of the body, and when the group was pushed and when it failed.
    let samples = count(&db, Selector::all());
    assert!(samples >= 12 * total, "{samples} samples of {total} pushes");
    db.compact().unwrap();
    drop(db);
    // Files that were replaced are removed when the database is opened again.
    std::thread::sleep(Duration::from_millis(10));
    let disk = directory_size(&directory.path().join("data"));
    println!(
        "push: {:.0} pushes/s without keep-alive (target 2,000), {}, {:.2} bytes of disk a sample; \
         {total} pushes of 10 samples to {GROUP_COUNT} groups",
        cost.rate(total),
        cost.cpu_per_million(total),
        disk as f64 / samples as f64,
    );
}

fn page(index: usize) -> Vec<u8> {
    let mut page = String::new();
    for metric in 0..5 {
        page.push_str(&format!("# HELP job_metric_{metric} What it is.\n# TYPE job_metric_{metric} gauge\n"));
        for stage in ["read", "write"] {
            page.push_str(&format!("job_metric_{metric}{{stage=\"{stage}\"}} {}\n", index * 7 % 100));
        }
    }
    page.into_bytes()
}
