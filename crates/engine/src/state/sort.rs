//! Sorting millions of texts at a start, on every core.
//!
//! Eight bytes of a text form a number, and the numbers are adjacent in memory: sorting them is
//! many times faster than comparing texts, which are scattered. If texts have the same eight bytes,
//! the next eight decide. The prefix that all texts share is left out. Each thread sorts a part,
//! and two sorted parts are merged by all threads.

use std::{cmp::Ordering, thread};

/// Eight bytes of a text, and the number of the text.
pub(super) type Element = (u64, u32);

/// Fewer elements than this are not worth a thread.
const THREAD_ELEMENTS_MIN: usize = if cfg!(test) { 4 } else { 1 << 14 };

/// How many texts are sampled to find the prefix that all probably share.
const SAMPLE: usize = 1000;

/// Sorts the numbers by their texts on `threads` threads. Numbers with the same text keep their
/// order.
///
/// No text contains the byte 0.
pub(crate) fn by_text<'a>(
    numbers: &[u32],
    text: &(impl Fn(u32) -> &'a str + Sync),
    threads: usize,
) -> Vec<u32> {
    let bytes = |number: u32| text(number).as_bytes();
    let prefix = common_prefix(sample(numbers.len()).map(|at| bytes(numbers[at])));
    let mut elements: Vec<Element> = numbers.iter().map(|&number| (0, number)).collect();
    let with_prefix = load(&mut elements, prefix, prefix.len(), &bytes, threads);
    let depth = with_prefix.then_some(prefix.len());
    loaded_by_text(elements, depth, text, threads)
}

/// Sorts elements whose heads were already read. They were read at this depth, behind the prefix
/// that all texts share; `None` if not all share it.
pub(super) fn loaded_by_text<'a>(
    mut elements: Vec<Element>,
    depth: Option<usize>,
    text: &(impl Fn(u32) -> &'a str + Sync),
    threads: usize,
) -> Vec<u32> {
    let bytes = |number: u32| text(number).as_bytes();
    if depth.is_none() {
        load(&mut elements, &[], 0, &bytes, threads);
    }
    sort(&mut elements, depth.unwrap_or(0), &bytes, threads);
    elements.into_iter().map(|(_, number)| number).collect()
}

/// Returns some of the `places`, spread evenly.
pub(super) fn sample(places: usize) -> impl Iterator<Item = usize> {
    (0..places).step_by(places / SAMPLE + 1)
}

/// Returns the prefix that all these texts share.
pub(super) fn common_prefix<'a>(mut texts: impl Iterator<Item = &'a [u8]>) -> &'a [u8] {
    let mut prefix = texts.next().unwrap_or_default();
    for text in texts {
        let same = prefix.iter().zip(text).take_while(|(a, b)| a == b);
        prefix = &prefix[..same.count()];
    }
    prefix
}

/// Reads eight bytes of each text from `depth` on. Returns whether all texts begin with `prefix`.
fn load<'a>(
    elements: &mut [Element],
    prefix: &[u8],
    depth: usize,
    bytes: &(impl Fn(u32) -> &'a [u8] + Sync),
    threads: usize,
) -> bool {
    let load = |elements: &mut [Element]| {
        let mut all = true;
        for (head, number) in elements {
            let text = bytes(*number);
            all &= text.starts_with(prefix);
            *head = head_at(text, depth);
        }
        all
    };
    let parts = elements.chunks_mut(part(elements.len(), threads));
    let all = parallel(parts.map(|part| || load(part)));
    all.into_iter().all(|each| each)
}

/// Returns how many elements a thread gets.
fn part(elements: usize, threads: usize) -> usize {
    elements.div_ceil(threads).max(THREAD_ELEMENTS_MIN)
}

/// Runs all these tasks at once, the first one on this thread.
pub(super) fn parallel<T: Send>(tasks: impl Iterator<Item = impl FnOnce() -> T + Send>) -> Vec<T> {
    let mut tasks = tasks.peekable();
    let Some(first) = tasks.next() else {
        return Vec::new();
    };
    if tasks.peek().is_none() {
        return vec![first()];
    }
    thread::scope(|scope| {
        let others: Vec<_> = tasks.map(|task| scope.spawn(task)).collect();
        let mut done = vec![first()];
        done.extend(others.into_iter().map(joined));
        done
    })
}

/// Returns eight bytes from `depth` on, as a number with the same order; bytes past the end are 0.
pub(super) fn head_at(text: &[u8], depth: usize) -> u64 {
    let rest = text.get(depth..).unwrap_or_default();
    if let Some(bytes) = rest.first_chunk() {
        return u64::from_be_bytes(*bytes);
    }
    let mut bytes = [0; 8];
    bytes[..rest.len()].copy_from_slice(rest);
    u64::from_be_bytes(bytes)
}

