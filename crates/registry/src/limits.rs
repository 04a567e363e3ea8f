//! The limits of the domain, and how they depend on each other.

/// A serial number has at least this many bytes of UTF-8.
pub const SERIAL_NUMBER_BYTES_MIN: usize = 1;

/// A serial number has at most this many bytes of UTF-8.
pub const SERIAL_NUMBER_BYTES_MAX: usize = 255;

/// A name has at most this many bytes of UTF-8; it may be empty.
pub const NAME_BYTES_MAX: usize = 1024;

/// A widget has at most this many slots.
pub const SLOTS_MAX: usize = 3;

// Stores keep a serial number's length in one byte and a name's in two.
const _: () = assert!(SERIAL_NUMBER_BYTES_MAX <= u8::MAX as usize);
const _: () = assert!(NAME_BYTES_MAX <= u16::MAX as usize);
// `Ports` packs a slot into two bits of one byte.
const _: () = assert!(SLOTS_MAX * 2 <= u8::BITS as usize);
