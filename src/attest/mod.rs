//! Statements about a model that are made after its release: signatures, bills of materials, provenance. Formats:
//! `docs/attestations.md`.

pub mod bom;
pub mod key;
pub mod oms;
pub mod provenance;

pub use key::{PrivateKey, PublicKey};
