//! Words in, words out: parses arguments, runs a use case, renders what it returns, maps errors to exit codes.

mod bars;
mod cmd;
mod comparison;
mod reference;
mod render;
mod ui;

use std::ffi::OsString;
use std::io::IsTerminal;
use std::process::ExitCode;

use clap::{CommandFactory, Parser};

use crate::error::{Error, Result};
use crate::git::Git;
use crate::human;
use crate::ops::Ctx;
use crate::progress::{Interrupt, Progress, Silent};
use crate::remote::Traffic;

pub(crate) use ui::Ui;

/// Version machine-learning models with git
///
/// Large weights and data sets are tracked as small pointer files in git; their bytes go to object storage. Start with
/// `git model init`, then `git model add`, `git commit`, `git model push`.
#[derive(Parser, Debug)]
#[command(name = "git-model", bin_name = "git model", version, max_term_width = 100)]
#[command(propagate_version = false, disable_help_subcommand = true, arg_required_else_help = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: cmd::Command,
}

/// Options that every command takes.
#[derive(clap::Args, Debug, Default)]
pub(crate) struct Global {
    /// Only print results and errors
    #[arg(long, short, global = true, display_order = 100)]
    quiet: bool,
    /// Contact no store and no git remote
    #[arg(long, global = true, display_order = 101)]
    pub(crate) offline: bool,
    /// Transfers at once
    #[arg(long, global = true, value_name = "N", display_order = 102, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(crate) jobs: Option<u16>,
    /// Bytes per second at most, of all transfers together: 10m, 500k
    #[arg(long, global = true, value_name = "RATE", display_order = 103, value_parser = rate)]
    pub(crate) limit_rate: Option<u64>,
}

impl Global {
    /// How transfers are to behave, for a command without a repository.
    pub(crate) fn traffic(&self) -> Traffic {
        Traffic::new(self.jobs.map(usize::from), self.limit_rate)
    }
}

fn rate(text: &str) -> Result<u64, String> {
    let rate = human::parse_bytes(text).filter(|rate| *rate > 0);
    rate.ok_or_else(|| "a rate looks like 10m (10 MiB per second) or 500k".to_owned())
}

/// Runs the program and returns its exit code.
pub fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match parse(args.into_iter().collect()) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version go to standard output with exit code 0, wrong usage to standard error with 2.
            drop(error.print());
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    let ui = Ui::new(cli.global.quiet);
    match dispatch(&ui, &cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            ui.error(&error);
            ExitCode::from(error.kind().exit_code())
        }
    }
}

/// Git runs hooks after most of its commands, so theirs is parsed alone: building all commands takes longer than most hooks.
fn parse(args: Vec<OsString>) -> Result<Cli, clap::Error> {
    #[derive(Parser)]
    #[command(bin_name = "git model hook")]
    struct Hook {
        #[command(flatten)]
        args: cmd::HookArgs,
    }
    match args.get(1).is_some_and(|first| first == "hook") {
        true => {
            let Hook { args } = Hook::try_parse_from(args.into_iter().skip(1))?;
            Ok(Cli { global: Global::default(), command: cmd::Command::hook(args) })
        }
        false => Cli::try_parse_from(args),
    }
}

fn dispatch(ui: &Ui, cli: &Cli) -> Result<()> {
    match &cli.command {
        cmd::Command::Outside(command) => command.run(ui),
        cmd::Command::Inside(command) => {
            if let Some(done) = command.run_anywhere(ui, &cli.global) {
                return done;
            }
            let git = Git::discover()?;
            if command.is_idle(&git)? {
                return Ok(());
            }
            let ctx = context(ui, git, &cli.global, !command.passes_signals_on())?;
            let done = command.run(ui, &ctx);
            // Whatever failed because of an interruption, that is what the user wants to read.
            let says_so_itself = command.passes_signals_on();
            done.or_else(
                |error| if says_so_itself { Err(error) } else { ctx.interrupt.check().and(Err(error)) },
            )
        }
    }
}

/// Opens a repository with the user's settings and the options of every command.
pub(crate) fn context(ui: &Ui, git: Git, global: &Global, catch_signals: bool) -> Result<Ctx> {
    let interrupt = Interrupt::default();
    if catch_signals {
        raise_on_signals(interrupt.clone())?;
    }
    let mut ctx = Ctx::open(git, progress(ui), interrupt)?;
    if global.offline {
        ctx.offline = true;
        ctx.git.stay_offline();
    }
    if let Some(jobs) = global.jobs {
        ctx.settings.jobs = Some(usize::from(jobs));
    }
    if global.limit_rate.is_some() {
        ctx.settings.limit_rate = global.limit_rate;
    }
    Ok(ctx)
}

/// Where progress goes, and what a signal sets, for a command without a repository.
pub(crate) fn progress_and_interrupt(ui: &Ui) -> Result<(Box<dyn Progress>, Interrupt)> {
    let interrupt = Interrupt::default();
    raise_on_signals(interrupt.clone())?;
    Ok((progress(ui), interrupt))
}

fn progress(ui: &Ui) -> Box<dyn Progress> {
    match ui.is_quiet() {
        true => Box::new(Silent),
        false if std::io::stderr().is_terminal() => Box::new(bars::Bars),
        false => Box::new(bars::Lines),
    }
}

/// The first signal asks for a clean end; a second one gets the system's usual answer.
fn raise_on_signals(interrupt: Interrupt) -> Result<()> {
    ctrlc::set_handler(move || {
        if interrupt.is_raised() {
            rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL).ok();
        }
        interrupt.raise();
    })
    .map_err(|error| Error::new("cannot catch signals").caused_by(error))
}

/// The parser, for completions, man pages and the reference.
fn command() -> clap::Command {
    Cli::command()
}

#[cfg(test)]
mod tests {
    #[test]
    fn arguments_are_consistent() {
        super::command().debug_assert();
    }
}
