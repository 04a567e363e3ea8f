//! Numbers as text of a fixed length. Every answer contains some, and the standard formatter takes
//! a thousand instructions for each.

/// Returns the last `N` hexadecimal digits of a number, with leading zeros.
#[must_use]
pub fn hex<const N: usize>(number: u64) -> [u8; N] {
    let mut digits = [b'0'; N];
    let mut rest = number;
    for digit in digits.iter_mut().rev() {
        *digit = b"0123456789abcdef"[(rest & 0xf) as usize];
        rest >>= 4;
    }
    digits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_digits_match_the_standard_formatter() {
        for number in [0, 1, 0xa0b, 0x0123_4567_89ab_cdef, u64::MAX] {
            assert_eq!(hex::<16>(number), format!("{number:016x}").as_bytes());
        }
        assert_eq!(hex::<4>(0x000f_1234), *b"1234", "the last ones");
    }
}
