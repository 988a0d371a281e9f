//! One file per command: its arguments, whose comments are the manual, and the function that runs it.

mod add;
mod check;
mod checkout;
mod compare;
mod completions;
mod deploy;
mod diff;
mod event;
mod fetch;
mod get;
mod history;
mod hook;
mod info;
mod init;
mod log;
mod ls;
mod man;
mod merge_driver;
mod mv;
mod new;
mod package;
mod protect;
mod pull;
mod push;
mod record;
mod reference;
mod release;
mod remote;
mod resolve;
mod rm;
mod run;
mod scan;
mod sign;
mod signature;
mod statement;
mod status;
mod sync;
mod textconv;
mod verify;

use clap::{FromArgMatches, Subcommand};

use super::{Global, Ui};
use crate::error::Result;
use crate::git::Git;
use crate::ops::Ctx;

pub(super) use hook::HookArgs;

/// All commands, by what they need.
#[derive(Debug)]
pub(super) enum Command {
    /// Works in a repository.
    Inside(Box<Inside>),
    /// Works anywhere.
    Outside(Outside),
}

impl Command {
    pub(super) fn hook(args: HookArgs) -> Command {
        Command::Inside(Box::new(Inside::Hook(args)))
    }
}

#[derive(Subcommand, Debug)]
pub(super) enum Inside {
    Init(init::InitArgs),
    Add(add::AddArgs),
    Status(status::StatusArgs),
    Diff(diff::DiffArgs),
    Ls(ls::LsArgs),
    Rm(rm::RmArgs),
    Mv(mv::MvArgs),
    Sync(sync::SyncArgs),
    Push(push::PushArgs),
    Fetch(fetch::FetchArgs),
    Pull(pull::PullArgs),
    Checkout(checkout::CheckoutArgs),
    Remote(remote::RemoteArgs),
    Verify(verify::VerifyArgs),
    New(new::NewArgs),
    Record(record::RecordArgs),
    Run(run::RunArgs),
    Log(log::LogArgs),
    Compare(compare::CompareArgs),
    Info(info::InfoArgs),
    Check(check::CheckArgs),
    Release(release::ReleaseArgs),
    Promote(event::PromoteArgs),
    Rollback(event::RollbackArgs),
    Retire(event::RetireArgs),
    Approve(event::ApproveArgs),
    Outcome(event::OutcomeArgs),
    History(history::HistoryArgs),
    Resolve(resolve::ResolveArgs),
    Get(get::GetArgs),
    Deploy(deploy::DeployArgs),
    Sign(sign::SignArgs),
    Sbom(statement::SbomArgs),
    Provenance(statement::ProvenanceArgs),
    Package(package::PackageArgs),
    Hook(hook::HookArgs),
}

#[derive(Subcommand, Debug)]
pub(super) enum Outside {
    Protect(protect::ProtectArgs),
    Completions(completions::CompletionsArgs),
    Man(man::ManArgs),
    Reference(reference::ReferenceArgs),
    MergeDriver(merge_driver::MergeDriverArgs),
    Textconv(textconv::TextconvArgs),
}

impl Inside {
    /// Whether it is certain already that there is nothing to do.
    pub(super) fn is_idle(&self, git: &Git) -> Result<bool> {
        match self {
            Inside::Hook(args) => hook::is_idle(args, git),
            _ => Ok(false),
        }
    }

    /// Whether signals are for a command that it runs, and not for git-model.
    pub(super) fn passes_signals_on(&self) -> bool {
        matches!(self, Inside::Run(_))
    }

    /// Carries out what needs no repository after all. `None` when it does need one.
    pub(super) fn run_anywhere(&self, ui: &Ui, global: &Global) -> Option<Result<()>> {
        match self {
            Inside::Resolve(args) if args.has_url() => Some(resolve::run_at_url(ui, global, args)),
            Inside::Get(args) if args.needs_no_clone() => Some(get::run_without_clone(ui, global, args)),
            Inside::Sign(args) => sign::run_anywhere(ui, global, args),
            Inside::Sbom(args) => statement::sbom_anywhere(ui, global, args),
            Inside::Provenance(args) => statement::provenance_anywhere(ui, global, args),
            Inside::Verify(args) => verify::run_anywhere(ui, global, args),
            Inside::Package(args) if args.needs_no_clone() => {
                Some(package::run_without_clone(ui, global, args))
            }
            Inside::Info(args) => args.directory().map(|dir| info::run_directory(ui, args, &dir)),
            _ => None,
        }
    }

