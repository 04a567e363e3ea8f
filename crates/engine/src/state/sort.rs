//! Sorting millions of texts at a start, on every core.
//!
//! Eight bytes of a text are one number, and numbers lie side by side: sorting those is many times
//! faster than comparing texts, which lie anywhere. Texts that have the same eight bytes are told apart
//! by the next eight. What all texts begin with is left out. Each thread sorts a part; two sorted parts
//! are merged by as many threads as there are.

use std::{cmp::Ordering, thread};

/// Eight bytes of a text, and whose text it is.
pub(super) type Element = (u64, u32);

/// Fewer are not worth a thread.
const THREAD_ELEMENTS_MIN: usize = if cfg!(test) { 4 } else { 1 << 14 };

/// So many texts are asked what all of them probably begin with.
const SAMPLE: usize = 1000;

/// The numbers in the order of their texts, on so many threads; those of the same text as they come.
///
/// No text has the byte 0.
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

/// The same, of elements whose heads were read at this depth, behind what all texts begin with; `None`
/// where they do not.
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

/// Some of so many places, spread evenly.
pub(super) fn sample(places: usize) -> impl Iterator<Item = usize> {
    (0..places).step_by(places / SAMPLE + 1)
}

/// What all of these texts begin with.
pub(super) fn common_prefix<'a>(mut texts: impl Iterator<Item = &'a [u8]>) -> &'a [u8] {
    let mut prefix = texts.next().unwrap_or_default();
    for text in texts {
        let same = prefix.iter().zip(text).take_while(|(a, b)| a == b);
        prefix = &prefix[..same.count()];
    }
    prefix
}

/// Reads eight bytes of each text from `depth` on. Whether all of them begin with `prefix`.
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

/// How many elements a thread gets.
fn part(elements: usize, threads: usize) -> usize {
    elements.div_ceil(threads).max(THREAD_ELEMENTS_MIN)
}

/// Does all of these at once, the first of them on this thread.
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

/// Eight bytes from `depth` on, as a number that is ordered as they are; 0 stands for the end.
pub(super) fn head_at(text: &[u8], depth: usize) -> u64 {
    let rest = text.get(depth..).unwrap_or_default();
    if let Some(bytes) = rest.first_chunk() {
        return u64::from_be_bytes(*bytes);
    }
    let mut bytes = [0; 8];
    bytes[..rest.len()].copy_from_slice(rest);
    u64::from_be_bytes(bytes)
}

/// Sorts by the whole texts, of which `depth` bytes are the same and the next eight are loaded. Stable.
fn sort<'a>(
    elements: &mut [Element],
    depth: usize,
    bytes: &(impl Fn(u32) -> &'a [u8] + Sync),
    threads: usize,
) {
    sort_by_head(elements, threads);
    // Each thread tells the equal ones of a part apart; those of one head stay together.
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
            // A thread alone would take long, while others have nothing to do.
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

/// Sorts those of one head by what comes behind it.
fn refine<'a>(
    group: &mut [Element],
    depth: usize,
    bytes: &(impl Fn(u32) -> &'a [u8] + Sync),
    threads: usize,
) {
    // Where the last of the eight bytes is 0 the texts have ended, and are the same.
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
    // Two parts each become one, until there is but one.
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

/// Merging two sorted parts, as so many pieces of one size.
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

/// How many of the first so many elements of both together are from the left.
fn split(left: &[Element], right: &[Element], length: usize) -> usize {
    let (mut least, mut most) = (length.saturating_sub(right.len()), left.len().min(length));
    while least < most {
        let middle = usize::midpoint(least, most);
        // Of equal ones those on the left come first.
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
        fn texts_come_in_order_and_equal_ones_as_they_come(
            prefix in "[a-c]{0,20}",
            texts in prop::collection::vec("[a-cé]{0,20}", 0..200),
            same in any::<bool>(),
            threads in 1usize..6,
            turn in 0usize..200,
        ) {
            let texts: Vec<String> = (texts.into_iter().enumerate())
                .map(|(number, text)| {
                    // With or without a text that does not begin as the others do.
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
