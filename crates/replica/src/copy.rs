//! How a standby begins: it copies the primary's checkpoint and journal into an empty directory.

use crate::{
    Error, Outside, Primary,
    link::Frames,
    wire::{self, Frame},
};
use std::{path::Path, sync::Arc};
use widgets_engine::{DataDirectory, Disk, Restoration, Restored, Settings};

/// Copies the primary's store into an empty directory, up to what the primary has when the copy is
/// done. Starts from the beginning if an earlier attempt left files in the directory. Does not
/// begin a checkpoint that is larger than the `room` on the disk: the copy could not be completed,
/// and would fill the disk.
pub async fn copy<D: Disk>(
    outside: &Arc<dyn Outside>,
    primary: &Primary,
    disk: D,
    settings: &Settings,
    room: impl FnOnce() -> Option<u64>,
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
    let mut left = match frames.next().await? {
        Frame::Checkpoint {
            first_sequence,
            bytes,
        } => {
            if let Some(room) = room()
                && bytes > room
            {
                return Err(Error::Room { bytes, room });
            }
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
    while !take(&mut restoration, frames.next().await?)? {}
    Ok(restoration.finish()?)
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
    Error::Wire(format!("{what} comes where something else must"))
}

/// Opens an empty directory to copy into. Returns `None` if it contains a store.
pub fn empty_directory(path: &Path) -> Result<Option<DataDirectory>, widgets_engine::OpenError> {
    match DataDirectory::open_to_restore(path) {
        Ok(directory) => Ok(Some(directory)),
        Err(widgets_engine::OpenError::NotEmpty { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}