    pub(super) fn run(&self, ui: &Ui, ctx: &Ctx) -> Result<()> {
        match self {
            Inside::Init(args) => init::run(ui, ctx, args),
            Inside::Add(args) => add::run(ui, ctx, args),
            Inside::Status(args) => status::run(ui, ctx, args),
            Inside::Diff(args) => diff::run(ui, ctx, args),
            Inside::Ls(args) => ls::run(ui, ctx, args),
            Inside::Rm(args) => rm::run(ui, ctx, args),
            Inside::Mv(args) => mv::run(ui, ctx, args),
            Inside::Sync(args) => sync::run(ui, ctx, args),
            Inside::Push(args) => push::run(ui, ctx, args),
            Inside::Fetch(args) => fetch::run(ui, ctx, args),
            Inside::Pull(args) => pull::run(ui, ctx, args),
            Inside::Checkout(args) => checkout::run(ui, ctx, args),
            Inside::Remote(args) => remote::run(ui, ctx, args),
            Inside::Verify(args) => verify::run(ui, ctx, args),
            Inside::New(args) => new::run(ui, ctx, args),
            Inside::Record(args) => record::run(ui, ctx, args),
            Inside::Run(args) => run::run(ui, ctx, args),
            Inside::Log(args) => log::run(ui, ctx, args),
            Inside::Compare(args) => compare::run(ui, ctx, args),
            Inside::Info(args) => info::run(ui, ctx, args),
            Inside::Check(args) => check::run(ui, ctx, args),
            Inside::Release(args) => release::run(ui, ctx, args),
            Inside::Promote(args) => event::promote(ui, ctx, args),
            Inside::Rollback(args) => event::rollback(ui, ctx, args),
            Inside::Retire(args) => event::retire(ui, ctx, args),
            Inside::Approve(args) => event::approve(ui, ctx, args),
            Inside::Outcome(args) => event::outcome(ui, ctx, args),
            Inside::History(args) => history::run(ui, ctx, args),
            Inside::Resolve(args) => resolve::run(ui, ctx, args),
            Inside::Get(args) => get::run(ui, ctx, args),
            Inside::Deploy(args) => deploy::run(ui, ctx, args),
            Inside::Sign(args) => sign::run(ui, ctx, args),
            Inside::Sbom(args) => statement::sbom(ui, ctx, args),
            Inside::Provenance(args) => statement::provenance(ui, ctx, args),
            Inside::Package(args) => package::run(ui, ctx, args),
            Inside::Hook(args) => hook::run(ui, ctx, args),
        }
    }
}

impl Outside {
    pub(super) fn run(&self, ui: &Ui) -> Result<()> {
        match self {
            Outside::Protect(args) => protect::run(ui, args),
            Outside::Completions(args) => completions::run(ui, args),
            Outside::Man(args) => man::run(args),
            Outside::Reference(_) => reference::run(ui),
            Outside::MergeDriver(args) => merge_driver::run(ui, args),
            Outside::Textconv(args) => textconv::run(ui, args),
        }
    }
}

// Both groups are one flat list on the command line.
impl Subcommand for Command {
    fn augment_subcommands(command: clap::Command) -> clap::Command {
        Outside::augment_subcommands(Inside::augment_subcommands(command))
    }

    fn augment_subcommands_for_update(command: clap::Command) -> clap::Command {
        Self::augment_subcommands(command)
    }

    fn has_subcommand(name: &str) -> bool {
        Inside::has_subcommand(name) || Outside::has_subcommand(name)
    }
}

impl FromArgMatches for Command {
    fn from_arg_matches(matches: &clap::ArgMatches) -> Result<Self, clap::Error> {
        match matches.subcommand_name() {
            Some(name) if Outside::has_subcommand(name) => {
                Outside::from_arg_matches(matches).map(Command::Outside)
            }
            _ => Inside::from_arg_matches(matches).map(|inside| Command::Inside(Box::new(inside))),
        }
    }

    fn update_from_arg_matches(&mut self, matches: &clap::ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}
