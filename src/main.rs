//! The `git-model` program; git runs it as `git model`.

use std::process::ExitCode;

fn main() -> ExitCode {
    git_model::cli::run(std::env::args_os())
}
