//! The app behind all proxies: answers each message with itself, once it is whole, by one write per read.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};

use anyhow::{Context, Result};
use pulsegate_core::Opcode;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::poller::{Interest, Poller, Ready};
use super::wire;
use crate::report;

const TOKEN_LISTENER: u64 = 0;
const TOKEN_STDIN: u64 = 1;
/// Tokens of peers begin here.
const TOKEN_PEERS: u64 = 2;

const READ_BYTES: usize = 256 * 1024;
/// What a peer may keep for its next message. More is given back: only a proxy's memory is of interest.
const KEPT_BYTES: usize = 128 * 1024;
/// As many as the system allows; a herd must not be held up by the app.
const BACKLOG: i32 = 4096;

struct App {
    poller: Poller,
    listener: TcpListener,
    /// By token; a place is used again.
    peers: Vec<Option<Peer>>,
    free: Vec<usize>,
    buffer: Vec<u8>,
    answers: Vec<u8>,
}

struct Peer {
    socket: TcpStream,
    is_upgraded: bool,
    is_leaving: bool,
    /// The beginning of a message, or of the request.
    kept: Vec<u8>,
    /// What the socket did not take.
    out: Vec<u8>,
}

/// Runs until stdin ends; says its address on stdout.
///
/// # Errors
/// It can't listen.
pub(crate) fn run() -> Result<()> {
    crate::machine::raise_open_files(0)?;
    let listener = listen()?;
    report::result(&listener.local_addr()?.to_string());
    let poller = Poller::new()?;
    poller.add(&listener, TOKEN_LISTENER)?;
    poller.add(std::io::stdin(), TOKEN_STDIN)?;
    let buffer = vec![0; READ_BYTES];
    let mut app = App { poller, listener, peers: Vec::new(), free: Vec::new(), buffer, answers: Vec::new() };
    let mut ready = Vec::new();
    loop {
        app.poller.wait(&mut ready, None)?;
        for one in &ready {
            match one.token {
                TOKEN_LISTENER => app.accept()?,
                TOKEN_STDIN => return Ok(()),
                _ => app.serve(*one)?,
            }
        }
    }
}

fn listen() -> Result<TcpListener> {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

impl App {
    fn accept(&mut self) -> Result<()> {
        loop {
            let socket = match self.listener.accept() {
                Ok((socket, _)) => socket,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::ConnectionAborted => continue,
                Err(error) => return Err(error).context("the app can't accept"),
            };
            socket.set_nonblocking(true)?;
            socket.set_nodelay(true)?;
            let place = self.free.pop().unwrap_or(self.peers.len());
            self.poller.add(&socket, TOKEN_PEERS + place as u64)?;
            let peer =
                Peer { socket, is_upgraded: false, is_leaving: false, kept: Vec::new(), out: Vec::new() };
            if place == self.peers.len() {
                self.peers.push(Some(peer));
            } else {
                self.peers[place] = Some(peer);
            }
        }
    }

    fn serve(&mut self, ready: Ready) -> Result<()> {
        let place = usize::try_from(ready.token - TOKEN_PEERS)?;
        let Some(peer) = self.peers.get_mut(place).and_then(Option::as_mut) else { return Ok(()) };
        let was_full = !peer.out.is_empty();
        self.answers.clear();
        let goes_on = if was_full {
            self.answers.append(&mut peer.out);
            true
        } else {
            peer.read(&mut self.buffer, &mut self.answers)
        };
        let goes_on = goes_on && peer.write(&self.answers) && !(peer.is_leaving && peer.out.is_empty());
        if !goes_on {
            // Closing the socket takes it out of the poller.
            self.peers[place] = None;
            self.free.push(place);
            return Ok(());
        }
        let is_full = !peer.out.is_empty();
        if was_full != is_full {
            // Who does not take its answers is not read: nothing piles up here.
            let interest = if is_full { Interest::Write } else { Interest::Read };
            self.poller.change(&peer.socket, ready.token, interest)?;
        }
        Ok(())
    }
}

impl Peer {
    /// Reads once; false when the peer is gone or talks nonsense.
    fn read(&mut self, buffer: &mut [u8], answers: &mut Vec<u8>) -> bool {
        let count = match self.socket.read(buffer) {
            Ok(0) => return false,
            Ok(count) => count,
            Err(error) => return error.kind() == ErrorKind::WouldBlock,
        };
        let mut kept = std::mem::take(&mut self.kept);
        if kept.is_empty() {
            let Ok(used) = self.answer(&buffer[..count], answers) else { return false };
            kept.extend_from_slice(&buffer[used..count]);
        } else {
            kept.extend_from_slice(&buffer[..count]);
            let Ok(used) = self.answer(&kept, answers) else { return false };
            kept.drain(..used);
        }
        if !kept.is_empty() || kept.capacity() <= KEPT_BYTES {
            self.kept = kept;
        }
        true
    }

    /// Appends what is to be answered, and returns how many bytes that settles.
    fn answer(&mut self, bytes: &[u8], answers: &mut Vec<u8>) -> Result<usize> {
        let mut used = 0;
        if !self.is_upgraded {
            let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else { return Ok(0) };
            answers.extend_from_slice(upgrade(&bytes[..end])?.as_bytes());
            self.is_upgraded = true;
            used = end + 4;
        }
        while let Some(frame) = wire::masked(&bytes[used..])? {
            used += frame.total;
            let opcode = match frame.opcode {
                Opcode::Ping => Opcode::Pong,
                Opcode::Pong => continue,
                other @ (Opcode::Continuation | Opcode::Text | Opcode::Binary | Opcode::Close) => other,
            };
            self.is_leaving |= opcode == Opcode::Close;
            wire::push_head(answers, opcode, frame.payload.len(), false);
            let start = answers.len();
            answers.extend_from_slice(frame.payload);
            wire::mask(&mut answers[start..], frame.key);
        }
        Ok(used)
    }

    /// Writes once and keeps the rest; false when the peer is gone.
    fn write(&mut self, answers: &[u8]) -> bool {
        if answers.is_empty() {
            return true;
        }
        let taken = match self.socket.write(answers) {
            Ok(taken) => taken,
            Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
            Err(_) => return false,
        };
        self.out = answers[taken..].to_vec();
        true
    }
}

/// The answer to a request for a WebSocket.
fn upgrade(head: &[u8]) -> Result<String> {
    let head = std::str::from_utf8(head)?;
    let key = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("sec-websocket-key").then(|| value.trim())
    });
    let accept = derive_accept_key(key.context("no request for a WebSocket")?.as_bytes());
    Ok(format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
    ))
}
