//! Sorting millions of texts at a start, on every core.
//!
//! Eight bytes of a text are one number, and numbers lie side by side: sorting those is many times
//! faster than comparing texts, which lie anywhere. Texts that have the same eight bytes are told apart
//! by the next eight. What all texts begin with is left out.

use std::thread;

/// Eight bytes of a text, and whose text it is.
pub(crate) type Element = (u64, u32);

/// Fewer are not worth a thread.
const THREAD_ELEMENTS_MIN: usize = if cfg!(test) { 4 } else { 1 << 14 };

/// So many texts are asked what all of them probably begin with.
const SAMPLE: usize = 1000;

/// The numbers in the order of their texts, on so many threads; those of the same text by number.
///
/// No text has the byte 0.
pub(crate) fn by_text<'a>(
    numbers: Vec<u32>,
    text: &(impl Fn(u32) -> &'a str + Sync),
    threads: usize,
) -> Vec<u32> {
    let bytes = |number: u32| text(number).as_bytes();
    let mut elements: Vec<Element> = numbers.iter().map(|&number| (0, number)).collect();
    let prefix = common_prefix(&numbers, &bytes);
    drop(numbers);
    let with_prefix = load(&mut elements, prefix, prefix.len(), &bytes, threads);
    let depth = if with_prefix {
        prefix.len()
    } else {
        load(&mut elements, &[], 0, &bytes, threads);
        0
    };
    sort(&mut elements, depth, &bytes, threads);
    elements.into_iter().map(|(_, number)| number).collect()
}

/// What a sample of the texts begins with.
fn common_prefix<'a>(numbers: &[u32], bytes: &impl Fn(u32) -> &'a [u8]) -> &'a [u8] {
    let Some((&first, rest)) = numbers.split_first() else {
        return &[];
    };
    let mut prefix = bytes(first);
    for &number in rest.iter().step_by(rest.len() / SAMPLE + 1) {
        let same = prefix.iter().zip(bytes(number)).take_while(|(a, b)| a == b);
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
    let size = elements.len().div_ceil(threads).max(THREAD_ELEMENTS_MIN);
    if elements.len() <= size {
        return load(elements);
    }
    thread::scope(|scope| {
        let loaders = elements.chunks_mut(size);
        let loaders: Vec<_> = loaders.map(|part| scope.spawn(|| load(part))).collect();
        loaders
            .into_iter()
            .fold(true, |all, each| all & joined(each))
    })
}

/// Eight bytes from `depth` on, as a number that is ordered as they are; 0 stands for the end.
fn head_at(text: &[u8], depth: usize) -> u64 {
    let rest = text.get(depth..).unwrap_or_default();
    if let Some(bytes) = rest.first_chunk() {
        return u64::from_be_bytes(*bytes);
    }
    let mut bytes = [0; 8];
    bytes[..rest.len()].copy_from_slice(rest);
    u64::from_be_bytes(bytes)
}

fn sort<'a>(
    elements: &mut [Element],
    depth: usize,
    bytes: &(impl Fn(u32) -> &'a [u8] + Sync),
    threads: usize,
) {
    if threads > 1 && elements.len() >= 2 * THREAD_ELEMENTS_MIN {
        let middle = elements.len() / 2;
        elements.select_nth_unstable(middle);
        // Texts of the same eight bytes stay together: they are told apart as a whole.
        let head = elements[middle].0;
        let middle = middle - equal_before(&mut elements[..middle], head);
        let (less, rest) = elements.split_at_mut(middle);
        if !less.is_empty() {
            return thread::scope(|scope| {
                let other = scope.spawn(|| sort(less, depth, bytes, threads / 2));
                sort(rest, depth, bytes, threads - threads / 2);
                joined(other);
            });
        }
    }
    elements.sort_unstable();
    for group in elements.chunk_by_mut(|one, other| one.0 == other.0) {
        // The last of the eight bytes is 0: the texts have ended, and are the same.
        if group.len() > 1 && group[0].0 & 0xff != 0 {
            load(group, &[], depth + 8, bytes, 1);
            sort(group, depth + 8, bytes, 1);
        }
    }
}

/// Puts those with this head behind all others, which are less; how many there are.
fn equal_before(elements: &mut [Element], head: u64) -> usize {
    let mut end = elements.len();
    let mut at = 0;
    while at < end {
        if elements[at].0 == head {
            end -= 1;
            elements.swap(at, end);
        } else {
            at += 1;
        }
    }
    elements.len() - end
}

fn joined<T>(thread: thread::ScopedJoinHandle<'_, T>) -> T {
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
        fn texts_come_in_order_and_equal_ones_by_number(
            prefix in "[a-c]{0,20}",
            texts in prop::collection::vec("[a-cé]{0,20}", 0..200),
            same in any::<bool>(),
            threads in 1usize..5,
        ) {
            let texts: Vec<String> = (texts.into_iter().enumerate())
                .map(|(number, text)| {
                    // With or without a text that does not begin as the others do.
                    if same || number != 77 { format!("{prefix}{text}") } else { text }
                })
                .collect();
            let count = u32::try_from(texts.len()).expect("a few");
            let mut expected: Vec<u32> = (0..count).collect();
            expected.sort_by_key(|&number| (&texts[number as usize], number));
            let numbers = (0..count).collect();
            let sorted = by_text(numbers, &|number| &*texts[number as usize], threads);
            prop_assert_eq!(sorted, expected);
        }
    }
}
