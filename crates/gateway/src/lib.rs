//! Sockets, tasks, the clock: the gateway itself. The machines it drives live in the crates below it.

pub mod cli;
pub mod config;
mod control;
mod demo;
mod drain;
mod feed;
mod front;
#[doc(hidden)]
pub mod fuzz;
mod http_serve;
mod messages;
mod ops;
mod problem;
mod relay;
pub mod serve;
mod shared;
mod sys;
mod workers;

/// Takes one look into the kernel, as a session does, and returns whether it can tell. Only for the tool that
/// measures what a look costs.
#[doc(hidden)]
pub fn kernel_look(stream: &tokio::net::TcpStream) -> bool {
    // What waits to be read is life, and makes the rest needless; a session asks for both all the same.
    sys::has_bytes_waiting(stream).is_ok_and(|waiting| waiting) | sys::kernel_view(stream).is_some()
}
