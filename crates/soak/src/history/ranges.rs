//! Sets of numbers that come mostly in a row.

use std::collections::BTreeMap;

/// A set of numbers, kept as ranges: as large as it has gaps.
#[derive(Debug, Default)]
pub(crate) struct Ranges {
    /// First to last of each; no two touch.
    ranges: BTreeMap<u64, u64>,
    len: u64,
}

impl Ranges {
    /// Adds `first` to `last`; numbers that are in already are no harm.
    pub(crate) fn insert(&mut self, first: u64, last: u64) {
        let (mut first, mut last) = (first, last);
        while let Some((&begin, &end)) = self.ranges.range(..=last.saturating_add(1)).next_back()
            && end.saturating_add(1) >= first
        {
            self.ranges.remove(&begin);
            self.len -= end - begin + 1;
            (first, last) = (first.min(begin), last.max(end));
        }
        self.ranges.insert(first, last);
        self.len += last - first + 1;
    }

    pub(crate) fn contains(&self, number: u64) -> bool {
        self.ranges.range(..=number).next_back().is_some_and(|(_, &end)| number <= end)
    }

    /// Returns how many numbers are in.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// Returns how many ranges that takes.
    pub(crate) fn pieces(&self) -> usize {
        self.ranges.len()
    }

    /// Returns the numbers, rising.
    pub(crate) fn iter(&self) -> impl Iterator<Item = u64> {
        self.ranges.iter().flat_map(|(&first, &last)| first..=last)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn it_holds_what_a_plain_set_holds() {
        for seed in 0..200 {
            let mut random = fastrand::Rng::with_seed(seed);
            let (mut ranges, mut plain) = (Ranges::default(), BTreeSet::new());
            for _ in 0..40 {
                let first = random.u64(1..60);
                let last = first + random.u64(0..4);
                ranges.insert(first, last);
                plain.extend(first..=last);
            }
            assert_eq!(
                ranges.iter().collect::<Vec<_>>(),
                plain.iter().copied().collect::<Vec<_>>(),
                "{seed}"
            );
            assert_eq!(ranges.len(), plain.len() as u64);
            assert!((1..70).all(|number| ranges.contains(number) == plain.contains(&number)));
            let edges = plain.iter().filter(|&&number| !plain.contains(&(number + 1))).count();
            assert_eq!(ranges.pieces(), edges, "no two touch");
        }
    }
}
