//! How others reach the task that owns a session.

use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use pulsegate_core::{CloseFrame, EndReason};
use pulsegate_registry::{Hello, Message};

use crate::front::Place;

/// Asks a session to end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct EndOrder {
    pub(crate) reason: EndReason,
    pub(crate) frame: CloseFrame,
}

/// Why a message is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The session is over.
    Ended,
    /// So many of its messages have no end yet that there is no room.
    Full,
}

/// How much may be without an end, for one session.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Room {
    pub(crate) messages: usize,
    pub(crate) bytes: usize,
}

/// A mailbox for messages to the client, and for the order to end, of which the first one counts.
#[derive(Debug, Default)]
pub(crate) struct Mailbox {
    /// Nothing for a session to which nobody ever wrote.
    letters: Mutex<Option<Box<Letters>>>,
    waker: AtomicWaker,
}

#[derive(Debug, Default)]
struct Letters {
    end: Option<EndOrder>,
    /// Asks it to end unless its client is there.
    eviction: Option<CloseFrame>,
    /// There was an order to end.
    ending: bool,
    messages: Vec<Message>,
    arrivals: Vec<Arrival>,
    app: Option<AppArrival>,
    /// Messages that have no end yet, and their bytes.
    open: usize,
    open_bytes: usize,
    /// The task is gone.
    closed: bool,
}

/// What a session's task finds in its mailbox.
#[derive(Debug, Default)]
pub(super) struct Mail {
    pub(super) end: Option<EndOrder>,
    pub(super) eviction: Option<CloseFrame>,
    pub(super) messages: Vec<Message>,
    pub(super) arrivals: Vec<Arrival>,
    pub(super) app: Option<AppArrival>,
}

/// A connection of a client that wants its session back.
#[derive(Debug)]
pub(crate) struct Arrival {
    pub(crate) hello: Hello,
    pub(crate) peer: SocketAddr,
    /// It goes to the thread of the session.
    pub(crate) stream: std::net::TcpStream,
    /// What came right behind the request.
    pub(crate) early: Bytes,
    pub(crate) place: Place,
}

/// What came of dialing the app again.
#[derive(Debug)]
pub(crate) enum AppArrival {
    /// Another connection.
    Here {
        /// It goes to the thread of the session.
        stream: std::net::TcpStream,
        /// What came right behind the app's 101.
        early: Bytes,
    },
    /// Nothing: it is to be tried again.
    Later,
    /// The app doesn't want the session any more; what its client is told.
    Refused(Box<str>),
}

/// A client that comes back so many times before its session looks is served the last time.
const ARRIVALS_MAX: usize = 4;

impl Mailbox {
    /// Leaves the order to end and wakes the session's task; returns whether it was the first.
    pub(crate) fn end(&self, reason: EndReason, frame: CloseFrame) -> bool {
        let mut lock = self.lock();
        let letters = lock.get_or_insert_default();
        let first = !std::mem::replace(&mut letters.ending, true);
        if first {
            letters.end = Some(EndOrder { reason, frame });
        }
        drop(lock);
        self.waker.wake();
        first
    }

    /// Asks a session to end that waits for its client, and wakes its task. If the client is back by then, it stays.
    pub(crate) fn evict(&self, frame: CloseFrame) {
        self.lock().get_or_insert_default().eviction = Some(frame);
        self.waker.wake();
    }

    /// Leaves a message and wakes the session's task.
    ///
    /// # Errors
    /// The session can't take it; it gets no end.
    pub(crate) fn send(&self, message: Message, room: Room) -> Result<(), Refusal> {
        let mut lock = self.lock();
        let letters = lock.get_or_insert_default();
        if letters.closed {
            return Err(Refusal::Ended);
        }
        let bytes = letters.open_bytes.saturating_add(message.payload.len());
        if letters.open >= room.messages || (letters.open > 0 && bytes > room.bytes) {
            return Err(Refusal::Full);
        }
        letters.open += 1;
        letters.open_bytes = bytes;
        letters.messages.push(message);
        drop(lock);
        self.waker.wake();
        Ok(())
    }

    /// Leaves a connection and wakes the session's task.
    ///
    /// # Errors
    /// The session is over.
    pub(crate) fn arrive(&self, arrival: Arrival) -> Result<(), Box<Arrival>> {
        let mut lock = self.lock();
        let letters = lock.get_or_insert_default();
        if letters.closed {
            return Err(Box::new(arrival));
        }
        if letters.arrivals.len() == ARRIVALS_MAX {
            letters.arrivals.remove(0);
        }
        letters.arrivals.push(arrival);
        drop(lock);
        self.waker.wake();
        Ok(())
    }

