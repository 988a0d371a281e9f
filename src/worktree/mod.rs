//! The user's files. Everything here goes through directory descriptors and follows no symbolic link, because paths
//! come from committed files that nobody vouches for.

pub mod ignore;
mod journal;
pub mod place;
pub mod records;
pub mod root;
pub mod scan;
pub mod swap;

pub use place::{LinkMode, Staging};
pub use records::{Record, RecordEntry, Records};
pub use root::{LastParent, Root};
pub use scan::{Scan, Scanned, scan};
