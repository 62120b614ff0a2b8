//! Stands for the executable of Bastide in this crate's tests: the shim and the file server. Never part of an
//! installation.

use std::{path::Path, process::ExitCode};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    let words: Vec<&str> = arguments.iter().skip(1).map(String::as_str).collect();
    match words.as_slice() {
        ["shim", "--config", path] => bastide_container::shim_main(Path::new(path)),
        ["static-server", "--root", root] => serve(Path::new(root)),
        other => {
            eprintln!("no such probe: {other:?}");
            ExitCode::from(98)
        }
    }
}

#[allow(clippy::disallowed_methods)] // as the executable does, it reads its port from the environment
fn serve(root: &Path) -> ExitCode {
    let port: u16 = std::env::var("PORT").ok().and_then(|port| port.parse().ok()).unwrap_or(0);
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else {
        return ExitCode::FAILURE;
    };
    let stop = tokio_util::sync::CancellationToken::new();
    let served = bastide_runtime::static_server::run(root.to_owned(), ([127, 0, 0, 1], port).into(), stop);
    match runtime.block_on(served) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
