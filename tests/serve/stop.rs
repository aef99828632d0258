//! SIGTERM: requests under way are finished, aggregates are written, the log is closed.

use std::io::{Read, Write};
use std::net::{TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use icecore::Db;

use crate::served::Served;

#[test]
fn requests_under_way_are_finished_and_aggregates_written() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let mut served = Served::start(&data, &["--statsd-interval", "1h"]);

    let body = "late value=7\n";
    let mut stream = TcpStream::connect(served.address).unwrap();
    let head = format!(
        "POST /write HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).unwrap();
    let mut answer = [0; 1024];
    let size = stream.read(&mut answer).unwrap();
    assert!(answer[..size].starts_with(b"HTTP/1.1 100 Continue"), "the request is under way");
    stream.write_all(&body.as_bytes()[..5]).unwrap();

    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    for line in ["hits:2|c|#page:a", "hits:3|c|#page:a", "_e{5,4}:Title|text"] {
        udp.send_to(line.as_bytes(), served.statsd).unwrap();
    }

    served.terminate();
    let deadline = Instant::now() + Duration::from_secs(10);
    while TcpStream::connect(served.address).is_ok() {
        assert!(Instant::now() < deadline, "connections are still accepted");
        std::thread::sleep(Duration::from_millis(5));
    }
    stream.write_all(&body.as_bytes()[5..]).unwrap();
    let mut rest = String::new();
    stream.read_to_string(&mut rest).unwrap();
    assert!(rest.starts_with("HTTP/1.1 204"), "{rest}");

    let (status, log) = served.wait();
    assert!(status.success(), "{log}");
    assert!(log.contains("INFO  stopping"), "{log}");
    let db = Db::open(&data).unwrap();
    assert!(db.recovery().clean, "the log was not closed");
    let last = |name: &str| db.query(name).latest().run().unwrap().series[0].doubles().to_vec();
    assert_eq!((last("late"), last("hits")), (vec![7.0], vec![5.0]));
    assert_eq!(db.query("dogstatsd_event").series().unwrap().len(), 1);
}
