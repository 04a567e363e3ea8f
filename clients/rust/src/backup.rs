//! The whole store as a stream, as `GET /backup` sends it to administrators.

use crate::{Client, Error, answer::Answer};
use std::{
    io::{self, Read},
    sync::mpsc::{self, Receiver, RecvTimeoutError},
    thread,
    time::Duration,
};

/// The service sends something at least every few seconds.
const SILENCE_MAX: Duration = Duration::from_mins(1);

/// The size of the pieces in which the stream is read. At most a few of them are buffered.
const PIECE_BYTES: usize = 256 << 10;
const PIECES_MAX: usize = 4;

/// A backup as it arrives. Reading fails if nothing arrives for a minute.
#[derive(Debug)]
pub struct Backup {
    pieces: Receiver<io::Result<Vec<u8>>>,
    piece: Vec<u8>,
    taken: usize,
}

impl Client {
    /// Requests a backup, once.
    pub fn backup(&self) -> Result<Backup, Error> {
        let url = format!("{}/backup", self.base);
        let mut request = self
            .agent
            .get(&url)
            .config()
            .timeout_connect(Some(self.timeout))
            .timeout_recv_response(Some(self.timeout))
            .build();
        if let Some((name, value)) = self.authorization() {
            request = request.header(name, value);
        }
        let response = match request.call() {
            Ok(response) if response.status() == 200 => response,
            other => {
                let answer = Answer::read(url, other)?.success()?;
                return Err(answer.odd("it is no backup"));
            }
        };
        let (sender, pieces) = mpsc::sync_channel(PIECES_MAX);
        let mut body = response.into_body().into_reader();
        // A blocked read cannot be cancelled, so a separate thread reads, and the caller can give
        // up.
        let read = move || {
            loop {
                let mut piece = vec![0; PIECE_BYTES];
                let read = match body.read(&mut piece) {
                    Ok(0) => return,
                    Ok(length) => {
                        piece.truncate(length);
                        Ok(piece)
                    }
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                    Err(error) => Err(error),
                };
                let is_over = read.is_err();
                if sender.send(read).is_err() || is_over {
                    return;
                }
            }
        };
        let thread = thread::Builder::new().name("backup".into()).spawn(read);
        thread.map_err(|error| Error::Settings(format!("starting a thread: {error}")))?;
        Ok(Backup {
            pieces,
            piece: Vec::new(),
            taken: 0,
        })
    }
}

impl Read for Backup {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.taken == self.piece.len() {
            self.piece = match self.pieces.recv_timeout(SILENCE_MAX) {
                Ok(piece) => piece?,
                Err(RecvTimeoutError::Disconnected) => return Ok(0),
                Err(RecvTimeoutError::Timeout) => {
                    let seconds = SILENCE_MAX.as_secs();
                    let why = format!("nothing came for {seconds} s");
                    return Err(io::Error::new(io::ErrorKind::TimedOut, why));
                }
            };
            self.taken = 0;
        }
        let length = buffer.len().min(self.piece.len() - self.taken);
        buffer[..length].copy_from_slice(&self.piece[self.taken..self.taken + length]);
        self.taken += length;
        Ok(length)
    }
}
