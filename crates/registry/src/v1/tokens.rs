//! Who may come back to a session.

use pulsegate_core::v1::Secret;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

type Hash = [u8; 32];

/// So many secrets may wait for a first frame; a client's dials that it gave up are few.
const WAITING_MAX: usize = 8;

/// The secrets that are good, as hashes: what is kept here opens nothing.
///
/// A new one is given with every connection. Those before it stay good until a frame arrives on that connection: only then
/// has the new one certainly arrived. That is the one that was shown, and those that were given out for it before: a
/// connection that the client had given up may come behind the one on which it got its newest.
#[derive(Debug)]
pub(super) struct Tokens {
    current: Hash,
    earlier: Vec<Hash>,
}

impl Tokens {
    pub(super) fn new(first: &Secret) -> Tokens {
        Tokens { current: hash(first), earlier: Vec::new() }
    }

    /// Returns whether `shown` opens the session; the time it takes says nothing.
    pub(super) fn accept(&self, shown: &Secret) -> bool {
        let shown = hash(shown);
        let good = self.earlier.iter().fold(self.current.ct_eq(&shown), |good, one| good | one.ct_eq(&shown));
        good.into()
    }

    /// Gives `next` out to who has shown one that is good.
    pub(super) fn rotate(&mut self, next: &Secret) {
        if self.earlier.len() == WAITING_MAX {
            // The first is what the client had when all this began, the second what it most likely has now.
            self.earlier.remove(2);
        }
        self.earlier.push(std::mem::replace(&mut self.current, hash(next)));
    }

    /// Returns a number that nobody can guess.
    pub(super) fn seed(&self) -> u64 {
        self.current.iter().take(8).fold(0, |seed, byte| seed << 8 | u64::from(*byte))
    }

    /// The new one has arrived.
    pub(super) fn settle(&mut self) {
        self.earlier = Vec::new();
    }
}

fn hash(secret: &Secret) -> Hash {
    Sha256::digest(secret.0).into()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_one_before_is_good_until_the_new_one_has_arrived() {
        let [first, second, third, stranger] = [1, 2, 3, 4].map(|n| Secret([n; 16]));
        let mut tokens = Tokens::new(&first);
        assert!(tokens.accept(&first) && !tokens.accept(&second));
        tokens.rotate(&second);
        assert!(tokens.accept(&first) && tokens.accept(&second) && !tokens.accept(&stranger));
        // The client shows the first again: the WELCOME was lost, or this is a dial that it had given up, and it has the
        // second all the same.
        tokens.rotate(&third);
        assert!(tokens.accept(&first) && tokens.accept(&second) && tokens.accept(&third));
        tokens.settle();
        assert!(!tokens.accept(&first) && !tokens.accept(&second) && tokens.accept(&third));
    }

    #[test]
    fn few_are_kept_and_those_that_matter() {
        let secrets: Vec<Secret> = (0..20).map(|n| Secret([n; 16])).collect();
        let mut tokens = Tokens::new(&secrets[0]);
        for next in &secrets[1..] {
            tokens.rotate(next);
        }
        let good: Vec<usize> = (0..20).filter(|&n| tokens.accept(&secrets[n])).collect();
        assert_eq!(good, [0, 1, 13, 14, 15, 16, 17, 18, 19]);
    }
    /// What a dial of the client does: it is given up before anything comes of it, its WELCOME is lost, or it arrives and then
    /// perhaps a frame of the client does.
    fn dials() -> impl Strategy<Value = Vec<u8>> {
        // So many in a row without a word of the client are its last.
        prop::collection::vec(0u8..4, 1..200).prop_filter("dials that say nothing", |dials| {
            dials.split(|dial| *dial == 3).all(|silent| silent.len() < WAITING_MAX)
        })
    }

    proptest! {
        /// Invariant 6: wherever a return breaks off, the client has a secret that is good.
        #[test]
        fn a_client_always_has_one_that_is_good(dials in dials()) {
            let secret = |n: usize| Secret((n as u128).to_be_bytes());
            let (mut tokens, mut has) = (Tokens::new(&secret(0)), 0);
            for (n, dial) in (1..).zip(dials) {
                prop_assert!(tokens.accept(&secret(has)));
                if dial > 0 {
                    tokens.rotate(&secret(n));
                }
                if dial > 1 {
                    has = n;
                }
                if dial > 2 {
                    tokens.settle();
                    prop_assert!(!tokens.accept(&secret(n - 1)) && tokens.accept(&secret(n)));
                }
            }
            prop_assert!(tokens.accept(&secret(has)));
        }
    }
}
