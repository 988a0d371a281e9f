//! git-model versions machine-learning models with git: small pointers in git, their content in object storage.
//!
//! Modules are arranged in floors. A module imports from floors below its own, never from above, and modules of floor 2
//! do not import each other. `tests/floors.rs` checks it; `docs/architecture.md` explains it.
//!
//! - floor 4: [`cli`]: words in, words out
//! - floor 3: [`ops`]: one file per use case; returns data, prints nothing
//! - floor 2: [`git`], [`cache`], [`worktree`], [`remote`], [`config`], [`execution`]: each owns one outside world
//! - floor 1: values and formats. Storage: [`mod@pointer`], [`tree`], [`repo_config`], [`remote_url`], [`listing`]. Models:
//!   [`model_yaml`], [`lineage`], [`model_info`], [`release`], [`attest`]. What they are made of: [`codec`], [`values`], [`lockfile`],
//!   [`json_schema`], [`yaml`]. As artifacts of registries: [`oci`]
//! - floor 0: [`error`], [`id`], [`repo_path`], [`progress`], [`fsio`], [`human`], [`secrets`]: ground

pub mod attest;
pub mod cache;
pub mod cli;
pub mod codec;
pub mod config;
pub mod error;
pub mod execution;
pub mod fsio;
pub mod gates;
pub mod git;
pub mod human;
pub mod id;
pub mod json_schema;
pub mod lineage;
pub mod listing;
pub mod lockfile;
pub mod manifests;
pub mod model_info;
pub mod model_yaml;
pub mod oci;
pub mod ops;
pub mod pointer;
pub mod progress;
pub mod release;
pub mod remote;
pub mod remote_url;
pub mod repo_config;
pub mod repo_path;
pub mod secrets;
pub mod tree;
pub mod values;
pub mod worktree;
pub mod yaml;
