//! `genius`: the orchestrator. All of it is in the library.

fn main() -> std::process::ExitCode {
    genius::cli::main()
}
