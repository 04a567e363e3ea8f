//! The keys that records are sorted by, and the separators between runs, which are compact and can
//! be compared without reading any record.

use crate::state::{record::Record, sort};
use std::cmp::Ordering;

/// What records are sorted by. No two records have the same key.
pub(crate) trait Sort {
    /// Returns the key of a record, which is compared by its first text and then by its second.
    fn key(record: &Record) -> Key<'_>;
}

/// Two texts, compared one after the other. Neither contains a NUL, so joining them with a NUL
/// gives one sequence of bytes that has the same order.
pub(crate) type Key<'a> = (&'a str, &'a str);

/// The separators between the runs of a branch, or between all branches: each is greater than all
/// keys before it, and not greater than any key after it. They stay when records are removed. Their
/// common prefix is stored once. The next eight bytes of each are adjacent in memory and decide
/// most comparisons.
#[derive(Default)]
pub(super) struct Separators {
    /// A prefix that all keys share, perhaps not the longest.
    prefix: Box<[u8]>,
    /// The eight bytes of each key behind the prefix.
    heads: Vec<u64>,
    /// The whole keys.
    keys: Vec<Box<[u8]>>,
}

/// Returns a key as one sequence of bytes.
pub(super) fn bytes_of((first, second): Key<'_>) -> Box<[u8]> {
    [first.as_bytes(), &[0], second.as_bytes()].concat().into()
}

/// Returns eight bytes of a key from `depth` on, as a number with the same order.
pub(super) fn head_at((first, second): Key<'_>, depth: usize) -> u64 {
    let (first, second) = (first.as_bytes(), second.as_bytes());
    let Some(of_first) = first.len().checked_sub(depth) else {
        return sort::head_at(second, depth - first.len() - 1);
    };
    let head = sort::head_at(first, depth);
    if of_first >= 7 {
        return head;
    }
    head | sort::head_at(second, 0) >> (8 * (of_first + 1))
}

/// Returns how many leading bytes both share.
pub(super) fn same(one: &[u8], other: &[u8]) -> usize {
    one.iter().zip(other).take_while(|(a, b)| a == b).count()
}

/// Compares the beginning of a key with these bytes, and no more of it than their length.
fn compare_beginning((first, second): Key<'_>, bytes: &[u8]) -> Ordering {
    let (in_first, rest) = bytes.split_at(first.len().min(bytes.len()));
    let firsts = first.as_bytes()[..in_first.len()].cmp(in_first);
    firsts.then_with(|| match rest.split_first() {
        None => Ordering::Equal,
        Some((0, rest)) => {
            let second = second.as_bytes();
            second[..second.len().min(rest.len())].cmp(rest)
        }
        Some(_) => Ordering::Less,
    })
}

/// Compares a key with a whole one.
pub(super) fn compare(key: Key<'_>, bytes: &[u8]) -> Ordering {
    let length = key.0.len() + 1 + key.1.len();
    compare_beginning(key, bytes).then_with(|| length.cmp(&bytes.len()))
}

impl Separators {
    /// Returns how many separators are not greater than the key.
    pub(super) fn place(&self, key: Key<'_>) -> usize {
        match compare_beginning(key, &self.prefix) {
            Ordering::Less => 0,
            Ordering::Greater => self.heads.len(),
            Ordering::Equal => {
                let head = head_at(key, self.prefix.len());
                let behind = self.heads.partition_point(|&each| each <= head);
                if behind > 0 && self.heads[behind - 1] == head {
                    let first = self.heads[..behind].partition_point(|&each| each < head);
                    let same = &self.keys[first..behind];
                    first + same.partition_point(|each| compare(key, each).is_ge())
                } else {
                    behind
                }
            }
        }
    }

    pub(super) fn len(&self) -> usize {
        self.keys.len()
    }

    pub(super) fn get(&self, place: usize) -> Option<&[u8]> {
        self.keys.get(place).map(|key| &**key)
    }

    pub(super) fn insert(&mut self, place: usize, key: Box<[u8]>) {
        let with_prefix = !self.keys.is_empty() && key.starts_with(&self.prefix);
        let head = sort::head_at(&key, self.prefix.len());
        self.keys.insert(place, key);
        // The prefix is recomputed at every power of two, because the keys may share more than the
        // first ones did.
        if with_prefix && !self.keys.len().is_power_of_two() {
            self.heads.insert(place, head);
        } else {
            self.look_again();
        }
    }