/// Sorts by the whole texts, whose first `depth` bytes are the same and whose next eight are
/// loaded. Stable.
fn sort<'a>(
    elements: &mut [Element],
    depth: usize,
    bytes: &(impl Fn(u32) -> &'a [u8] + Sync),
    threads: usize,
) {
    sort_by_head(elements, threads);
    // Each thread sorts the groups of equal heads in its part. A group is never divided between
    // parts.
    let size = part(elements.len(), threads);
    let (mut parts, mut large) = (Vec::new(), Vec::new());
    let mut rest = elements;
    while !rest.is_empty() {
        let at = size.min(rest.len());
        let head = rest[at - 1].0;
        let first = rest.partition_point(|element| element.0 < head);
        let end = at + rest[at..].partition_point(|element| element.0 == head);
        let (part, behind) = std::mem::take(&mut rest).split_at_mut(end);
        rest = behind;
        if threads > 1 && end - first > size {
            // One thread would take long for this group while the others are idle.
            let (part, group) = part.split_at_mut(first);
            parts.push(part);
            large.push(group);
        } else {
            parts.push(part);
        }
    }
    parallel(parts.into_iter().map(|part| {
        || {
            for group in part.chunk_by_mut(|one, other| one.0 == other.0) {
                refine(group, depth, bytes, 1);
            }
        }
    }));
    for group in large {
        refine(group, depth, bytes, threads);
    }
}

/// Sorts a group with equal heads by the bytes that follow.
fn refine<'a>(
    group: &mut [Element],
    depth: usize,
    bytes: &(impl Fn(u32) -> &'a [u8] + Sync),
    threads: usize,
) {
    // If the last of the eight bytes is 0, the texts have ended and are equal.
    if group.len() > 1 && group[0].0 & 0xff != 0 {
        load(group, &[], depth + 8, bytes, threads);
        sort(group, depth + 8, bytes, threads);
    }
}

/// Sorts by the heads alone. Stable.
fn sort_by_head(elements: &mut [Element], threads: usize) {
    let size = part(elements.len(), threads);
    if elements.len() <= size {
        return elements.sort_by_key(|element| element.0);
    }
    let parts = elements.chunks_mut(size);
    parallel(parts.map(|part| || part.sort_by_key(|element| element.0)));
    let is_sorted = |at: usize| elements[at - 1].0 <= elements[at].0;
    if (size..elements.len()).step_by(size).all(is_sorted) {
        return;
    }
    // Merges pairs of parts until only one is left.
    let mut together = vec![(0, 0); elements.len()];
    let mut size = size;
    while size < elements.len() {
        let pairs = elements.chunks(2 * size).zip(together.chunks_mut(2 * size));
        let threads = (threads * 2 * size / elements.len()).max(1);
        let pieces = pairs.flat_map(|(pair, into)| {
            let (left, right) = pair.split_at(size.min(pair.len()));
            merges(left, right, into, threads)
        });
        parallel(pieces.map(|piece| || piece.run()));
        elements.copy_from_slice(&together);
        size *= 2;
    }
}

/// What one thread merges.
struct Merge<'e> {
    left: &'e [Element],
    right: &'e [Element],
    into: &'e mut [Element],
}

/// Divides the merge of two sorted parts into `threads` pieces of equal size.
fn merges<'e>(
    mut left: &'e [Element],
    mut right: &'e [Element],
    mut into: &'e mut [Element],
    threads: usize,
) -> Vec<Merge<'e>> {
    let mut pieces = Vec::with_capacity(threads);
    for threads in (1..=threads).rev() {
        let length = into.len() / threads;
        let from_left = split(left, right, length);
        let (piece, rest) = std::mem::take(&mut into).split_at_mut(length);
        let (left_piece, left_rest) = left.split_at(from_left);
        let (right_piece, right_rest) = right.split_at(length - from_left);
        (left, right, into) = (left_rest, right_rest, rest);
        pieces.push(Merge {
            left: left_piece,
            right: right_piece,
            into: piece,
        });
    }
    pieces
}

/// Returns how many of the first `length` merged elements come from the left.
fn split(left: &[Element], right: &[Element], length: usize) -> usize {
    let (mut least, mut most) = (length.saturating_sub(right.len()), left.len().min(length));
    while least < most {
        let middle = usize::midpoint(least, most);
        // Of equal elements, those on the left come first.
        match left[middle].0.cmp(&right[length - middle - 1].0) {
            Ordering::Less | Ordering::Equal => least = middle + 1,
            Ordering::Greater => most = middle,
        }
    }
    least
}

impl Merge<'_> {
    fn run(self) {
        let (mut left, mut right) = (self.left, self.right);
        for place in self.into {
            let from_left = match (left.first(), right.first()) {
                (Some(one), Some(other)) => one.0 <= other.0,
                (one, _) => one.is_some(),
            };
            let from = if from_left { &mut left } else { &mut right };
            if let Some((first, rest)) = from.split_first() {
                *place = *first;
                *from = rest;
            }
        }
    }
}

pub(super) fn joined<T>(thread: thread::ScopedJoinHandle<'_, T>) -> T {
    thread
        .join()
        .unwrap_or_else(|cause| std::panic::resume_unwind(cause))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn sorting_texts_is_stable_with_any_number_of_threads(
            prefix in "[a-c]{0,20}",
            texts in prop::collection::vec("[a-cé]{0,20}", 0..200),
            same in any::<bool>(),
            threads in 1usize..6,
            turn in 0usize..200,
        ) {
            let texts: Vec<String> = (texts.into_iter().enumerate())
                .map(|(number, text)| {
                    // With or without one text that does not share the prefix.
                    if same || number != 77 { format!("{prefix}{text}") } else { text }
                })
                .collect();
            let count = u32::try_from(texts.len()).expect("a few");
            let mut numbers: Vec<u32> = (0..count).collect();
            numbers.rotate_left(turn.min(texts.len()));
            let mut expected = numbers.clone();
            expected.sort_by_key(|&number| &texts[number as usize]);
            let sorted = by_text(&numbers, &|number| &*texts[number as usize], threads);
            prop_assert_eq!(sorted, expected);
        }
    }
}
