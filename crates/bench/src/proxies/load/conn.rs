//! One client of the load.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};

use anyhow::{Context, Result, bail, ensure};
use pulsegate_core::Opcode;
use socket2::{Domain, Socket, Type};

use crate::proxies::poller::{Interest, Poller, Ready};
use crate::proxies::wire::{self, Batch, Found, Reader};

/// Of the key that every client sends; RFC 6455 section 1.3 has both.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
/// Clients with the same address: far fewer than an address has ports.
const PER_ADDRESS: usize = 5000;

/// Where the load goes.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) address: SocketAddr,
    request: Vec<u8>,
}

/// How far a client is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Waits for the 101.
    Handshake,
    Open,
    /// Has sent a Close frame and waits until the connection ends.
    Leaving,
    Gone,
}

/// What a turn of a client brought.
#[derive(Debug, Default)]
pub(crate) struct News {
    pub(crate) has_opened: bool,
    /// Messages that came back.
    pub(crate) echoes: u64,
    pub(crate) has_gone: bool,
}

pub(crate) struct Conn {
    socket: TcpStream,
    token: u64,
    phase: Phase,
    head: Vec<u8>,
    reader: Reader,
    /// Handshake, pongs, Close, single messages.
    out: Vec<u8>,
    /// First number of the batch under way, and what is not written of it.
    first: u64,
    batch_left: usize,
    /// The number that comes back next, and by how much numbers rise.
    expected: u64,
    step: u64,
    /// Echoes still to come.
    pub(crate) awaited: u64,
    interest: Interest,
}

impl Target {
    pub(crate) fn new(address: SocketAddr, host: &str, path: &str) -> Target {
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\n\r\n"
        );
        Target { address, request: request.into_bytes() }
    }
}

impl Conn {
    /// Connects and asks for a WebSocket. On loopback clients have many addresses, or their ports would run out.
    pub(crate) fn start(target: &Target, number: usize, token: u64, poller: &Poller) -> Result<Conn> {
        let socket = Socket::new(Domain::for_address(target.address), Type::STREAM, None)?;
        if target.address.ip() == Ipv4Addr::LOCALHOST {
            let last = 2 + (number / PER_ADDRESS) % 250;
            let own = Ipv4Addr::new(127, 0, 0, u8::try_from(last).expect("it is below 252"));
            socket.bind(&SocketAddr::from((own, 0)).into())?;
        }
        socket.connect(&target.address.into()).with_context(|| format!("client {number} can't connect"))?;
        socket.set_nonblocking(true)?;
        socket.set_tcp_nodelay(true)?;
        let socket: TcpStream = socket.into();
        poller.add(&socket, token)?;
        let mut conn = Conn {
            socket,
            token,
            phase: Phase::Handshake,
            head: Vec::new(),
            reader: Reader::default(),
            out: target.request.clone(),
            first: 0,
            batch_left: 0,
            expected: 0,
            step: 1,
            awaited: 0,
            interest: Interest::Read,
        };
        conn.flush(poller, None)?;
        Ok(conn)
    }

    pub(crate) fn phase(&self) -> Phase {
        self.phase
    }

    /// Sends a batch; its echoes are awaited.
    pub(crate) fn send(&mut self, poller: &Poller, batch: &mut Batch) -> Result<()> {
        ensure!(self.awaited == 0, "one batch at a time");
        self.first = self.expected;
        self.step = 1;
        self.awaited = batch.count();
        self.batch_left = batch.numbered(self.first).len();
        self.flush(poller, Some(batch))
    }

    /// Says which numbers the next messages have that are sent one by one.
    pub(crate) fn number_from(&mut self, first: u64, step: u64) {
        (self.expected, self.step) = (first, step);
    }

    /// Sends one message whether or not the last one is back.
    pub(crate) fn send_one(&mut self, poller: &Poller, message: &[u8]) -> Result<()> {
        self.awaited += 1;
        self.out.extend_from_slice(message);
        self.flush(poller, None)
    }

    /// Sends a Close frame; the app will close the connection.
    pub(crate) fn leave(&mut self, poller: &Poller) -> Result<()> {
        self.phase = Phase::Leaving;
        wire::push_masked(&mut self.out, Opcode::Close, &wire::CLOSE_NORMAL);
        self.flush(poller, None)
    }

