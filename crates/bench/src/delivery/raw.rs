//! A client by hand that costs little: it sends numbered texts to an app that echoes, with `pulsegate.v1` or without.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use pulsegate_core::v1::{Ack, Envelope};
use pulsegate_core::{Head, Opcode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::proxies::push_masked;

/// As the gateway asks in its WELCOME.
const ACK_EVERY: u64 = 16;
/// No answer takes this long.
const PATIENCE: Duration = Duration::from_secs(10);

/// How a client speaks with the gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    Plain,
    V1,
}

/// One connection.
pub(super) struct Raw {
    stream: TcpStream,
    mode: Mode,
    input: Vec<u8>,
    output: Vec<u8>,
    /// Messages that came, that were acknowledged by us, and of ours by the gateway.
    received: u64,
    acked: u64,
    confirmed: u64,
    sent: u64,
    /// The next message wants its ACK at once.
    is_urgent: bool,
}

impl Raw {
    /// Opens a WebSocket; with v1 it has had its WELCOME.
    ///
    /// # Errors
    /// There is no 101, or no WELCOME.
    pub(super) async fn open(gateway: SocketAddr, mode: Mode) -> Result<Raw> {
        let mut stream = TcpStream::connect(gateway).await?;
        stream.set_nodelay(true)?;
        let offer = match mode {
            Mode::Plain => "",
            Mode::V1 => "Sec-WebSocket-Protocol: pulsegate.v1\r\n",
        };
        let request = format!(
            "GET / HTTP/1.1\r\nHost: {gateway}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{offer}\r\n"
        );
        stream.write_all(request.as_bytes()).await?;
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(timeout(PATIENCE, stream.read_u8()).await.context("no answer")??);
        }
        ensure!(head.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&head));
        let (input, output) = (Vec::new(), Vec::new());
        let mut raw = Raw {
            stream,
            mode,
            input,
            output,
            received: 0,
            acked: 0,
            confirmed: 0,
            sent: 0,
            is_urgent: false,
        };
        if mode == Mode::V1 {
            raw.read_until(|raw| raw.acked == u64::MAX).await?;
            raw.acked = 0;
        }
        Ok(raw)
    }

    /// Sends so many messages at once and waits until they have come back.
    ///
    /// # Errors
    /// They don't.
    pub(super) async fn round(&mut self, messages: u64, payload: &[u8]) -> Result<()> {
        for _ in 0..messages {
            push_masked(&mut self.output, Opcode::Text, payload);
        }
        self.sent += messages;
        self.flush().await?;
        let wanted = self.received + messages;
        self.read_until(|raw| raw.received >= wanted).await?;
        ensure!(self.received == wanted, "{} came, {wanted} were sent", self.received);
        Ok(())
    }

    /// Waits until the gateway has acknowledged all that was sent.
    ///
    /// # Errors
    /// It doesn't.
    pub(super) async fn confirmed(&mut self) -> Result<()> {
        if self.mode == Mode::V1 {
            self.read_until(|raw| raw.confirmed >= raw.sent).await?;
        }
        Ok(())
    }

    /// Answers what comes, for as long as nobody wants anything else.
    ///
    /// # Errors
    /// The connection ended.
    pub(super) async fn attend(&mut self) -> Result<()> {
        loop {
            self.read().await?;
            self.take()?;
            self.flush().await?;
        }
    }

    async fn read_until(&mut self, done: impl Fn(&Raw) -> bool) -> Result<()> {
        loop {
            self.take()?;
            self.flush().await?;
            if done(self) {
                return Ok(());
            }
            timeout(PATIENCE, self.read()).await.context("nothing comes")??;
        }
    }

    async fn read(&mut self) -> Result<()> {
        ensure!(self.stream.read_buf(&mut self.input).await? > 0, "the connection ended");
        Ok(())
    }

    async fn flush(&mut self) -> Result<()> {
        if !self.output.is_empty() {
            self.stream.write_all(&self.output).await?;
            self.output.clear();
        }
        Ok(())
    }

    /// Takes all whole frames.
    fn take(&mut self) -> Result<()> {
        let input = std::mem::take(&mut self.input);
        let mut at = 0;
        while let Some(head) = Head::parse(&input[at..]).ok().flatten() {
            let end = at + head.head_len + usize::try_from(head.payload_len)?;
            let Some(payload) = input.get(at + head.head_len..end) else { break };
            self.take_frame(head.opcode, payload)?;
            at = end;
        }
        self.input = input;
        self.input.drain(..at);
        Ok(())
    }

    fn take_frame(&mut self, opcode: Opcode, payload: &[u8]) -> Result<()> {
        match opcode {
            Opcode::Text => {
                self.received += 1;
                let is_urgent = std::mem::take(&mut self.is_urgent);
                if self.mode == Mode::V1 && (is_urgent || self.received - self.acked >= ACK_EVERY) {
                    self.acknowledge(Envelope::Ack);
                }
            }
            Opcode::Binary => match Envelope::parse(payload) {
                // Nothing else has such a number.
                Ok(Envelope::Welcome(_)) => self.acked = u64::MAX,
                Ok(Envelope::Meta(meta)) => self.is_urgent = meta.ack_now,
                Ok(Envelope::Probe) => self.acknowledge(Envelope::ProbeAck),
                Ok(Envelope::Ack(ack) | Envelope::ProbeAck(ack)) => self.confirmed = ack.handled,
                Ok(_) => {}
                Err(error) => bail!("{}", error.as_str()),
            },
            Opcode::Ping => push_masked(&mut self.output, Opcode::Pong, payload),
            Opcode::Pong => {}
            Opcode::Close | Opcode::Continuation => bail!("closed: {:?}", payload.get(2..)),
        }
        Ok(())
    }

    fn acknowledge(&mut self, wrap: impl Fn(Ack) -> Envelope<'static>) {
        self.acked = self.received;
        let mut word = Vec::new();
        wrap(Ack { handled: self.received, window: None }).write(&mut word);
        push_masked(&mut self.output, Opcode::Binary, &word);
    }
}
