use serde_json::json;

use crate::cli::Ui;
use crate::error::{Error, Result};
use crate::ops::{Ctx, remotes};

/// Manage the stores that content is pushed to and fetched from
#[derive(clap::Args, Debug)]
pub(crate) struct RemoteArgs {
    #[command(subcommand)]
    command: RemoteCommand,
}

#[derive(clap::Subcommand, Debug)]
enum RemoteCommand {
    /// Add a remote to .git-model.yaml and approve it in this clone
    Add {
        /// Its name
        name: String,
        /// A folder, s3://bucket/prefix, gs://bucket/prefix, az://account/container/prefix, or https://host/path
        url: String,
        /// Replace the URL of a remote that exists
        #[arg(long, short)]
        force: bool,
    },
    /// List the remotes and where their URLs come from
    List {
        /// Print the result as JSON
        #[arg(long)]
        json: bool,
    },
    /// Choose the remote that is used when none is named
    Default {
        /// Its name
        name: String,
    },
    /// Take a remote out of .git-model.yaml; the store itself is not touched
    Remove {
        /// Its name
        name: String,
    },
    /// Approve a remote's committed URL in this clone
    Trust {
        /// Its name; the default remote if not given
        name: Option<String>,
    },
    /// Try to write, read and remove a small object, and tell what the store can do
    Check {
        /// Its name; the default remote if not given
        name: Option<String>,
        /// Print the result as JSON
        #[arg(long)]
        json: bool,
    },
}

pub(super) fn run(ui: &Ui, ctx: &Ctx, args: &RemoteArgs) -> Result<()> {
    match &args.command {
        RemoteCommand::Add { name, url, force } => {
            let url = remotes::add(ctx, name, url, *force)?;
            ui.say(format!("{name}: {url} (in .git-model.yaml, staged)"));
        }
        RemoteCommand::List { json } => return list(ui, ctx, *json),
        RemoteCommand::Default { name } => {
            remotes::set_default(ctx, name)?;
            ui.say(format!("{name} is the default remote (in .git-model.yaml, staged)"));
        }
        RemoteCommand::Remove { name } => {
            remotes::remove(ctx, name)?;
            ui.say(format!("{name}: removed from .git-model.yaml (staged)"));
        }
        RemoteCommand::Trust { name } => {
            let found = remotes::trust(ctx, name.as_deref())?;
            ui.say(format!("{}: {} is approved in this clone", found.name, found.url));
        }
        RemoteCommand::Check { name, json } => return check(ui, ctx, name.as_deref(), *json),
    }
    Ok(())
}

fn list(ui: &Ui, ctx: &Ctx, json: bool) -> Result<()> {
    let remotes = remotes::list(ctx)?;
    if json {
        return ui.json("remote-list", json!({ "remotes": remotes }));
    }
    for remote in remotes {
        let mut notes = Vec::new();
        if remote.default {
            notes.push("default".to_owned());
        }
        if !remote.trusted {
            notes.push("not approved here".to_owned());
        }
        if remote.source == remotes::Source::Config {
            notes.push("from git config".to_owned());
        }
        notes.extend(remote.endpoint.map(|endpoint| {
            format!("endpoint {}", crate::human::escape(&crate::remote_url::redact(&endpoint)))
        }));
        let notes = if notes.is_empty() { String::new() } else { format!(" ({})", notes.join(", ")) };
        ui.out(format!("{}  {}{notes}", remote.name, remote.url))?;
    }
    Ok(())
}

fn check(ui: &Ui, ctx: &Ctx, name: Option<&str>, json: bool) -> Result<()> {
    let (remote, checked) = remotes::check(ctx, name)?;
    if json {
        return ui.json("remote-check", json!({ "remote": remote, "check": checked }));
    }
    if checked.writable == Some(false) {
        return Err(Error::refused(format!("{}: other bytes came back than were written", remote.url)));
    }
    let Some(conditional_writes) = checked.conditional_writes else {
        let id = checked.store.ok_or_else(|| {
            Error::refused(format!("{}: no store of git-model is there", remote.url))
                .hint("its format.json should be at this URL")
        })?;
        ui.out(format!("{}: {} can be read", remote.name, remote.url))?;
        return ui.out(format!("store id: {id}"));
    };
    let id = checked.store.as_deref().unwrap_or("none yet, the first push makes one");
    ui.out(format!("{}: {} can be read and written", remote.name, remote.url))?;
    ui.out(format!("store id: {id}"))?;
    ui.out(format!("refuses to overwrite when asked: {}", if conditional_writes { "yes" } else { "no" }))
}
