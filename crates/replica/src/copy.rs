//! How a standby begins: it copies the primary's checkpoint and journal into an empty directory.

use crate::{
    Error, Outside, Primary,
    link::Frames,
    wire::{self, Frame},
};
use std::{path::Path, sync::Arc};
use widgets_engine::{DataDirectory, Disk, Restoration, Restored, Settings};

/// How many bytes of the journal are copied between two checks of the disk.
const CHECK_BYTES: u64 = 16 << 20;

/// The room that a store needs beside a copy of its primary: for its next checkpoint, which exists
/// beside the first one until it is complete, and for two segments of the journal. Without this limit
/// a false primary could fill the disk.
struct Reserve {
    checkpoint: u64,
    bytes: u64,
    /// The bytes that were copied since the disk was last checked.
    taken: u64,
}

impl Reserve {
    /// Creates the reserve for a copy whose checkpoint has this size.
    fn new(checkpoint: u64, segment_bytes: u64) -> Self {
        Self {
            checkpoint,
            bytes: checkpoint.saturating_add(2 * segment_bytes),
            taken: 0,
        }
    }

    /// Checks that there is room for the checkpoint and for the reserve.
    fn begin(&self, room: impl Fn() -> Option<u64>) -> Result<(), Error> {
        enough(self.bytes.saturating_add(self.checkpoint), room)
    }

    /// Counts bytes that are copied, and checks now and then that there is still room for the reserve.
    fn take(&mut self, bytes: u64, room: impl Fn() -> Option<u64>) -> Result<(), Error> {
        self.taken += bytes;
        if self.taken < CHECK_BYTES {
            return Ok(());
        }
        self.taken = 0;
        enough(self.bytes, room)
    }
}

fn enough(needed: u64, room: impl Fn() -> Option<u64>) -> Result<(), Error> {
    match room() {
        Some(room) if room < needed => Err(Error::Room { needed, room }),
        _ => Ok(()),
    }
}

/// Copies the primary's store into an empty directory, up to what the primary has when the copy is
/// done. Starts from the beginning if an earlier attempt left files in the directory. Gives up if the
/// copy would leave less `room` on the disk than the store needs.
pub async fn copy<D: Disk>(
    outside: &Arc<dyn Outside>,
    primary: &Primary,
    disk: D,
    settings: &Settings,
    room: impl Fn() -> Option<u64>,
) -> Result<Restored, Error> {
    let query = wire::query(None, None);
    let mut frames = Frames::ask(outside, primary, &query, None, settings.segment_bytes).await?;
    let store = match frames.next().await? {
        Frame::Store(store) => store,
        other => return Err(misplaced(&other)),
    };
    let (numbers, address) = (outside.clone(), primary.address.to_string());
    let random = Box::new(move || numbers.random());
    let mut restoration = Restoration::begin_standby_on(disk, random, settings, *store, address)?;
    let mut reserve = Reserve::new(0, settings.segment_bytes);
    let mut left = match frames.next().await? {
        Frame::Checkpoint {
            first_sequence,
            bytes,
        } => {
            reserve = Reserve::new(bytes, settings.segment_bytes);
            reserve.begin(&room)?;
            restoration.begin_checkpoint(first_sequence)?;
            bytes
        }
        first => {
            restoration.begin_empty();
            if take(&mut restoration, first)? {
                return Ok(restoration.finish()?);
            }
            0
        }
    };
    while left > 0 {
        let Frame::Piece(bytes) = frames.next().await? else {
            return Err(Error::Wire(format!(
                "{left} bytes of the checkpoint are missing"
            )));
        };
        left = left
            .checked_sub(bytes.len() as u64)
            .ok_or_else(|| Error::Wire("the checkpoint is longer than it says".into()))?;
        restoration.append_checkpoint(&bytes)?;
        if left == 0 {
            restoration.end_checkpoint()?;
        }
    }
    loop {
        let frame = frames.next().await?;
        if let Frame::Group { group, .. } = &frame {
            reserve.take(group.payload.len() as u64, &room)?;
        }
        if take(&mut restoration, frame)? {
            return Ok(restoration.finish()?);
        }
    }
}

/// Takes a frame after the checkpoint. Returns true once the copy has everything that the primary
/// had.
fn take<D: Disk>(restoration: &mut Restoration<D>, frame: Frame) -> Result<bool, Error> {
    match frame {
        Frame::Group { group, next_chain } => {
            restoration.group(&group)?;
            if restoration.end().chain != next_chain {
                return Err(Error::Hash(group.first_sequence));
            }
            Ok(false)
        }
        Frame::End { end, .. } => {
            Ok(restoration.end().next_sequence >= end.next_sequence && restoration.is_whole())
        }
        other => Err(misplaced(&other)),
    }
}

/// Returns the error that this frame is out of place.
pub(crate) fn misplaced(frame: &Frame) -> Error {
    let what = match frame {
        Frame::Store(_) => "a store",
        Frame::Checkpoint { .. } => "a checkpoint",
        Frame::Piece(_) => "a piece of a checkpoint",
        Frame::Group { .. } => "a group",
        Frame::End { .. } => "the end",
    };
    Error::Wire(format!("{what} comes where something else is expected"))
}

/// Opens an empty directory to copy into. Returns `None` if it contains a store.
pub fn empty_directory(path: &Path) -> Result<Option<DataDirectory>, widgets_engine::OpenError> {
    match DataDirectory::open_to_restore(path) {
        Ok(directory) => Ok(Some(directory)),
        Err(widgets_engine::OpenError::NotEmpty { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_is_refused_if_it_leaves_too_little_disk_space() {
        let reserve = Reserve::new(1000, 100);
        for (room, is_enough) in [(Some(2200), true), (Some(2199), false), (None, true)] {
            let begun = reserve.begin(|| room);
            assert_eq!(begun.is_ok(), is_enough, "{begun:?}");
        }
        let mut reserve = Reserve::new(u64::MAX - 1, 100);
        assert!(reserve.begin(|| Some(u64::MAX - 1)).is_err());
        reserve = Reserve::new(1000, 100);
        assert!(
            reserve.take(CHECK_BYTES - 1, || Some(0)).is_ok(),
            "not checked yet"
        );
        let taken = reserve.take(1, || Some(1199));
        let told = taken.expect_err("no room").to_string();
        assert!(told.contains("1200") && told.contains("1199"), "{told}");
        assert!(reserve.take(CHECK_BYTES, || Some(1200)).is_ok());
    }
}
