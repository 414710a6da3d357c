mod document;
mod handshake;
mod messages;
mod windows;
mod words;
