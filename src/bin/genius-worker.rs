//! `genius-worker`: computes one stage that needs a model, spoken to over pipes
//! by `genius`.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use genius::worker::model::Environment;

fn main() -> ExitCode {
    let words = "genius-worker is started by `genius run`; it takes no arguments and computes one stage.\n";
    match std::env::args().nth(1).as_deref() {
        Some("--version" | "-V") => {
            let version = concat!("genius-worker ", env!("CARGO_PKG_VERSION"), "\n");
            let _ = std::io::stdout().write_all(version.as_bytes());
            return ExitCode::SUCCESS;
        }
        Some(_) => {
            let _ = std::io::stderr().write_all(words.as_bytes());
            return ExitCode::from(2);
        }
        None if std::io::stdin().is_terminal() => {
            let _ = std::io::stderr().write_all(words.as_bytes());
            return ExitCode::from(2);
        }
        None => {}
    }
    let environment = Environment::from_lookup(|name| std::env::var_os(name));
    genius::protocol::serve(|context| genius::worker::run_job(context, &environment))
}
