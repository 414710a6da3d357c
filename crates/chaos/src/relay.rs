//! The driver of one connection: both sockets, in one task.
//!
//! Each turn reads and writes what can be read and written at once, under the connection's lock; then the
//! task waits for the sockets, for the links' next due time, or for a control.

use std::future::pending;
use std::io;
use std::net::{Shutdown, SocketAddr};
use std::time::{Duration, Instant};

use socket2::SockRef;
use tokio::io::Interest;
use tokio::net::TcpStream;

use crate::connection::{Connection, Pipe};
use crate::faults::Direction;
use crate::link::{Due, End, Intake, Link};

/// Most bytes per read; the buffer lives on the stack, for the length of the call.
const READ_BYTES_MAX: usize = 16 * 1024;

/// How long the target may take to accept.
const DIAL_MAX: Duration = Duration::from_secs(5);

/// How long an end that the proxy closed on may go on sending. Closing at once would answer its bytes with
/// an RST, which can destroy what it has not read yet.
const DRAIN_MAX: Duration = Duration::from_secs(1);

/// Serves a connection to its end. Dropping the future closes both sockets.
pub(crate) async fn run(client: TcpStream, target: SocketAddr, connection: &Connection) {
    match dial(target, connection).await {
        Some(upstream) => Relay::new(client, upstream).run(connection).await,
        None => reset(&client),
    }
}

/// Dials the target as soon as a handshake could pass; `None`: the client is to be reset.
async fn dial(target: SocketAddr, connection: &Connection) -> Option<TcpStream> {
    let frozen = |pipe: &Pipe| Direction::BOTH.iter().any(|&direction| pipe.is_frozen(direction));
    connection.until(|pipe| pipe.reset || !frozen(pipe)).await;
    if connection.step(|pipe, _| (pipe.reset, false)) {
        return None;
    }
    let Ok(Ok(upstream)) = tokio::time::timeout(DIAL_MAX, TcpStream::connect(target)).await else {
        connection.until(|pipe| pipe.reset || !pipe.is_frozen(Direction::ToClient)).await;
        return None;
    };
    let local = upstream.local_addr().ok();
    connection.step(|pipe, _| (pipe.upstream = local, true));
    Some(upstream)
}

/// Both sockets of a connection. A direction's source stands at its index, its sink at the other's.
struct Relay {
    sides: [Side; 2],
    /// Set when both ends have been told that it is over.
    drain_until: Option<Instant>,
}

/// A socket, and what is known of its peer.
struct Side {
    socket: TcpStream,
    /// Nothing more can be read.
    read_over: bool,
    /// The peer has reset the connection: nothing can be written.
    dead: bool,
}

/// What to do after a turn.
enum Turn {
    /// There may be more at once.
    Again,
    Wait(Wait),
    /// Both ends know: close.
    Over,
    Reset,
}

/// What to wait for, besides a control.
#[derive(Default)]
struct Wait {
    interests: [Option<Interest>; 2],
    until: Option<Instant>,
}

impl Relay {
    fn new(client: TcpStream, upstream: TcpStream) -> Relay {
        let sides = [client, upstream].map(|socket| {
            // Slices must not be glued together again. A socket that is dead already is found so soon enough.
            let _ = socket.set_nodelay(true);
            Side { socket, read_over: false, dead: false }
        });
        Relay { sides, drain_until: None }
    }

    async fn run(mut self, connection: &Connection) {
        loop {
            let turn = connection.step(|pipe, now| {
                let turn = self.turn(pipe, now);
                let is_news = matches!(turn, Turn::Again);
                (turn, is_news)
            });
            match turn {
                Turn::Again => tokio::task::yield_now().await,
                Turn::Wait(wait) => {
                    if self.wait(wait, connection).await.is_err() {
                        return;
                    }
                }
                Turn::Over => return,
                Turn::Reset => {
                    self.sides.iter().for_each(|side| reset(&side.socket));
                    return;
                }
            }
        }
    }

    fn turn(&mut self, pipe: &mut Pipe, now: Instant) -> Turn {
        if pipe.reset {
            return Turn::Reset;
        }
        let mut wait = Wait::default();
        let mut moved = false;
        for direction in Direction::BOTH {
            moved |= self.take_in(direction, pipe, now, &mut wait);
        }
        for direction in Direction::BOTH {
            match self.give_out(direction, pipe, now, &mut wait) {
                Given::Nothing => {}
                Given::Something => moved = true,
                Given::Reset => return Turn::Reset,
            }
        }
        if pipe.links.iter().all(Link::is_over) {
            let drain_until = *self.drain_until.get_or_insert(now + DRAIN_MAX);
            if drain_until <= now || self.sides.iter().all(|side| side.read_over) {
                return Turn::Over;
            }
            wait.until(Some(drain_until));
        }
        if moved { Turn::Again } else { Turn::Wait(wait) }
    }

