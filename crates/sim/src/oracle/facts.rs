//! What really is the matter with a peer and its path, which the machine can only guess.

use pulsegate_core::Leg as Side;
use pulsegate_heartbeat::Limits;

use crate::link::Way;
use crate::plan::micros;
use crate::world::{Leg, Seat};
use crate::{NEVER, Time};

/// Nothing is the matter with this peer and its path.
pub(super) fn is_healthy(leg: &Leg, limits: &Limits, now: Time) -> bool {
    leg.peer.kind.answers_all()
        && leg.peer.stops_at > now
        && leg.path.is_clean()
        && is_quick(leg, limits)
        && leg.truth.paused_since.is_none()
}

/// The line may be slow and its acknowledgements few, but it loses nothing, and whoever gets a probe answers it:
/// only what stands before the probe is in the way.
pub(super) fn is_slow_but_alive(leg: &Leg, limits: &Limits, now: Time) -> bool {
    leg.has_view
        && leg.peer.kind.answers_all()
        && leg.peer.stops_at > now
        && leg.path.outages.is_empty()
        && leg.path.loss == 0.0
        && is_quick(leg, limits)
        // Once a kernel sends again what was not lost, the model sends everything behind it again as well, and a
        // slow line is busy with that for longer than a real one, which repeats only what is missing.
        && leg.out().view().1 == 0
        // The line's own silence must be shorter than that which a verdict takes.
        && leg.out().longest_ack_gap(leg.path.rate) < micros(limits.verdict_after) / 4 * 3
}

/// Nothing passes either way, and nothing of what had left the host before came, since before the silence could
/// have been probed.
pub(super) fn is_gone(leg: &Leg, limits: &Limits, now: Time) -> bool {
    let probed = leg.truth.probed_at.unwrap_or(now);
    // A slow path goes on delivering what was sent before the end.
    let gone_from = leg.path.dead_from().max(leg.out().heard_at);
    // One whose retransmission is not due yet can't know.
    leg.out().rto < micros(limits.verdict_after) / 4
        && gone_from < probed.saturating_sub(micros(limits.verdict_after) / 4)
}

/// Its kernel gets and acknowledges everything.
pub(super) fn acknowledges(leg: &Leg, limits: &Limits) -> bool {
    leg.has_view && leg.path.is_clean() && is_quick(leg, limits)
}

/// At least ten suspects, more than half of all, are cut off as far as one can know.
pub(super) fn is_mass(seats: &[Seat], side: Side, now: Time) -> bool {
    let missing = |seat: &&Seat| {
        let leg = seat.side(side);
        let probed = leg.truth.probed_at.unwrap_or(NEVER);
        leg.truth.suspected
            && !leg.truth.dead
            && !seat.driver.session.is_closing()
            && leg.peer.kind.answers_all()
            && (!leg.has_view || leg.path.is_cut(Way::In, now) && leg.out().heard_at < probed)
    };
    let count = seats.iter().filter(missing).count();
    count >= 11 && count > seats.len() / 2 + 1
}

/// Round trip and answer never take long, however unlucky.
fn is_quick(leg: &Leg, limits: &Limits) -> bool {
    let slowest = 2 * leg.path.delay + 80 * leg.path.jitter + leg.peer.think;
    slowest < micros(limits.verdict_after) / 4
}
