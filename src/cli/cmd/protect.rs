use crate::cli::Ui;
use crate::error::Result;
use crate::ops::protect::{self, Host};

/// Print the rules that make releases and stage events immutable at the host
///
/// git-model never rewrites a tag, but only the host can keep others from doing so.
#[derive(clap::Args, Debug)]
pub(crate) struct ProtectArgs {
    /// For which host
    #[arg(long, value_enum)]
    print: Printed,
}

#[derive(clap::ValueEnum, Clone, Copy, Debug)]
enum Printed {
    /// A tag ruleset for GitHub's REST API
    Github,
    /// Protected tags for GitLab's REST API
    Gitlab,
    /// An update hook for a bare repository
    Hook,
}

pub(super) fn run(ui: &Ui, args: &ProtectArgs) -> Result<()> {
    let host = match args.print {
        Printed::Github => Host::GitHub,
        Printed::Gitlab => Host::GitLab,
        Printed::Hook => Host::Hook,
    };
    ui.raw(protect::rules(host).as_bytes())
}