    /// Reads from the direction's source once, if its link lets us. Returns whether something happened.
    fn take_in(&mut self, direction: Direction, pipe: &mut Pipe, now: Instant, wait: &mut Wait) -> bool {
        let (source, sink) = (direction.index(), direction.other().index());
        // What can't be written is not read: its sender finds out when the sink's reset reaches it.
        let wanted = !self.sides[source].read_over && !self.sides[sink].dead;
        let link = &mut pipe.links[direction.index()];
        let room = match link.intake() {
            Intake::Frozen => return false,
            Intake::Room(room) if wanted => room.min(READ_BYTES_MAX),
            Intake::Room(_) | Intake::Full => return self.look_for_reset(source, link, now, wait),
        };
        let side = &mut self.sides[source];
        let mut buffer = [0; READ_BYTES_MAX];
        match side.socket.try_read(&mut buffer[..room]) {
            Ok(0) => {
                side.read_over = true;
                // A write that failed has used up the error: what is left looks like a FIN.
                link.handle_end(if side.dead { End::Reset } else { End::Fin }, now);
            }
            Ok(len) => link.handle_bytes(&buffer[..len], now),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                wait.for_socket(source, Interest::READABLE);
                return false;
            }
            Err(_) => {
                (side.read_over, side.dead) = (true, true);
                link.handle_end(End::Reset, now);
            }
        }
        true
    }

    /// Notices a reset by a peer that we don't read from.
    fn look_for_reset(&mut self, source: usize, link: &mut Link, now: Instant, wait: &mut Wait) -> bool {
        let side = &mut self.sides[source];
        if side.dead && side.read_over {
            return false;
        }
        if !side.dead && matches!(side.socket.take_error(), Ok(None)) {
            wait.for_socket(source, Interest::ERROR);
            return false;
        }
        (side.read_over, side.dead) = (true, true);
        link.handle_end(End::Reset, now);
        true
    }

    /// Does once what the direction's link says is due.
    fn give_out(&mut self, direction: Direction, pipe: &mut Pipe, now: Instant, wait: &mut Wait) -> Given {
        let sink = direction.other().index();
        let side = &mut self.sides[sink];
        let link = &mut pipe.links[direction.index()];
        let done = match link.poll_due(now) {
            Due::Nothing => {
                wait.until(link.poll_timeout());
                return Given::Nothing;
            }
            Due::Reset => return Given::Reset,
            Due::Cut => {
                pipe.links.iter_mut().for_each(|link| link.handle_cut(now));
                return Given::Something;
            }
            Due::Bytes(_) | Due::Fin if side.dead => Err(io::ErrorKind::BrokenPipe.into()),
            Due::Bytes(bytes) => side.socket.try_write(bytes).map(|len| link.handle_sent(len, now)),
            Due::Fin => {
                SockRef::from(&side.socket).shutdown(Shutdown::Write).map(|()| link.handle_fin_sent())
            }
        };
        match done {
            Ok(()) => Given::Something,
            // A reset overtakes bytes that the receiver doesn't take.
            Err(_) if link.reset_at().is_some_and(|at| at <= now) => Given::Reset,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                wait.for_socket(sink, Interest::WRITABLE);
                wait.until(link.reset_at());
                Given::Nothing
            }
            Err(_) if side.dead => Given::Nothing,
            Err(_) => {
                side.dead = true;
                if side.read_over {
                    pipe.links[direction.other().index()].handle_end(End::Reset, now);
                }
                Given::Something
            }
        }
    }

    /// # Errors
    /// The runtime is going down.
    async fn wait(&self, wait: Wait, connection: &Connection) -> io::Result<()> {
        let [client, upstream] = &self.sides;
        let [client_interest, upstream_interest] = wait.interests;
        tokio::select! {
            ready = ready(&client.socket, client_interest) => ready,
            ready = ready(&upstream.socket, upstream_interest) => ready,
            () = at(wait.until) => Ok(()),
            () = connection.changed() => Ok(()),
        }
    }
}

/// What came of looking at what is due.
enum Given {
    Nothing,
    Something,
    Reset,
}

impl Wait {
    fn for_socket(&mut self, side: usize, interest: Interest) {
        let wanted = &mut self.interests[side];
        *wanted = Some(wanted.map_or(interest, |present| present | interest));
    }

    fn until(&mut self, at: Option<Instant>) {
        self.until = [self.until, at].into_iter().flatten().min();
    }
}

async fn ready(socket: &TcpStream, interest: Option<Interest>) -> io::Result<()> {
    match interest {
        Some(interest) => socket.ready(interest).await.map(|_| ()),
        None => pending().await,
    }
}

async fn at(instant: Option<Instant>) {
    match instant {
        Some(instant) => tokio::time::sleep_until(instant.into()).await,
        None => pending().await,
    }
}

/// Makes the socket answer its peer with an RST when it is dropped.
fn reset(socket: &TcpStream) {
    // It fails only on a socket that is gone already.
    let _ = SockRef::from(socket).set_linger(Some(Duration::ZERO));
}
