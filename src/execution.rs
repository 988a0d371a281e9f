//! The user's own commands: run with the terminal as it is, signals passed on, and what is worth knowing about the machine.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use chrono::{SecondsFormat, Utc};
use rustix::process::{Pid, Signal, kill_process};
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::iterator::SignalsInfo;
use signal_hook::iterator::exfiltrator::origin::WithOrigin;
use signal_hook::low_level::siginfo::Cause;

use crate::error::{Error, Kind, Result};
use crate::human;
use crate::progress::Interrupt;

/// Signals that the command gets instead of git-model.
const PASSED_ON: [i32; 6] = [SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2];

/// Those of them that ask a program to end.
const ENDING: [i32; 4] = [SIGINT, SIGTERM, SIGHUP, SIGQUIT];
/// What shells answer for a command that is nowhere.
const NOT_FOUND: u8 = 127;
/// What shells answer for a file that is no program, or may not be run.
const NOT_EXECUTABLE: u8 = 126;

/// A command that ended.
#[derive(Clone, Debug)]
pub struct Finished {
    /// Its exit code, as a shell tells it: 128 and the number of the signal that ended it.
    pub code: u8,
    /// When it started, UTC, RFC 3339.
    pub started: String,
    /// How long it took.
    pub duration: Duration,
}

/// Runs a command to its end with this process's input, output and environment.
///
/// Signals that are sent to git-model alone reach the command. Those of a terminal reach it anyway, and only once. Neither ends
/// git-model, which has to see how the command ends. A signal that comes later raises `interrupt`.
pub fn run(command: &[String], interrupt: &Interrupt) -> Result<Finished> {
    let [program, arguments @ ..] = command else { return Err(Error::usage("no command to run")) };
    let shown = human::escape(program);
    let cannot =
        |what: &str, error: io::Error| Error::new(format!("{shown}: cannot {what}")).caused_by(error);
    let watched = PASSED_ON.iter().chain(&[SIGCHLD]);
    let mut signals = SignalsInfo::<WithOrigin>::new(watched).map_err(|error| cannot("be watched", error))?;
    let started = Utc::now().to_rfc3339_opts(SecondsFormat::Secs, true);
    let clock = Instant::now();
    let mut child = Command::new(program).args(arguments).spawn().map_err(|error| {
        let code = if error.kind() == io::ErrorKind::NotFound { NOT_FOUND } else { NOT_EXECUTABLE };
        let hint = format!("is {shown} installed, on PATH and executable?");
        cannot("be started", error).of_kind(Kind::Command(code)).hint(hint)
    })?;
    let status = loop {
        // The end of the command is a signal, too. What came before it was the command's.
        for info in signals.wait() {
            if matches!(info.cause, Cause::Sent(_))
                && info.signal != SIGCHLD
                && let (Some(pid), Some(signal)) = (pid_of(&child), Signal::from_named_raw(info.signal))
            {
                // Nobody asked yet how it ended, so this is no other process's number.
                kill_process(pid, signal).ok();
            }
        }
        if let Some(status) = child.try_wait().map_err(|error| cannot("be waited for", error))? {
            break status;
        }
    };
    let finished = Finished { code: code_of(status), started, duration: clock.elapsed() };
    interrupt_on(signals, interrupt.clone());
    Ok(finished)
}

/// From now on a signal asks for a clean end; a second one gets the system's usual answer.
fn interrupt_on(mut signals: SignalsInfo<WithOrigin>, interrupt: Interrupt) {
    thread::spawn(move || {
        for info in signals.forever().filter(|info| ENDING.contains(&info.signal)) {
            if interrupt.is_raised() {
                signal_hook::low_level::emulate_default_handler(info.signal).ok();
            }
            interrupt.raise();
        }
    });
}

fn pid_of(child: &Child) -> Option<Pid> {
    i32::try_from(child.id()).ok().and_then(Pid::from_raw)
}

fn code_of(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1)
}

/// Facts about the machine that matter for what a command computed; nothing that names the machine or its user.
pub fn host_facts(command: &[String]) -> BTreeMap<String, String> {
    let mut facts = BTreeMap::new();
    facts.insert("platform".to_owned(), format!("{} {}", std::env::consts::OS, std::env::consts::ARCH));
    if let Some(version) = command.first().and_then(|program| python_version(program)) {
        facts.insert("python".to_owned(), version);
    }
    if let Some(accelerator) = accelerator() {
        facts.insert("accelerator".to_owned(), accelerator);
    }
    facts
}

/// The version of the Python that the command is, if it is one.
fn python_version(program: &str) -> Option<String> {
    let name = Path::new(program).file_name()?.to_str()?;
    if !name.starts_with("python") {
        return None;
    }
    let answer = answer_of(program, &["--version"])?;
    answer.strip_prefix("Python ").map(str::to_owned)
}

/// What the driver says, if there is one.
fn accelerator() -> Option<String> {
    if !Path::new("/proc/driver/nvidia").exists() {
        return None;
    }
    let answer = answer_of("nvidia-smi", &["--query-gpu=name,driver_version", "--format=csv,noheader"])?;
    let cards: Vec<&str> = answer.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let first = cards.first()?;
    Some(format!("{} x {first}", cards.len()))
}

fn answer_of(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    (output.status.success() && !text.is_empty()).then_some(text)
}