    /// Writes and reads what can be. `came_back` is told the number of each echo.
    ///
    /// # Errors
    /// The connection breaks, or something comes that is no echo.
    pub(crate) fn turn(
        &mut self,
        ready: Ready,
        poller: &Poller,
        batch: Option<&mut Batch>,
        buffer: &mut [u8],
        came_back: &mut dyn FnMut(u64),
    ) -> Result<News> {
        let mut news = News::default();
        let payload = batch.as_ref().map(|batch| batch.payload() as u64);
        if ready.can_write {
            self.flush(poller, batch)?;
        }
        if !ready.can_read {
            return Ok(news);
        }
        let count = match self.socket.read(buffer) {
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(news),
            Err(error) if error.kind() == ErrorKind::ConnectionReset && self.phase == Phase::Leaving => 0,
            Err(error) => return Err(error).context("a connection broke"),
        };
        if count == 0 {
            ensure!(self.phase == Phase::Leaving, "a connection was ended by the other side");
            self.phase = Phase::Gone;
            // Or it would be ready for ever.
            poller.remove(&self.socket)?;
            news.has_gone = true;
            return Ok(news);
        }
        let mut bytes = &buffer[..count];
        if self.phase == Phase::Handshake {
            let Some(rest) = self.handshake(bytes)? else { return Ok(news) };
            news.has_opened = true;
            bytes = &bytes[count - rest..];
        }
        news.echoes = self.read(bytes, payload, came_back)?;
        if !self.out.is_empty() && self.batch_left == 0 {
            self.flush(poller, None)?;
        }
        Ok(news)
    }

    fn read(&mut self, bytes: &[u8], payload: Option<u64>, came_back: &mut dyn FnMut(u64)) -> Result<u64> {
        let mut echoes = 0;
        let (out, expected, step, phase) = (&mut self.out, &mut self.expected, self.step, self.phase);
        self.reader.feed(bytes, |found| {
            match found {
                Found::Message { length, number } => {
                    ensure!(number == *expected, "message {number} came back instead of {expected}");
                    ensure!(payload.is_none_or(|sent| sent == length), "an echo has {length} bytes");
                    *expected += step;
                    echoes += 1;
                    came_back(number);
                }
                Found::Ping(payload) => wire::push_masked(out, Opcode::Pong, payload),
                Found::Pong => {}
                Found::Close => ensure!(phase == Phase::Leaving, "a Close frame that nobody asked for"),
            }
            Ok(())
        })?;
        ensure!(echoes <= self.awaited, "more came back than was sent");
        self.awaited -= echoes;
        Ok(echoes)
    }

    /// Returns how many bytes came behind the answer; `None` while it is not all there.
    fn handshake(&mut self, bytes: &[u8]) -> Result<Option<usize>> {
        self.head.extend_from_slice(bytes);
        let Some(end) = self.head.windows(4).position(|four| four == b"\r\n\r\n") else { return Ok(None) };
        let rest = self.head.len() - (end + 4);
        let head = String::from_utf8_lossy(&self.head[..end]);
        if !head.starts_with("HTTP/1.1 101 ") || !head.contains(ACCEPT) {
            bail!("no WebSocket here: {}", head.lines().next().unwrap_or_default());
        }
        self.head = Vec::new();
        self.phase = Phase::Open;
        Ok(Some(rest))
    }

    /// Writes the batch under way, then the rest: nothing may get between the parts of a batch.
    fn flush(&mut self, poller: &Poller, batch: Option<&mut Batch>) -> Result<()> {
        if self.batch_left > 0 {
            let Some(batch) = batch else { return Ok(()) };
            let bytes = batch.numbered(self.first);
            let left = &bytes[bytes.len() - self.batch_left..];
            self.batch_left -= write(&mut self.socket, left)?;
        }
        if self.batch_left == 0 && !self.out.is_empty() {
            let taken = write(&mut self.socket, &self.out)?;
            self.out.drain(..taken);
        }
        let is_full = self.batch_left > 0 || !self.out.is_empty();
        let interest = if is_full { Interest::Both } else { Interest::Read };
        if interest != self.interest {
            self.interest = interest;
            poller.change(&self.socket, self.token, interest)?;
        }
        Ok(())
    }
}

fn write(socket: &mut TcpStream, bytes: &[u8]) -> Result<usize> {
    match socket.write(bytes) {
        Ok(taken) => Ok(taken),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(0),
        Err(error) => Err(error).context("a connection broke"),
    }
}
