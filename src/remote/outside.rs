//! Looking at data that is not in the layout of a store: listings, and single files on web servers.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::TryStreamExt;
use object_store::path::Path;

use super::{Remote, connect};
use crate::error::{Error, Result};
use crate::human;
use crate::listing::Listed;
use crate::progress::Interrupt;

impl Remote {
    /// Everything below this URL, by key below it. More than `max` objects are an error.
    pub fn list_everything(&self, max: usize) -> Result<BTreeMap<String, Listed>> {
        let prefix = self.url().key_prefix();
        let at = Path::parse(prefix).map_err(|error| {
            Error::new(format!("{}: cannot be a prefix of keys", self.url())).caused_by(error)
        })?;
        self.wait(async {
            let mut found = BTreeMap::new();
            let mut listing = self.store.list((!prefix.is_empty()).then_some(&at));
            while let Some(meta) =
                listing.try_next().await.map_err(|error| self.failed("cannot be listed", &error))?
            {
                let key = meta.location.as_ref();
                let key = key.strip_prefix(prefix).unwrap_or(key).trim_start_matches('/').to_owned();
                let (tag, version) = (meta.e_tag.unwrap_or_default(), meta.version.unwrap_or_default());
                found.insert(key, Listed { size: meta.size, tag, version });
                if found.len() > max {
                    return Err(Error::new(format!("{}: more than {max} objects", self.url())));
                }
            }
            Ok(found)
        })
    }
}

/// Size and ETag of one file on a web server. No credentials are sent, and no redirect is followed.
pub fn head_url(url: &str, interrupt: &Interrupt) -> Result<Listed> {
    let shown = human::escape(url);
    let cannot =
        |error: reqwest::Error| Error::new(format!("{shown}: cannot be read")).caused_by(error.without_url());
    let runtime = connect::runtime()?;
    let answer = runtime.block_on(async {
        connect::http_client(true)?.head(url).timeout(Duration::from_secs(30)).send().await
    });
    interrupt.check()?;
    let answer = answer.map_err(cannot)?;
    if !answer.status().is_success() {
        return Err(Error::new(format!("{shown}: the server answers {}", answer.status())));
    }
    let header =
        |name: &str| answer.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let tag = header("etag").or_else(|| header("last-modified").map(|time| format!("modified {time}")));
    let size = header("content-length").and_then(|length| length.parse().ok());
    match (tag, size) {
        (Some(tag), Some(size)) => Ok(Listed { size, tag, version: String::new() }),
        _ => Err(Error::new(format!(
            "{shown}: the server gives no size, or neither ETag nor modification time"
        ))
        .hint("its content cannot be told apart from later content; copy it and track the copy")),
    }
}
