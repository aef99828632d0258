//! A UDP socket that never makes its user wait: used by `StatsdClient`.
//!
//! The socket is connected, so that the network's refusals are heard of, and does not block. An address that is a name is
//! resolved on a thread, since that can take seconds.

use std::io::ErrorKind;
use std::net::{SocketAddr, ToSocketAddrs, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;

use crate::env::Env;

/// Largest payload of a UDP datagram over IPv4: 65,535 less the headers of IP and UDP.
const DATAGRAM_SIZE_MAX: usize = 65_507;
/// Most datagrams that wait for a name to be resolved.
const WAITING_COUNT_MAX: usize = 1_000;
/// A name that could not be resolved is tried again after this time, when somebody sends.
const RESOLVE_AGAIN_AFTER: Duration = Duration::from_secs(30);

/// What became of a datagram, or of an earlier one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Sent,
    /// An earlier one was refused by the other end.
    Refused,
    TooLong,
    Unresolved,
    WouldBlock,
    Network,
}

/// Sends datagrams to one address.
pub(super) struct StatsdSocket(Arc<Shared>);

struct Shared {
    address: String,
    env: Env,
    count: Box<dyn Fn(Outcome) + Send + Sync>,
    state: RwLock<State>,
}

enum State {
    Connected(UdpSocket),
    /// A thread asks for the address; these wait for it.
    Resolving(Vec<String>),
    /// It could not be had; it is asked for again from this time on (on the monotonic clock).
    Unresolved(Duration),
}

impl StatsdSocket {
    /// A socket to `address`; `count` is told of every outcome.
    pub(super) fn new(address: &str, env: &Env, count: impl Fn(Outcome) + Send + Sync + 'static) -> Self {
        let state = address
            .parse()
            .ok()
            .and_then(|address| connect(address).ok())
            .map_or(State::Unresolved(Duration::ZERO), State::Connected);
        let (address, env) = (address.to_owned(), env.clone());
        StatsdSocket(Arc::new(Shared { address, env, count: Box::new(count), state: RwLock::new(state) }))
    }

    pub(super) fn send(&self, datagram: String) {
        let shared = &self.0;
        if datagram.len() > DATAGRAM_SIZE_MAX {
            return (shared.count)(Outcome::TooLong);
        }
        if let State::Connected(socket) = &*shared.state.read() {
            return shared.send(socket, &datagram);
        }
        let mut state = shared.state.write();
        match &mut *state {
            // It was connected between the two locks.
            State::Connected(socket) => shared.send(socket, &datagram),
            State::Resolving(waiting) if waiting.len() < WAITING_COUNT_MAX => waiting.push(datagram),
            State::Unresolved(again) if *again <= shared.env.clock.monotonic() => {
                *state = State::Resolving(vec![datagram]);
                drop(state);
                let own = shared.clone();
                if shared.env.spawn("statsd-resolver", move || own.resolve()).is_err() {
                    shared.give_up();
                }
            }
            _ => (shared.count)(Outcome::Unresolved),
        }
    }
}

impl Shared {
    fn send(&self, socket: &UdpSocket, datagram: &str) {
        // A connected socket reports the refusal of an earlier datagram instead of sending this one, so this one is
        // tried again; otherwise the first one after a restart of the server would be lost.
        let mut sent = socket.send(datagram.as_bytes());
        if sent.as_ref().is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused) {
            (self.count)(Outcome::Refused);
            sent = socket.send(datagram.as_bytes());
        }
        (self.count)(match sent {
            Ok(_) => Outcome::Sent,
            Err(error) => match error.kind() {
                ErrorKind::WouldBlock => Outcome::WouldBlock,
                // EMSGSIZE of Linux and of the BSDs, WSAEMSGSIZE; it has no kind of its own.
                _ if matches!(error.raw_os_error(), Some(90 | 40 | 10_040)) => Outcome::TooLong,
                ErrorKind::ConnectionRefused => Outcome::Refused,
                _ => Outcome::Network,
            },
        });
    }

    fn resolve(&self) {
        let found = self.address.to_socket_addrs();
        let socket = found.ok().and_then(|mut all| all.find_map(|address| connect(address).ok()));
        let Some(socket) = socket else { return self.give_up() };
        let mut state = self.state.write();
        if let State::Resolving(waiting) = &mut *state {
            waiting.drain(..).for_each(|datagram| self.send(&socket, &datagram));
        }
        *state = State::Connected(socket);
    }

    fn give_up(&self) {
        let again = self.env.clock.monotonic() + RESOLVE_AGAIN_AFTER;
        let before = std::mem::replace(&mut *self.state.write(), State::Unresolved(again));
        if let State::Resolving(waiting) = before {
            waiting.iter().for_each(|_| (self.count)(Outcome::Unresolved));
        }
    }
}

/// A socket from any free port to `address`.
fn connect(address: SocketAddr) -> std::io::Result<UdpSocket> {
    let own: SocketAddr = if address.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0u16; 8], 0).into() };
    let socket = UdpSocket::bind(own)?;
    socket.set_nonblocking(true)?;
    socket.connect(address)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;
    use parking_lot::Mutex;

    fn socket(address: &str) -> (StatsdSocket, Arc<Mutex<Vec<Outcome>>>) {
        let outcomes = Arc::<Mutex<Vec<Outcome>>>::default();
        let own = outcomes.clone();
        (StatsdSocket::new(address, &Env::system(), move |outcome| own.lock().push(outcome)), outcomes)
    }

    fn wait_for(outcomes: &Mutex<Vec<Outcome>>, count: usize) {
        for _ in 0..20_000 {
            if outcomes.lock().len() >= count {
                return;
            }
            std::thread::park_timeout(Duration::from_millis(1));
        }
        panic!("no {count} outcomes");
    }

    #[test]
    fn a_name_is_resolved_and_what_waited_is_sent() {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        server.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let (socket, outcomes) = socket(&format!("localhost:{}", server.local_addr().unwrap().port()));
        socket.send("first".to_owned());
        wait_for(&outcomes, 1);
        let mut buffer = [0; 16];
        // Where the name means the sixth version of the protocol first, nobody listens there.
        if let State::Connected(socket) = &*socket.0.state.read()
            && socket.peer_addr().unwrap().is_ipv4()
        {
            assert_eq!(server.recv(&mut buffer).unwrap(), 5);
            assert_eq!(&buffer[..5], b"first");
        }
        assert_eq!(outcomes.lock()[0], Outcome::Sent);
    }

    #[test]
    fn an_address_that_is_none_is_counted() {
        for address in ["", "no port", "127.0.0.1:99999"] {
            let (socket, outcomes) = socket(address);
            socket.send("m:1|c".to_owned());
            wait_for(&outcomes, 1);
            socket.send("m:1|c".to_owned());
            assert_eq!(*outcomes.lock(), [Outcome::Unresolved, Outcome::Unresolved], "{address}");
        }
    }

    #[test]
    fn the_length_of_a_datagram_is_limited() {
        let (socket, outcomes) = socket("127.0.0.1:9");
        socket.send("x".repeat(DATAGRAM_SIZE_MAX));
        socket.send("x".repeat(DATAGRAM_SIZE_MAX + 1));
        assert_eq!(outcomes.lock()[0], Outcome::Sent);
        assert_eq!(outcomes.lock()[1], Outcome::TooLong);
    }
}
