//! What each side of each session sent, got and was told, and the judge of it.
//!
//! Recorded while it happens, from any thread; most faults are found at once. What was sent and did not come is judged
//! by [`History::finish`], when the network has healed and all is quiet. It keeps counters and ranges, not messages.

mod ranges;
#[cfg(test)]
mod tests;
mod track;

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

pub(crate) use self::ranges::Ranges;
use self::track::Track;

/// Complaints that are kept; further ones are only counted.
const COMPLAINTS_MAX: usize = 100;

/// Which way a message goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// From a client to the app.
    ToApp,
    /// From the app to a client.
    ToClient,
}

impl Way {
    /// Both.
    pub const BOTH: [Way; 2] = [Way::ToApp, Way::ToClient];

    /// Returns its name in messages.
    pub fn as_str(self) -> &'static str {
        match self {
            Way::ToApp => "to_app",
            Way::ToClient => "to_client",
        }
    }
}

/// What a sender was told of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The app has it.
    Delivered,
    /// It expired and never left.
    NotSent,
    /// It may have arrived or not.
    Unknown,
    /// It was refused, and never reached the app.
    Rejected,
}

/// What can be wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wrong {
    /// It did not come, and nobody was told that it might not.
    Lost,
    /// It came, or was told of, and was never sent.
    NeverSent,
    /// It came to somebody else.
    Another,
    /// Not every byte is as it was.
    Changed,
    /// It came behind a later one.
    Order,
    /// It came twice.
    Twice,
    /// It was acknowledged, and the app does not have it.
    FalseAck,
    /// It was told as never delivered, and the app has it.
    FalseExpiry,
    /// It has two outcomes.
    SecondOutcome,
    /// It has none.
    NoOutcome,
    /// A session has two owners.
    Owners,
    /// Something came on a connection that a newer one has replaced.
    OldConnection,
    /// A session ended that should live.
    Ended,
    /// The registry lists something else than what there is.
    Registry,
}

/// One thing that is wrong.
#[derive(Debug, PartialEq, Eq)]
struct Found(Wrong, String);

impl Wrong {
    fn of(self, text: String) -> Found {
        Found(self, text)
    }
}

/// What was found, when and with whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Complaint {
    /// Since the beginning.
    pub at: Duration,
    /// Whose session.
    pub client: usize,
    /// What.
    pub wrong: Wrong,
    /// In words.
    pub text: String,
}

impl fmt::Display for Complaint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.3} s, client {}: {:?}: {}", self.at.as_secs_f64(), self.client, self.wrong, self.text)
    }
}

/// Sums over all clients.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Messages sent, per way.
    pub sent: [u64; 2],
    /// Messages that came out, per way.
    pub arrived: [u64; 2],
    /// Outcomes of the clients' messages: delivered, never delivered, unknown.
    pub outcomes: [u64; 3],
    /// Clients that came back.
    pub resumes: u64,
    /// Ranges of numbers that are kept, all told.
    pub pieces: usize,
}

/// The history of a run.
#[derive(Debug)]
pub struct History {
    start: Instant,
    books: Vec<Mutex<Book>>,
    complaints: Mutex<(Vec<Complaint>, u64)>,
}

/// The history of one client's session.
#[derive(Debug, Default)]
struct Book {
    tracks: [Track; 2],
    /// The app's connections for this client so far, and how many of them are open.
    app_connections: (u64, u64),
    /// The client's connections so far.
    lines: u64,
    resumes: u64,
    is_over: bool,
}

impl History {
    /// Begins a history of so many clients, each with one session.
    pub fn new(clients: usize, now: Instant) -> History {
        let books = (0..clients).map(|_| Mutex::default()).collect();
        History { start: now, books, complaints: Mutex::default() }
    }

    /// The next message of a client or the app is about to leave; returns its number.
    pub fn send(&self, client: usize, way: Way) -> u64 {
        self.book(client).tracks[way as usize].send()
    }

    /// A message came out, at the client's end on its `connection`th line, at the app's on its `connection`th for this
    /// client.
    pub fn arrive(&self, client: usize, way: Way, connection: u64, text: bool, payload: &[u8], now: Instant) {
        let mut book = self.book(client);
        let newest = match way {
            Way::ToApp => book.app_connections.0,
            Way::ToClient => book.lines,
        };
        let judged =
            match connection == newest {
                true => book.tracks[way as usize].arrive(client, way, text, payload),
                false => Err(Wrong::OldConnection
                    .of(format!("a message came on {connection}, {newest} is the newest"))),
            };
        self.judge(client, judged.map_err(|found| with_way(found, way)), now);
    }

    /// The client is told of the end of one of its messages.
    pub fn settle(&self, client: usize, number: u64, outcome: Outcome, now: Instant) {
        let judged = self.book(client).tracks[Way::ToApp as usize].settle(number, outcome);
        self.judge(client, judged, now);
    }

