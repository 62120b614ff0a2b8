//! The prober, for this crate's tests. In an installation it is `bastide probe`.

fn main() -> std::process::ExitCode {
    bastide_verify::prober_main()
}