    /// Leaves what came of dialing the app again and wakes the session's task. A session that is over needs none.
    pub(crate) fn app_arrive(&self, arrival: AppArrival) {
        let mut lock = self.lock();
        let letters = lock.get_or_insert_default();
        if !letters.closed {
            letters.app = Some(arrival);
        }
        drop(lock);
        self.waker.wake();
    }

    /// Returns whether the session is over.
    pub(crate) fn is_closed(&self) -> bool {
        self.lock().as_ref().is_some_and(|letters| letters.closed)
    }

    /// A message of so many bytes has its end, which makes room for another.
    pub(super) fn release(&self, bytes: usize) {
        if let Some(letters) = &mut *self.lock() {
            letters.open = letters.open.saturating_sub(1);
            letters.open_bytes = letters.open_bytes.saturating_sub(bytes);
        }
    }

    /// Registers the task to be woken, then looks.
    pub(super) fn poll(&self, waker: &Waker) -> Option<Mail> {
        self.waker.register(waker);
        let mut lock = self.lock();
        let letters = lock.as_mut()?;
        let mail = Mail {
            end: letters.end.take(),
            eviction: letters.eviction.take(),
            messages: std::mem::take(&mut letters.messages),
            arrivals: std::mem::take(&mut letters.arrivals),
            app: letters.app.take(),
        };
        let Mail { end, eviction, messages, arrivals, app } = &mail;
        let is_empty = end.is_none()
            && eviction.is_none()
            && messages.is_empty()
            && arrivals.is_empty()
            && app.is_none();
        (!is_empty).then_some(mail)
    }

    /// Takes nothing from now on; returns what nobody has looked at.
    pub(super) fn close(&self) -> Mail {
        let mut lock = self.lock();
        let letters = lock.get_or_insert_default();
        letters.closed = true;
        Mail {
            end: None,
            eviction: None,
            messages: std::mem::take(&mut letters.messages),
            arrivals: std::mem::take(&mut letters.arrivals),
            app: letters.app.take(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Box<Letters>>> {
        self.letters.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pulsegate_core::{IdSource, Level};

    const ROOM: Room = Room { messages: 2, bytes: 10 };

    #[allow(clippy::disallowed_methods, reason = "a time that nothing waits for")]
    fn message(bytes: usize) -> Message {
        Message {
            id: IdSource::new(1, 1).next_message(),
            text: true,
            payload: Bytes::from(vec![b'x'; bytes]),
            level: Level::Received,
            expires_at: std::time::Instant::now(),
        }
    }

    #[test]
    fn room_is_for_what_has_no_end_yet() {
        let mailbox = Mailbox::default();
        // One that is larger than all the room is no worse than many small ones.
        assert_eq!(mailbox.send(message(11), ROOM), Ok(()));
        assert_eq!(mailbox.send(message(1), ROOM), Err(Refusal::Full));
        assert_eq!(mailbox.poll(Waker::noop()).map(|mail| mail.messages.len()), Some(1));
        assert!(mailbox.poll(Waker::noop()).is_none());
        mailbox.release(11);
        assert_eq!(mailbox.send(message(5), ROOM), Ok(()));
        assert_eq!(mailbox.send(message(5), ROOM), Ok(()));
        assert_eq!(mailbox.send(message(0), ROOM), Err(Refusal::Full));
    }

    #[test]
    fn a_session_that_is_over_takes_nothing() {
        let mailbox = Mailbox::default();
        mailbox.send(message(1), ROOM).unwrap();
        assert_eq!(mailbox.close().messages.len(), 1);
        assert_eq!(mailbox.send(message(1), ROOM), Err(Refusal::Ended));
    }

    #[test]
    fn an_eviction_is_a_wish_and_not_yet_an_end() {
        let mailbox = Mailbox::default();
        mailbox.evict(CloseFrame::new(4408, "no room"));
        let mail = mailbox.poll(Waker::noop()).unwrap();
        assert!(mail.eviction.is_some() && mail.end.is_none());
        assert!(mailbox.end(EndReason::Kicked, CloseFrame::new(4001, "first")));
    }

    #[test]
    fn the_first_order_to_end_counts() {
        let mailbox = Mailbox::default();
        assert!(mailbox.end(EndReason::Kicked, CloseFrame::new(4001, "first")));
        assert!(!mailbox.end(EndReason::Drained, CloseFrame::new(1012, "second")));
        let end = mailbox.poll(Waker::noop()).and_then(|mail| mail.end);
        assert_eq!(end.map(|order| order.frame.code), Some(4001));
    }
}