    /// The app has got a connection for the client; returns which.
    pub fn app_opened(&self, client: usize, now: Instant) -> u64 {
        let mut book = self.book(client);
        book.app_connections.0 += 1;
        book.app_connections.1 += 1;
        let (opened, open) = book.app_connections;
        drop(book);
        if open > 1 {
            self.complain(client, Wrong::Owners.of(format!("{open} connections to the app at once")), now);
        } else if opened > 1 {
            self.complain(client, Wrong::Ended.of("the app sees a second session".to_owned()), now);
        }
        opened
    }

    /// A connection to the app ended. It may only when the client is done.
    pub fn app_closed(&self, client: usize, now: Instant) {
        let mut book = self.book(client);
        book.app_connections.1 = book.app_connections.1.saturating_sub(1);
        let is_over = book.is_over;
        drop(book);
        if !is_over {
            self.complain(client, Wrong::Ended.of("the app lost the session".to_owned()), now);
        }
    }

    /// The gateway has greeted the client; returns which of its lines this is.
    pub fn live(&self, client: usize, resumed: bool, now: Instant) -> u64 {
        let mut book = self.book(client);
        book.resumes += u64::from(resumed);
        book.lines += 1;
        let line = book.lines;
        drop(book);
        if !resumed && line > 1 {
            self.complain(client, Wrong::Ended.of("the client came back to another session".to_owned()), now);
        }
        line
    }

    /// The client is done with its session from here on.
    pub fn over(&self, client: usize) {
        self.book(client).is_over = true;
    }

    /// Somebody was told that a session is over which is not.
    pub fn ended(&self, client: usize, why: String, now: Instant) {
        self.complain(client, Wrong::Ended.of(why), now);
    }

    /// Returns how many messages of a client's were sent and have not come.
    pub fn ahead(&self, client: usize, way: Way) -> u64 {
        let track = &self.book(client).tracks[way as usize];
        track.sent() - track.arrived()
    }

    /// Whether all that was sent has come, and every outcome is known, or something is already found wrong.
    pub fn is_settled(&self) -> bool {
        self.complaint_count() > 0 || self.books.iter().all(|book| lock(book).is_settled())
    }

    /// Judges the whole, when the network has healed and nothing moves any more. `listed`: the clients of the sessions
    /// that the registry lists, in any order.
    pub fn finish(&self, listed: &[usize], now: Instant) {
        for (client, book) in self.books.iter().enumerate() {
            for way in Way::BOTH {
                for found in lock(book).tracks[way as usize].finish(way) {
                    self.complain(client, with_way(found, way), now);
                }
            }
            let entries = listed.iter().filter(|&&one| one == client).count();
            if entries != 1 {
                self.complain(
                    client,
                    Wrong::Registry.of(format!("the registry lists it {entries} times")),
                    now,
                );
            }
        }
        for &stranger in listed.iter().filter(|&&one| one >= self.books.len()) {
            self.complain(stranger, Wrong::Registry.of("the registry lists a stranger".to_owned()), now);
        }
    }

    /// Returns the first complaints, in order.
    pub fn complaints(&self) -> Vec<Complaint> {
        lock(&self.complaints).0.clone()
    }

    /// Returns how many there are.
    pub fn complaint_count(&self) -> u64 {
        lock(&self.complaints).1
    }

    /// Adds up.
    pub fn totals(&self) -> Totals {
        let mut totals = Totals::default();
        for book in &self.books {
            let book = lock(book);
            for way in Way::BOTH {
                let track = &book.tracks[way as usize];
                totals.sent[way as usize] += track.sent();
                totals.arrived[way as usize] += track.arrived();
                totals.pieces += track.pieces();
            }
            let outcomes = book.tracks[Way::ToApp as usize].outcomes();
            for (sum, count) in totals.outcomes.iter_mut().zip(outcomes) {
                *sum += count;
            }
            totals.resumes += book.resumes;
        }
        totals
    }

    /// Returns the fewest and the most messages that a client sent and got.
    pub fn spread(&self, way: Way) -> (u64, u64) {
        let arrived = |book: &Mutex<Book>| lock(book).tracks[way as usize].arrived();
        let counts = self.books.iter().map(arrived);
        (counts.clone().min().unwrap_or(0), counts.max().unwrap_or(0))
    }

    fn book(&self, client: usize) -> MutexGuard<'_, Book> {
        lock(&self.books[client])
    }

    fn judge(&self, client: usize, judged: Result<(), Found>, now: Instant) {
        if let Err(found) = judged {
            self.complain(client, found, now);
        }
    }

    fn complain(&self, client: usize, Found(wrong, text): Found, now: Instant) {
        let mut complaints = lock(&self.complaints);
        complaints.1 += 1;
        if complaints.0.len() < COMPLAINTS_MAX {
            let at = now.saturating_duration_since(self.start);
            complaints.0.push(Complaint { at, client, wrong, text });
        }
    }
}

impl Book {
    fn is_settled(&self) -> bool {
        Way::BOTH.into_iter().all(|way| self.tracks[way as usize].is_settled(way))
    }
}

fn with_way(Found(wrong, text): Found, way: Way) -> Found {
    Found(wrong, format!("{}: {text}", way.as_str()))
}

/// Locks, also after a panic elsewhere: nothing is left half changed under these locks.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
