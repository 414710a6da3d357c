//! What a ping and its pong cost anybody: the system calls and the waiting, in a thread that does nothing else.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use anyhow::{Result, ensure};

use super::poller::{Poller, Ready};
use crate::clock::Moment;

/// A ping with eight bytes of payload.
const PING: [u8; 10] = *b"\x89\x0812345678";
/// The beat of the gateway's timers.
const BEAT: Duration = Duration::from_millis(10);
/// How long a pong may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// Sends `rounds` pings on each of `connections`, spread over a round of `interval` as the gateway spreads its own,
/// reads what comes back, and returns the processor time of one ping and pong in microseconds.
///
/// # Errors
/// Sockets fail, or a pong does not come.
pub(crate) fn ping_and_pong(connections: usize, rounds: usize, interval: Duration) -> Result<f64> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?;
    let peers = thread::spawn(move || answer(&listener, connections));
    let mut crowd = Crowd::new(connections, || TcpStream::connect(address))?;
    let beats = (interval.as_millis() / BEAT.as_millis()).max(1) as usize;
    let at_once = connections.div_ceil(beats);
    let before = Moment::of_thread();
    for _ in 0..rounds {
        for start in (0..connections).step_by(at_once) {
            let batch = &mut crowd.streams[start..connections.min(start + at_once)];
            let mut missing = batch.len() * PING.len();
            for stream in batch {
                stream.write_all(&PING)?;
            }
            thread::sleep(BEAT);
            while missing > 0 {
                let read = crowd.read(|_, _| Ok(()))?;
                ensure!(read > 0, "the peers have given up");
                missing -= read;
            }
        }
    }
    let used = Moment::of_thread().seconds_since(before);
    drop(crowd);
    peers.join().expect("the peers don't panic")?;
    Ok(used * 1e6 / (rounds * connections) as f64)
}

/// The peers of all connections: what comes goes back, until one of them ends.
fn answer(listener: &TcpListener, connections: usize) -> Result<()> {
    let mut crowd = Crowd::new(connections, || listener.accept().map(|(stream, _)| stream))?;
    while crowd.read(|stream, bytes| stream.write_all(bytes))? > 0 {}
    Ok(())
}

/// Many connections, and who of them has something to say.
struct Crowd {
    streams: Vec<TcpStream>,
    poller: Poller,
    ready: Vec<Ready>,
}

impl Crowd {
    fn new(connections: usize, mut next: impl FnMut() -> std::io::Result<TcpStream>) -> Result<Crowd> {
        let mut crowd = Crowd { streams: Vec::new(), poller: Poller::new()?, ready: Vec::new() };
        for token in 0..connections {
            let stream = next()?;
            stream.set_nodelay(true)?;
            crowd.poller.add(&stream, token as u64)?;
            crowd.streams.push(stream);
        }
        Ok(crowd)
    }

    /// Reads once from all that have something, and returns how many bytes came; 0 when one has ended.
    fn read(&mut self, mut take: impl FnMut(&mut TcpStream, &[u8]) -> std::io::Result<()>) -> Result<usize> {
        self.poller.wait(&mut self.ready, Some(PATIENCE))?;
        ensure!(!self.ready.is_empty(), "a pong did not come");
        let (mut buffer, mut all) = ([0; 4096], 0);
        for ready in &self.ready {
            let stream = &mut self.streams[ready.token as usize];
            let count = stream.read(&mut buffer)?;
            if count == 0 {
                return Ok(0);
            }
            take(stream, &buffer[..count])?;
            all += count;
        }
        Ok(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_for_a_pong_is_no_processor_time() {
        // By the clock on the wall it would be 20 ms.
        let micros = ping_and_pong(5, 3, Duration::from_millis(100)).unwrap();
        assert!((0.1..4_000.0).contains(&micros), "{micros}");
    }
}
