//! Who may come back to a session.

use pulsegate_core::v1::Secret;
use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};

type Hash = [u8; 32];

/// The secrets that are good, as hashes: what is kept here opens nothing.
///
/// A new one is given with every connection. The one that was shown stays good until a frame arrives on that
/// connection: only then has the new one certainly arrived.
#[derive(Debug)]
pub(super) struct Tokens {
    current: Hash,
    previous: Option<Hash>,
}

impl Tokens {
    pub(super) fn new(first: &Secret) -> Tokens {
        Tokens { current: hash(first), previous: None }
    }

    /// Returns whether `shown` opens the session; the time it takes says nothing.
    pub(super) fn accept(&self, shown: &Secret) -> bool {
        let shown = hash(shown);
        let previous = self.previous.unwrap_or(self.current);
        let good: Choice = self.current.ct_eq(&shown) | previous.ct_eq(&shown);
        good.into()
    }

    /// Gives `next` out to who has shown `shown`.
    pub(super) fn rotate(&mut self, shown: &Secret, next: &Secret) {
        self.previous = Some(hash(shown));
        self.current = hash(next);
    }

    /// The new one has arrived.
    pub(super) fn settle(&mut self) {
        self.previous = None;
    }
}

fn hash(secret: &Secret) -> Hash {
    Sha256::digest(secret.0).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_one_before_is_good_until_the_new_one_has_arrived() {
        let [first, second, third, stranger] = [1, 2, 3, 4].map(|n| Secret([n; 16]));
        let mut tokens = Tokens::new(&first);
        assert!(tokens.accept(&first) && !tokens.accept(&second));
        tokens.rotate(&first, &second);
        assert!(tokens.accept(&first) && tokens.accept(&second) && !tokens.accept(&stranger));
        // The WELCOME was lost: the client shows the first again, and what it never got is good for nothing.
        tokens.rotate(&first, &third);
        assert!(tokens.accept(&first) && !tokens.accept(&second) && tokens.accept(&third));
        tokens.settle();
        assert!(!tokens.accept(&first) && tokens.accept(&third));
    }
}
