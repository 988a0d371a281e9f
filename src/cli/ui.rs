//! The only place that prints: data on standard output, talk on standard error.

use std::fmt::Display;
use std::io::{self, Write};

use serde::Serialize;

use crate::error::{Error, Result};
use crate::human;

/// Where a command's words go.
#[derive(Debug)]
pub(crate) struct Ui {
    quiet: bool,
}

impl Ui {
    pub(crate) fn new(quiet: bool) -> Ui {
        Ui { quiet }
    }

    /// Whether only results and errors are wanted.
    pub(crate) fn is_quiet(&self) -> bool {
        self.quiet
    }

    /// One line of data.
    pub(crate) fn out(&self, line: impl Display) -> Result<()> {
        self.raw(format!("{line}\n").as_bytes())
    }

    /// Data as it is.
    pub(crate) fn raw(&self, bytes: &[u8]) -> Result<()> {
        let mut out = io::stdout().lock();
        match out.write_all(bytes).and_then(|()| out.flush()) {
            // Whoever read our output has seen enough, as `head` does.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            Err(error) => Err(Error::new("standard output: cannot write").caused_by(error)),
            Ok(()) => Ok(()),
        }
    }

    /// One JSON document of a named schema.
    pub(crate) fn json(&self, schema: &str, value: impl Serialize) -> Result<()> {
        #[derive(Serialize)]
        struct Document<'a, T> {
            schema: &'a str,
            #[serde(flatten)]
            value: T,
        }
        let schema = format!("git-model/{schema}/v1");
        let text = serde_json::to_string_pretty(&Document { schema: &schema, value })
            .map_err(|error| Error::new("cannot make JSON").caused_by(error))?;
        self.out(text)
    }

    /// One line of talk.
    pub(crate) fn say(&self, line: impl Display) {
        if !self.quiet {
            self.talk(&line.to_string());
        }
    }

    /// Something the user should know; said even when quiet.
    pub(crate) fn warn(&self, line: impl Display) {
        self.talk(&format!("warning: {line}"));
    }

    /// Advice.
    pub(crate) fn hint(&self, line: impl Display) {
        self.say(format!("hint: {line}"));
    }

    /// A problem that does not stop the command.
    pub(crate) fn warn_error(&self, error: &Error) {
        self.warn(human::escape(&error.one_line()));
        error.hints().iter().for_each(|hint| self.hint(hint));
    }

    /// Why the command failed.
    pub(crate) fn error(&self, error: &Error) {
        self.talk(&format!("error: {}", human::escape(&error.one_line())));
        for hint in error.hints() {
            self.talk(&format!("hint: {}", human::escape(hint)));
        }
    }

    fn talk(&self, text: &str) {
        // If standard error is closed there is nobody to tell.
        drop(writeln!(io::stderr().lock(), "{text}"));
    }
}
