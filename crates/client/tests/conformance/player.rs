//! Plays a script against the machine: a clock that stands until it is moved, and a connection that is two lists.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use pulsegate_client::{ClientConfig, Event, Frame, Machine, SendError, Transmit};
use pulsegate_core::Sent;
use pulsegate_core::v1::{Fate, NackCode, Outgoing, Window};

use crate::compare::{Output, compare_events, compare_frames, compare_offer, compare_outcomes};
use crate::format::{self, Dial, Expect, Outcome, Script, Settings, Step, Submission, True};

/// The clock is moved from timer to timer; a machine that wants more of them in one step is in a loop.
const TIMERS_MAX: usize = 10_000;

pub(crate) struct Player {
    machine: Machine<usize>,
    now: Instant,
    line: Line,
    /// When there was no connection any more.
    gone_at: Instant,
    /// The messages of the application, which are named by their places here.
    ids: Vec<String>,
    /// What found no room waits here, as in front of any client.
    waiting: VecDeque<Outgoing<usize>>,
    handled: u64,
    frames: Vec<Output>,
    events: Vec<Event>,
    outcomes: Vec<Outcome>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Line {
    None,
    Dialing,
    Up,
}

/// Plays a script to its end. An error says at which step and why.
pub(crate) fn play(script: &Script, seed: u64) -> Result<(), String> {
    let mut player = Player::new(&script.client, seed);
    for (place, step) in script.steps.iter().enumerate() {
        player.step(step).map_err(|error| format!("step {place}: {error}\n  {step:?}"))?;
    }
    // What no step has asked for must not have been.
    player.expect(&Expect::default()).map_err(|error| format!("at the end: {error}"))
}

impl Player {
    #[allow(clippy::disallowed_methods, reason = "an origin for virtual time; nothing here waits")]
    fn new(settings: &Settings, seed: u64) -> Player {
        let now = Instant::now();
        Player {
            machine: Machine::new(config(settings), seed, now),
            now,
            line: Line::None,
            gone_at: now,
            ids: Vec::new(),
            waiting: VecDeque::new(),
            handled: 0,
            frames: Vec::new(),
            events: Vec::new(),
            outcomes: Vec::new(),
        }
    }

    fn step(&mut self, step: &Step) -> Result<(), String> {
        match step {
            Step::Dial(dial) => self.dial(dial)?,
            Step::Open(open) => {
                self.want(Line::Dialing)?;
                self.line = Line::Up;
                self.machine.handle_open(open.protocol.as_deref(), self.now);
            }
            Step::Recv(frame) => {
                self.want(Line::Up)?;
                match frame.bytes()? {
                    (true, bytes) => {
                        let text = str::from_utf8(&bytes).map_err(|error| error.to_string())?;
                        self.machine.handle_text(text, self.now);
                    }
                    (false, bytes) => self.machine.handle_binary(&bytes, self.now),
                }
            }
            Step::Close(close) => {
                self.want(Line::Up)?;
                self.hang_up();
                self.machine.handle_close(close.code, &close.reason, self.now);
            }
            Step::Lost(True) => {
                if self.line == Line::None {
                    return Err("there is no connection".to_owned());
                }
                self.hang_up();
                self.machine.handle_lost(self.now);
            }
            Step::Send(submission) => self.send(submission)?,
            Step::Handled(count) => {
                self.handled += count;
                self.machine.handled(self.handled, self.now);
            }
            Step::Finish(True) => self.machine.close(self.now),
            Step::AdvanceMs(ms) => self.advance(self.now + Duration::from_millis(*ms))?,
            Step::SleepMs(ms) => {
                self.now += Duration::from_millis(*ms);
                self.machine.handle_timeout(self.now);
            }
            Step::Expect(expect) => self.expect(expect)?,
            Step::ExpectDone(True) => {
                let dials = self.machine.poll_connect_at().is_some();
                if !self.machine.is_done() || dials || self.line != Line::None {
                    return Err("the client is not done".to_owned());
                }
            }
        }
        self.settle();
        Ok(())
    }

    fn dial(&mut self, dial: &Dial) -> Result<(), String> {
        self.want(Line::None)?;
        let at = self.machine.poll_connect_at().ok_or("the client does not dial")?;
        let waited = at.saturating_duration_since(self.gone_at);
        let [min, max] = dial.after_ms.map(Duration::from_millis);
        if waited < min || waited > max {
            return Err(format!("the client dials after {waited:?}"));
        }
        self.advance(at.max(self.now))?;
        self.line = Line::Dialing;
        compare_offer(dial, &self.machine.offer())
    }

