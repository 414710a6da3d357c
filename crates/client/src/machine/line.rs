//! Connections come and go.

use std::time::Instant;

use pulsegate_core::v1::{After, Code, OfferedResume, V1};

use super::{Machine, Phase};
use crate::event::{Event, Transmit};

const NORMAL: u16 = 1000;
const NO_CODE: u16 = 1005;

impl<T: Copy> Machine<T> {
    /// Returns the entries of `Sec-WebSocket-Protocol` for the next connection: ours, what shows the right to come back,
    /// and the app's own for a server without a gateway.
    pub fn offer(&self) -> Vec<String> {
        if let (Some(token), Some(entry)) = (self.token(), &self.agreed) {
            // A session has one subprotocol for its whole life.
            let of_app = entry.strip_prefix(V1).and_then(|rest| rest.strip_prefix('+'));
            let ours = [entry.clone(), OfferedResume::to_entry(token, self.receive.received())];
            return ours.into_iter().chain(of_app.map(ToOwned::to_owned)).collect();
        }
        let of_app = &self.config.subprotocols;
        let mut entries: Vec<String> = of_app.iter().map(|of_app| format!("{V1}+{of_app}")).collect();
        // For an app that chooses none.
        entries.push(V1.to_owned());
        entries.extend(of_app.iter().cloned());
        entries
    }

    /// Takes a connection whose handshake is done; `protocol` is what the server chose.
    pub fn handle_open(&mut self, protocol: Option<&str>, now: Instant) {
        let Phase::Down { .. } = self.phase else { return };
        self.generation += 1;
        if self.is_offered(protocol) {
            self.agreed = protocol.map(ToOwned::to_owned);
            self.phase = Phase::Greeting { until: now + self.config.welcome_within };
        } else {
            self.finish(Event::Unsupported);
        }
    }

    fn is_offered(&self, protocol: Option<&str>) -> bool {
        let Some(rest) = protocol.and_then(|protocol| protocol.strip_prefix(V1)) else { return false };
        match rest.strip_prefix('+') {
            None => rest.is_empty(),
            Some(of_app) => self.config.subprotocols.iter().any(|offered| offered == of_app),
        }
    }

    /// Takes a Close frame; `None` if it has no code.
    pub fn handle_close(&mut self, code: Option<u16>, reason: &str, now: Instant) {
        match self.phase {
            Phase::Greeting { .. } | Phase::Live => self.follow_close(code, reason, now),
            Phase::Closing { .. } | Phase::Leaving { over: true, .. } => {
                let (_, code, reason) = meaning(code, reason);
                self.finish(Event::Closed { code, reason: reason.to_owned() });
            }
            Phase::Leaving { over: false, .. } => self.detach(now),
            Phase::Down { .. } | Phase::Done => {}
        }
    }

    fn follow_close(&mut self, code: Option<u16>, reason: &str, now: Instant) {
        let (after, told, reason) = meaning(code, reason);
        match after {
            After::Resume => self.detach(now),
            After::Restart => {
                self.backoff.penalize();
                self.restart();
                self.detach(now);
            }
            After::Done if told == Some(Code::Replaced.number()) && std::mem::take(&mut self.is_astray) => {
                self.detach(now);
            }
            After::Done => self.finish(Event::Closed { code: told, reason: reason.to_owned() }),
        }
    }

    /// Takes note that the connection is gone without a Close, or that dialing failed.
    pub fn handle_lost(&mut self, now: Instant) {
        match self.phase {
            Phase::Down { .. } => {
                self.is_astray |= self.token.is_some();
                self.phase = Phase::Down { dial_at: now + self.backoff.wait() };
            }
            Phase::Greeting { .. } | Phase::Live | Phase::Leaving { over: false, .. } => self.detach(now),
            Phase::Closing { .. } | Phase::Leaving { over: true, .. } => self.finish(unagreed()),
            Phase::Done => {}
        }
    }

    /// Ends the session: what was sent goes out, then the last words and a Close with 1000. Without a connection nobody
    /// can be told: what waits has its end at once, and the gateway keeps its side for its time.
    pub fn close(&mut self, now: Instant) {
        let until = now + self.config.close_within;
        match self.phase {
            Phase::Down { .. } => self.finish(unagreed()),
            Phase::Greeting { .. } => {
                self.outbox.push_back(Transmit::Close { code: NORMAL, reason: "" });
                self.phase = Phase::Leaving { until, over: true };
            }
            Phase::Live => self.phase = Phase::Closing { until, bye: false },
            Phase::Leaving { until, .. } => self.phase = Phase::Leaving { until, over: true },
            Phase::Closing { .. } | Phase::Done => {}
        }
    }

    /// The gateway broke the protocol: what is known of the session is worth nothing any more.
    pub(super) fn violate(&mut self, reason: &'static str, now: Instant) {
        if matches!(self.phase, Phase::Closing { bye: true, .. }) && self.outbox.is_empty() {
            // Nothing may follow our Close (RFC 6455 section 5.5.1).
            return;
        }
        self.leave(now);
        self.outbox.push_back(Transmit::Close { code: Code::ProtocolError.number(), reason });
        self.backoff.penalize();
        self.restart();
    }

    /// Waits for the other side's Close, and for nothing else.
    pub(super) fn leave(&mut self, now: Instant) {
        let over = matches!(self.phase, Phase::Closing { .. });
        self.let_go();
        self.phase = Phase::Leaving { until: now + self.config.close_within, over };
    }

    /// Forgets the session; the next connection begins a new one. What waits for the first session goes on waiting.
    pub(super) fn restart(&mut self) {
        if self.token.is_some() {
            let undelivered = self.forget_session();
            self.events.put_reset(undelivered);
        }
    }

    fn detach(&mut self, now: Instant) {
        self.let_go();
        self.phase = Phase::Down { dial_at: now + self.backoff.wait() };
    }

    /// Leaves nothing that belongs to the connection.
    fn let_go(&mut self) {
        self.outbox.clear();
        self.next_is_urgent = false;
        if self.phase == Phase::Live {
            self.events.put_state(Event::Detached);
        }
    }

    fn finish(&mut self, last: Event) {
        self.outbox.clear();
        self.forget_session();
        self.phase = Phase::Done;
        self.events.put_state(last);
    }
}

/// Returns what follows a Close, and whose code and reason to tell: the app's own, if it was the one that closed.
fn meaning(code: Option<u16>, reason: &str) -> (After, Option<u16>, &str) {
    if code == Some(Code::AppClosed.number()) {
        return After::app_close(reason);
    }
    // A Close without a code is one all the same: 1005 (RFC 6455 section 7.1.5), and no cut.
    (After::close(code.or(Some(NO_CODE))), code, reason)
}

fn unagreed() -> Event {
    Event::Closed { code: None, reason: String::new() }
}
