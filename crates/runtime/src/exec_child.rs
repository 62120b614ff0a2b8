//! Starting a program that ends with its parent, without unsafe code: the executable starts itself,
//! asks the kernel for the signal, and then becomes the program.

use crate::privileges::{self, Capabilities};
use nix::{
    sys::{prctl::set_pdeathsig, signal::Signal},
    unistd::getppid,
};
use std::{ffi::OsString, io, os::unix::process::CommandExt, process::Command};

/// Becomes `command`, without any capability; the kernel kills it when the thread that started it ends. `app`: it
/// is an app, not a part of ours.
///
/// Returns only when that fails.
pub fn exec_child(command: &[OsString], app: bool) -> io::Error {
    let parent = getppid();
    if let Err(error) = set_pdeathsig(Signal::SIGKILL) {
        return error.into();
    }
    // The parent may have died before the request; then nobody would ever send the signal.
    if getppid() != parent || parent.as_raw() == 1 {
        return io::Error::other("the parent is gone");
    }
    // Neither the broker nor an app that is no container needs what root may do.
    if let Err(error) = privileges::give_up(Capabilities::empty()) {
        return error;
    }
    if app {
        privileges::end_early_when_memory_runs_out();
    }
    let Some((program, arguments)) = command.split_first() else {
        return io::ErrorKind::InvalidInput.into();
    };
    Command::new(program).args(arguments).exec()
}
