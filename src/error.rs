//! The one error type, and the rules for using it.
//!
//! - A message is one line: the path (or URL) first, then what could not be done. It has no full stop.
//! - The reason is the `source`; the printer walks the chain, so a message never repeats it.
//! - What the user can do about it is a hint, not part of the message.
//! - The [`Kind`] decides the exit code, and nothing else does.

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::path::Path;

/// Result with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What sort of failure it was. Each has one exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The work could not be done. Exit code 1.
    Failed,
    /// The command was used wrongly. Exit code 2.
    Usage,
    /// A check said no: dirty under `--check`, damage found. Exit code 3.
    Refused,
    /// Another process won a race and nothing was changed. Exit code 4.
    Race,
    /// A command of the user's that was run failed with this exit code, which becomes ours.
    Command(u8),
}

impl Kind {
    /// The process exit code of this kind.
    pub fn exit_code(self) -> u8 {
        match self {
            Kind::Failed => 1,
            Kind::Usage => 2,
            Kind::Refused => 3,
            Kind::Race => 4,
            Kind::Command(code) => code,
        }
    }
}

/// An error with its cause and its hints.
#[derive(Debug)]
pub struct Error {
    kind: Kind,
    message: String,
    source: Option<Box<dyn StdError + Send + Sync>>,
    hints: Vec<String>,
}

impl Error {
    /// An error of kind [`Kind::Failed`].
    pub fn new(message: impl Into<String>) -> Self {
        Error { kind: Kind::Failed, message: message.into(), source: None, hints: Vec::new() }
    }

    /// An error of kind [`Kind::Usage`].
    pub fn usage(message: impl Into<String>) -> Self {
        Error::new(message).of_kind(Kind::Usage)
    }

    /// An error of kind [`Kind::Refused`].
    pub fn refused(message: impl Into<String>) -> Self {
        Error::new(message).of_kind(Kind::Refused)
    }

    /// The same error with another kind.
    pub fn of_kind(mut self, kind: Kind) -> Self {
        self.kind = kind;
        self
    }

    /// The same error, caused by `source`.
    pub fn caused_by(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// The error that this one is the cause of: a line about something larger, of the same kind and with the same hints.
    pub fn about(mut self, message: impl Into<String>) -> Self {
        let (kind, hints) = (self.kind, std::mem::take(&mut self.hints));
        Error { kind, message: message.into(), source: Some(Box::new(self)), hints }
    }

    /// The same error with one more line of advice.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    /// What sort of failure it is.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Advice for the user, in order.
    pub fn hints(&self) -> &[String] {
        &self.hints
    }

    /// Message and causes on one line, joined with `: `.
    pub fn one_line(&self) -> String {
        let mut line = self.message.clone();
        let mut cause = self.source();
        while let Some(error) = cause {
            line.push_str(": ");
            line.push_str(&error.to_string());
            cause = error.source();
        }
        line
    }

    /// Whether the direct cause is an I/O error of this kind.
    pub fn is_io(&self, kind: io::ErrorKind) -> bool {
        self.io().is_some_and(|error| error.kind() == kind)
    }

    /// Whether the direct cause is an I/O error.
    pub fn is_of_io(&self) -> bool {
        self.io().is_some()
    }

    fn io(&self) -> Option<&io::Error> {
        self.source.as_ref()?.downcast_ref()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_ref().map(|source| &**source as &(dyn StdError + 'static))
    }
}

/// Adds the path and the action to errors that come without them.
pub trait Context<T> {
    /// Turns an error into `<path>: cannot <action>`, caused by it.
    fn context(self, path: impl AsRef<Path>, action: &str) -> Result<T>;
}

impl<T, E: Into<io::Error>> Context<T> for std::result::Result<T, E> {
    fn context(self, path: impl AsRef<Path>, action: &str) -> Result<T> {
        self.map_err(|error| {
            let error: io::Error = error.into();
            let out_of_space = error.kind() == io::ErrorKind::StorageFull;
            let wrapped =
                Error::new(format!("{}: cannot {action}", path.as_ref().display())).caused_by(error);
            if out_of_space { wrapped.hint("free some space and run the command again") } else { wrapped }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_walks_the_causes() {
        let inner = io::Error::from(io::ErrorKind::PermissionDenied);
        let error = Err::<(), _>(inner).context("a/b", "read").unwrap_err();
        assert_eq!(error.one_line(), "a/b: cannot read: permission denied");
        assert_eq!(error.kind().exit_code(), 1);
    }
}
