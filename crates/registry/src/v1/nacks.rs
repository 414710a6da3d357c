//! Messages of the client that were refused.

use std::collections::VecDeque;

use pulsegate_core::v1::NackCode;

/// What was refused, for as long as the client may not know it.
///
/// A NACK may be lost with a connection, and an ACK passes what was refused: so all that the client may not have read are
/// said again on the next connection, before any ACK. Those a whole window back it has read: it went on only since an ACK
/// came behind them.
#[derive(Debug, Default)]
pub(super) struct Nacks {
    kept: VecDeque<(u64, NackCode)>,
    /// So many of them were written on this connection.
    written: usize,
}

impl Nacks {
    pub(super) fn push(&mut self, seq: u64, code: NackCode, window_messages: usize) {
        self.kept.push_back((seq, code));
        while self.kept.pop_front_if(|(old, _)| *old + window_messages as u64 <= seq).is_some() {
            self.written = self.written.saturating_sub(1);
        }
    }

    /// Returns the next to be written.
    pub(super) fn poll(&mut self) -> Option<(u64, NackCode)> {
        let next = self.kept.get(self.written).copied()?;
        self.written += 1;
        Some(next)
    }

    /// Begins on a new connection.
    pub(super) fn resume(&mut self) {
        self.written = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_not_have_been_read_is_said_again() {
        let mut nacks = Nacks::default();
        for seq in 1..=5 {
            nacks.push(seq, NackCode::AppGone, 3);
        }
        let drain = |nacks: &mut Nacks| -> Vec<u64> {
            std::iter::from_fn(|| nacks.poll()).map(|(seq, _)| seq).collect()
        };
        assert_eq!(drain(&mut nacks), [3, 4, 5]);
        nacks.push(6, NackCode::AppGone, 3);
        assert_eq!(drain(&mut nacks), [6]);
        nacks.resume();
        assert_eq!(drain(&mut nacks), [4, 5, 6]);
    }
}
