//! Starting a program that ends with its parent, without unsafe code: the executable starts itself,
//! asks the kernel for the signal, and then becomes the program.

use nix::{
    sys::{prctl::set_pdeathsig, signal::Signal},
    unistd::getppid,
};
use std::{ffi::OsString, io, os::unix::process::CommandExt, process::Command};

/// Becomes `command`; the kernel kills it when the thread that started it ends.
///
/// Returns only when that fails.
pub fn exec_child(command: &[OsString]) -> io::Error {
    let parent = getppid();
    if let Err(error) = set_pdeathsig(Signal::SIGKILL) {
        return error.into();
    }
    // The parent may have died before the request; then nobody would ever send the signal.
    if getppid() != parent || parent.as_raw() == 1 {
        return io::Error::other("the parent is gone");
    }
    let Some((program, arguments)) = command.split_first() else {
        return io::ErrorKind::InvalidInput.into();
    };
    Command::new(program).args(arguments).exec()
}
