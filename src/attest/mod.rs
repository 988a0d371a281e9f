//! Statements about a model that are made after its release: signatures, bills of materials, provenance. Formats:
//! `docs/attestations.md`.

pub mod key;
pub mod oms;

pub use key::{PrivateKey, PublicKey};