    pub(super) fn remove(&mut self, place: usize) -> Box<[u8]> {
        self.heads.remove(place);
        self.keys.remove(place)
    }

    /// Removes the separator at this place and all after it. Returns it, and those after it.
    pub(super) fn split_off(&mut self, place: usize) -> (Box<[u8]>, Self) {
        let right = self.keys.split_off(place + 1).into_iter().collect();
        let key = self.remove(place);
        self.look_again();
        (key, right)
    }

    /// Appends one separator and those that follow it.
    pub(super) fn append(&mut self, key: Box<[u8]>, mut others: Self) {
        self.keys.push(key);
        self.keys.append(&mut others.keys);
        self.look_again();
    }

    /// Recomputes the prefix and the heads.
    fn look_again(&mut self) {
        let prefix = match (self.keys.first(), self.keys.last()) {
            (Some(first), Some(last)) => &first[..same(first, last)],
            _ => &[],
        };
        // A single key would be all prefix, which the next key rarely shares.
        let prefix = if self.keys.len() > 1 { prefix } else { &[] };
        let depth = prefix.len();
        self.prefix = prefix.into();
        self.heads.clear();
        let heads = self.keys.iter().map(|key| sort::head_at(key, depth));
        self.heads.extend(heads);
    }
}

impl FromIterator<Box<[u8]>> for Separators {
    fn from_iter<T: IntoIterator<Item = Box<[u8]>>>(keys: T) -> Self {
        let mut separators = Self {
            keys: keys.into_iter().collect(),
            ..Self::default()
        };
        separators.look_again();
        separators
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn as_key((first, second): &(String, String)) -> Key<'_> {
        (first, second)
    }

    proptest! {
        #[test]
        fn separators_find_the_same_place_as_a_sorted_list(
            built in prop::collection::btree_set(("[a-c]{0,9}", "[a-b]{0,3}"), 0..20),
            later in prop::collection::vec(("[a-c]{0,9}", "[a-b]{0,3}"), 0..20),
            removed in prop::collection::vec(any::<prop::sample::Index>(), 0..10),
            split in any::<prop::sample::Index>(),
            prefix in "[a-c]{0,9}",
            sought in prop::collection::vec(("[a-c\u{1}]{0,9}", "[a-b\u{1}]{0,3}"), 1..20),
        ) {
            let with_prefix = |(first, second): (String, String)| (format!("{prefix}{first}"), second);
            let mut model: Vec<_> = built.into_iter().map(with_prefix).collect();
            let mut separators: Separators =
                model.iter().map(|each| bytes_of(as_key(each))).collect();
            for key in later.into_iter().map(with_prefix) {
                if let Err(place) = model.binary_search(&key) {
                    separators.insert(place, bytes_of(as_key(&key)));
                    model.insert(place, key);
                }
            }
            for index in removed {
                if !model.is_empty() {
                    let place = index.index(model.len());
                    model.remove(place);
                    separators.remove(place);
                }
            }
            let check = |separators: &Separators, model: &[(String, String)]| {
                let with = sought.iter().cloned().map(with_prefix);
                for key in with.chain(sought.clone()).chain(model.to_vec()) {
                    let behind = model.partition_point(|each| *each <= key);
                    assert_eq!(separators.place(as_key(&key)), behind);
                }
                assert_eq!(separators.len(), model.len());
            };
            check(&separators, &model);
            if model.is_empty() {
                return Ok(());
            }
            let at = split.index(model.len());
            let (key, right) = separators.split_off(at);
            check(&separators, &model[..at]);
            check(&right, &model[at + 1..]);
            separators.append(key, right);
            check(&separators, &model);
        }

        #[test]
        fn key_heads_compare_like_their_keys(
            keys in prop::collection::vec(("[a-b]{0,12}", "[a-b]{0,12}"), 2),
        ) {
            let (one, other) = (as_key(&keys[0]), as_key(&keys[1]));
            let same = same(&bytes_of(one), &bytes_of(other));
            for depth in 0..=same {
                let heads = head_at(one, depth).cmp(&head_at(other, depth));
                prop_assert!(heads.is_eq() || heads == one.cmp(&other));
                prop_assert_eq!(head_at(one, depth), sort::head_at(&bytes_of(one), depth));
            }
            prop_assert_eq!(compare(one, &bytes_of(other)), one.cmp(&other));
        }
    }
}
