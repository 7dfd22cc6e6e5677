//! The commands for people: `try`, `check`, `reap`, `completions`, `man`.

use std::io::{self, Write};

use crate::error::{Error, Kind, Result};

pub mod check;
pub mod manual;
pub mod reap;
pub mod try_job;

/// Writes a command's result to standard output.
fn print(text: &[u8]) -> Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text).and_then(|()| out.flush()) {
        // Who reads only the first lines, as `head` does, has got what it wanted.
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        Err(e) => Err(Error::new(Kind::State, "cannot write to standard output").because(e)),
        Ok(()) => Ok(()),
    }
}
