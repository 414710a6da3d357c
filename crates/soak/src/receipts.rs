//! What was claimed of messages to unmodified clients, and what they have read; the judge of it.
//!
//! Several are under way to one client at a time: their order is not judged.

use std::sync::Mutex;

use crate::history::{Outcome, Ranges, lock};

/// Messages to unmodified clients. What is found wrong is told as text.
#[derive(Debug)]
pub struct Receipts {
    books: Vec<Mutex<Book>>,
}

#[derive(Debug, Default)]
struct Book {
    sent: u64,
    /// Told: the client's stack has read it.
    received: Ranges,
    /// Told: it never left, or was not accepted.
    never: Ranges,
    /// Told: nobody knows.
    unknown: Ranges,
    /// The client has read it.
    read: Ranges,
    found: Vec<String>,
}

/// Sums over all clients.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReceiptTotals {
    /// Messages.
    pub sent: u64,
    /// Told: received.
    pub received: u64,
    /// Told: never.
    pub never: u64,
    /// Told: nobody knows.
    pub unknown: u64,
    /// Of these, read all the same.
    pub unknown_and_read: u64,
    /// Read.
    pub read: u64,
}

impl Receipts {
    /// Begins with so many clients.
    pub fn new(clients: usize) -> Receipts {
        Receipts { books: (0..clients).map(|_| Mutex::default()).collect() }
    }

    /// The next message to a client is about to be sent; returns its number.
    pub fn send(&self, client: usize) -> u64 {
        let mut book = lock(&self.books[client]);
        book.sent += 1;
        book.sent
    }

    /// The gateway has told the outcome.
    pub fn settle(&self, client: usize, number: u64, outcome: Outcome) {
        let mut book = lock(&self.books[client]);
        let told = [&book.received, &book.never, &book.unknown].iter().any(|told| told.contains(number));
        if told || number == 0 || number > book.sent {
            book.found.push(format!(
                "plain client {client}: {outcome:?} is told of {number}: a second outcome, or never sent"
            ));
        }
        match outcome {
            Outcome::Delivered => book.received.insert(number, number),
            Outcome::NotSent | Outcome::Rejected => book.never.insert(number, number),
            Outcome::Unknown => book.unknown.insert(number, number),
        }
    }

    /// A client has read a message of so many bytes.
    pub fn read(&self, client: usize, number: u64, bytes: usize) {
        let Some(book) = self.books.get(client) else { return };
        let mut book = lock(book);
        let sent = book.sent;
        if number == 0 || number > sent {
            book.found.push(format!("plain client {client}: it read {number}, {sent} were sent"));
        } else if bytes != payload(client, number).len() {
            book.found.push(format!("plain client {client}: it read {bytes} bytes as {number}"));
        } else if book.read.contains(number) {
            book.found.push(format!("plain client {client}: it read {number} twice"));
        }
        book.read.insert(number, number);
    }

    /// Whether each message has its outcome.
    pub fn is_settled(&self) -> bool {
        let told = |book: &Book| book.received.len() + book.never.len() + book.unknown.len();
        self.books.iter().all(|book| {
            let book = lock(book);
            told(&book) == book.sent || !book.found.is_empty()
        })
    }

    /// Judges the whole, when the clients have told all that they read.
    pub fn finish(&self) -> Vec<String> {
        let mut found = Vec::new();
        for (client, book) in self.books.iter().enumerate() {
            let book = lock(book);
            found.extend(book.found.iter().cloned());
            let told = book.received.len() + book.never.len() + book.unknown.len();
            if told != book.sent {
                found.push(format!("plain client {client}: {told} outcomes for {} messages", book.sent));
            }
            for number in book.received.iter().filter(|&number| !book.read.contains(number)) {
                found.push(format!(
                    "plain client {client}: {number} was told as received, and it never read it"
                ));
            }
            for number in book.never.iter().filter(|&number| book.read.contains(number)) {
                found.push(format!("plain client {client}: {number} was told as never sent, and it read it"));
            }
        }
        found
    }

    /// Adds up.
    pub fn totals(&self) -> ReceiptTotals {
        let mut totals = ReceiptTotals::default();
        for book in &self.books {
            let book = lock(book);
            totals.sent += book.sent;
            totals.received += book.received.len();
            totals.never += book.never.len();
            totals.unknown += book.unknown.len();
            totals.unknown_and_read +=
                book.unknown.iter().filter(|&number| book.read.contains(number)).count() as u64;
            totals.read += book.read.len();
        }
        totals
    }
}

/// Returns what such a message says: its number first.
pub(crate) fn payload(client: usize, number: u64) -> String {
    let size = crate::message::mix(client as u64 ^ (number << 20))
        % if number.is_multiple_of(8) { 3000 } else { 100 };
    format!("{number} {}", "x".repeat(size as usize))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MESSAGES: u64 = 400;

    type Bug<'a> = &'a dyn Fn(&Receipts);

    /// All are sent, most read and told so; then a bug.
    fn run(bug: impl Fn(&Receipts)) -> Vec<String> {
        let receipts = Receipts::new(2);
        for client in 0..2 {
            for _ in 0..MESSAGES {
                let number = receipts.send(client);
                let (outcome, is_read) = match number % 8 {
                    0 => (Outcome::NotSent, false),
                    1 => (Outcome::Unknown, true),
                    2 => (Outcome::Unknown, false),
                    _ => (Outcome::Delivered, true),
                };
                receipts.settle(client, number, outcome);
                if is_read {
                    receipts.read(client, number, payload(client, number).len());
                }
            }
        }
        bug(&receipts);
        receipts.finish()
    }

    #[test]
    fn an_honest_run_is_found_honest() {
        assert_eq!(run(|receipts| assert!(receipts.is_settled())), Vec::<String>::new());
    }

    #[test]
    fn each_planted_bug_is_found() {
        let read = |receipts: &Receipts, number| receipts.read(1, number, payload(1, number).len());
        let bugs: [(Bug<'_>, &str); 7] = [
            (&|receipts| receipts.settle(1, receipts.send(1), Outcome::Delivered), "never read it"),
            (&|receipts| read(receipts, 8), "told as never sent"),
            (&|receipts| read(receipts, 3), "twice"),
            (&|receipts| read(receipts, MESSAGES + 1), "were sent"),
            (&|receipts| receipts.read(1, 2, 1), "bytes as 2"),
            (&|receipts| receipts.settle(1, 3, Outcome::Delivered), "second outcome"),
            (&|receipts| assert_eq!(receipts.send(1), MESSAGES + 1), "400 outcomes for 401"),
        ];
        for (bug, expected) in bugs {
            let found = run(bug);
            assert!(found.len() == 1 && found[0].contains(expected), "{expected}: {found:?}");
        }
    }
}
