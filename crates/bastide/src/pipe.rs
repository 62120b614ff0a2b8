//! Whoever reads what a command prints may stop, as `head` does. Then the command ends, as other programs do, and has not failed.

/// What shells show for a program that ended so: 128, and the number of the signal SIGPIPE.
const CLOSED: i32 = 141;

/// From now on a closed standard output ends the process without a word.
pub(crate) fn may_be_closed() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let said = panic.payload_as_str().unwrap_or_default();
        if said.starts_with("failed printing to stdout") && said.contains("Broken pipe") {
            std::process::exit(CLOSED);
        }
        usual(panic);
    }));
}
