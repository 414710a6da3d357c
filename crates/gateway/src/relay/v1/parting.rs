//! Connections that a session has no part in any more, or never had.

use std::sync::Arc;

use pulsegate_core::v1::{Envelope, ResumeFail};
use pulsegate_core::{CloseFrame, Opcode, write_control, write_message};
use pulsegate_registry::{DeliveryNote, Refusal, Tombstone};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::super::line::Line;
use super::super::mailbox::Arrival;
use crate::front::Place;
use crate::shared::Shared;

/// Says to a client that there is nothing to come back to, and closes (PROTOCOL.md).
pub(crate) fn refuse(shared: &Arc<Shared>, stream: TcpStream, place: Place, refusal: Refusal) {
    shared.metrics.v1.resume_failed(refusal.code);
    let Refusal { code, counters } = refusal;
    let (mut envelope, mut rest, mut close) = (Vec::new(), Vec::new(), Vec::new());
    Envelope::ResumeFail(ResumeFail { code, counters }).write(&mut envelope);
    write_message(&mut rest, false, &[&envelope], None);
    CloseFrame::new(code.close().number(), code.as_str()).write_payload(&mut close);
    write_control(&mut rest, Opcode::Close, &close, None);
    end(shared, stream, rest, place);
}

/// Refuses a client that came when its session had just ended.
pub(in crate::relay) fn refuse_late(shared: &Arc<Shared>, arrival: Arrival, tombstone: &Tombstone) {
    let secret = arrival.hello.resume.map(|(secret, _)| secret);
    let refusal =
        tombstone.last.as_ref().zip(secret).map_or(Refusal::UNKNOWN, |(last, secret)| last.refusal(&secret));
    if let Ok(stream) = TcpStream::from_std(arrival.stream) {
        refuse(shared, stream, arrival.place, refusal);
    }
}

/// Gives the client what waits for it, its Close frame at last, and a while to answer.
pub(super) fn linger(
    shared: &Arc<Shared>,
    mut line: Line,
    words: &[Vec<u8>],
    frame: Option<&CloseFrame>,
    place: Place,
) {
    for word in words {
        line.outbox.push_message(false, &[word], None);
    }
    line.push_close(frame);
    if let Some((stream, rest)) = line.into_rest() {
        end(shared, stream, rest, place);
    }
}

fn end(shared: &Arc<Shared>, mut stream: TcpStream, rest: Vec<u8>, place: Place) {
    let limit = shared.config.limits.close_timeout;
    // Counted with the sessions, so that a gateway that leaves waits for it.
    shared.sessions.spawn(async move {
        let _ = timeout(limit, async {
            stream.write_all(&rest).await?;
            let mut scrap = [0; 1024];
            // Its Close frame, or what it sent before: then FIN, and the rest is read away, so that no reset overtakes
            // what we wrote.
            if stream.read(&mut scrap).await? > 0 {
                stream.shutdown().await?;
                while stream.read(&mut scrap).await? > 0 {}
            }
            std::io::Result::Ok(())
        })
        .await;
        drop((stream, place));
    });
}

/// Tells what became of messages to the app.
pub(super) fn tell_of_app(shared: &Shared, note: DeliveryNote) {
    let metrics = &shared.metrics.v1;
    match note {
        DeliveryNote::Confirmed(level, messages) => metrics.confirmed(level, messages),
        DeliveryNote::Lost(messages) => metrics.lost(messages),
        DeliveryNote::Unsent(messages) => metrics.unsent(messages),
        DeliveryNote::Sent(_) | DeliveryNote::Settled(..) | DeliveryNote::Rejected(_) => {}
    }
}
