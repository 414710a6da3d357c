//! Keys of a client's messages, to know one that its author sends again.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

/// So many are remembered; a repeat comes soon or not at all.
const KEYS_MAX: usize = 1024;

#[derive(Debug, Default)]
pub(super) struct Keys {
    known: HashSet<Arc<[u8]>>,
    order: VecDeque<Arc<[u8]>>,
}

impl Keys {
    /// Remembers a key; returns whether it is new.
    pub(super) fn insert(&mut self, key: &[u8]) -> bool {
        if self.known.contains(key) {
            return false;
        }
        if self.order.len() == KEYS_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
        let key: Arc<[u8]> = key.into();
        self.order.push_back(Arc::clone(&key));
        self.known.insert(key)
    }

    /// Forgets the key of a message that never gets to the app: its author may send it again.
    pub(super) fn remove(&mut self, key: &[u8]) {
        if self.known.remove(key) {
            self.order.retain(|known| **known != *key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_new_once_until_many_others_came() {
        let mut keys = Keys::default();
        assert!(keys.insert(b"a") && !keys.insert(b"a"));
        for n in 0..KEYS_MAX as u32 {
            assert!(keys.insert(&n.to_be_bytes()));
        }
        assert_eq!(keys.known.len(), KEYS_MAX);
        assert!(keys.insert(b"a"));
        keys.remove(b"a");
        assert!(keys.insert(b"a"), "what never came is new");
        assert_eq!((keys.known.len(), keys.order.len()), (KEYS_MAX, KEYS_MAX));
    }
}