    fn send(&mut self, submission: &Submission) -> Result<(), String> {
        let (text, payload) = submission.bytes()?;
        let key = submission.key.as_deref().map(format::hex).transpose()?;
        self.waiting.push_back(Outgoing {
            text,
            payload: payload.into(),
            expires_at: submission.ttl_ms.map(|ms| self.now + Duration::from_millis(ms)),
            ack_now: submission.ack_now,
            key: key.map(Vec::into_boxed_slice),
            tag: Some(self.ids.len()),
        });
        self.ids.push(submission.id.clone());
        Ok(())
    }

    fn advance(&mut self, until: Instant) -> Result<(), String> {
        for _ in 0..TIMERS_MAX {
            let Some(at) = self.machine.poll_timeout().filter(|at| *at <= until) else {
                self.now = until;
                return Ok(());
            };
            self.now = self.now.max(at);
            self.machine.handle_timeout(self.now);
            self.settle();
        }
        Err("the client's timers never end".to_owned())
    }

    /// Lets the client do all that it does before it waits.
    fn settle(&mut self) {
        loop {
            let before = (self.frames.len(), self.events.len(), self.outcomes.len());
            self.events.extend(std::iter::from_fn(|| self.machine.poll_event(self.now)));
            self.submit();
            if self.line == Line::Up {
                while let Some(transmit) = self.machine.poll_transmit(self.now) {
                    self.frames.push(match transmit {
                        Transmit::Frame(Frame { text, payload }) => Output::Frame { text, payload },
                        Transmit::Close { code, .. } => Output::Close(code),
                    });
                }
                if !self.machine.is_attached() {
                    self.frames.push(Output::Drop);
                    self.hang_up();
                }
            }
            while let Some((tag, fate)) = self.machine.poll_fate() {
                self.outcomes.push(outcome(self.ids[tag].clone(), fate));
            }
            if before == (self.frames.len(), self.events.len(), self.outcomes.len()) {
                return;
            }
        }
    }

    fn submit(&mut self) {
        while let Some(first) = self.waiting.front() {
            match self.machine.send(first.clone(), self.now) {
                Err(SendError::Full) => return,
                Ok(_) => {}
                Err(SendError::Closed | SendError::Key | SendError::Text) => {
                    let id = self.ids[first.tag.expect("each has its name")].clone();
                    self.outcomes.push(Outcome::NotTaken { id });
                }
            }
            self.waiting.pop_front();
        }
    }

    fn expect(&mut self, expect: &Expect) -> Result<(), String> {
        compare_frames(&expect.frames, &std::mem::take(&mut self.frames))?;
        compare_events(&expect.events, &std::mem::take(&mut self.events))?;
        compare_outcomes(&expect.outcomes, &std::mem::take(&mut self.outcomes))
    }

    fn want(&self, line: Line) -> Result<(), String> {
        if self.line == line { Ok(()) } else { Err(format!("the connection is {:?}", self.line)) }
    }

    fn hang_up(&mut self) {
        (self.line, self.gone_at) = (Line::None, self.now);
    }
}

fn config(settings: &Settings) -> ClientConfig {
    ClientConfig {
        subprotocols: settings.subprotocols.clone(),
        window: Window { messages: settings.window_messages, bytes: settings.window_kib * 1024 },
        confirm_within: Duration::from_millis(settings.confirm_within_ms),
        close_within: Duration::from_millis(settings.close_within_ms),
        backoff_min: Duration::from_millis(settings.backoff_min_ms),
        backoff_max: Duration::from_millis(settings.backoff_max_ms),
        manual_ack: settings.manual_ack,
        ..ClientConfig::default()
    }
}

fn outcome(id: String, fate: Fate) -> Outcome {
    match fate {
        Fate::Handled => Outcome::Delivered { id },
        Fate::Refused(code) => Outcome::Rejected { id, code: code_number(code) },
        Fate::Expired(Sent::No) => Outcome::Expired { id, sent: format::Sent::No },
        Fate::Expired(Sent::Maybe) => Outcome::Expired { id, sent: format::Sent::Maybe },
    }
}

fn code_number(code: NackCode) -> u64 {
    match code {
        NackCode::Expired => 1,
        NackCode::AppGone => 2,
        NackCode::Other(code) => code,
    }
}
