//! What a session tells of its peers: metrics, log lines, events.

use pulsegate_core::SessionId;
use pulsegate_registry::{DeliveryNote, Note};

use crate::feed::What;
use crate::shared::Shared;

/// Tells the world; returns what there is to tell of messages, which is the caller's.
pub(super) fn tell_of_peer(shared: &Shared, id: SessionId, note: Note) -> Option<DeliveryNote> {
    let metrics = &shared.metrics;
    match note {
        Note::Suspected(leg) => {
            metrics.leg(leg).suspects.increment(1);
            shared.feed.publish(What::SessionSuspect { id, leg });
            tracing::debug!(%id, %leg, "peer suspected");
        }
        Note::Recovered(leg) => {
            metrics.leg(leg).suspects_recovered.increment(1);
            shared.feed.publish(What::SessionRecovered { id, leg });
            tracing::debug!(%id, %leg, "suspect heard again");
        }
        Note::Withheld(leg, doubt) => {
            metrics.leg(leg).verdict_withheld(doubt);
            tracing::warn!(%id, %leg, doubt = doubt.as_str(), "verdict withheld: the fault may be our own");
        }
        Note::Spared(leg, doubts) => {
            metrics.leg(leg).verdict_spared(doubts);
            tracing::info!(%id, %leg, times = doubts.withheld(), "the withheld verdict would have been wrong");
        }
        Note::Delivery(note) => return Some(note),
        Note::Dead(leg, verdict) => {
            metrics.leg(leg).dead_peer(verdict.cause, verdict.silent_for, verdict.doubts);
            tracing::info!(%id, %leg, cause = %verdict.cause, verdict = %verdict, "peer declared dead");
            shared.feed.publish(What::SessionDead { id, leg, verdict });
        }
    }
    None
}
