//! Stores in a folder.

use std::path::Path;
use std::sync::Arc;

use object_store::DynObjectStore;
use object_store::local::LocalFileSystem;

use super::Access;
use crate::error::{Context, Error, Result};
use crate::fsio::Durability;
use crate::remote::explain::explain;
use crate::remote_url::RemoteUrl;

pub(super) fn open(url: &RemoteUrl, path: &Path, access: &Access) -> Result<Arc<DynObjectStore>> {
    if access.create {
        crate::fsio::create_dir_all(path, access.durability)?;
    }
    if !path.is_dir() {
        return Err(Error::new(format!("{}: no such folder", path.display()))
            .hint("mount it, or correct the URL: git model remote add --force NAME URL"));
    }
    // Resolved once: links inside the store are never made by git-model.
    let path = std::fs::canonicalize(path).context(path, "resolve")?;
    let store =
        LocalFileSystem::new_with_prefix(&path).map_err(|error| explain(url, "cannot be opened", &error))?;
    Ok(Arc::new(store.with_fsync(access.durability == Durability::Full)))
}
