//! A version of a model at a commit, with everything that belongs to it: what is judged, released, resolved and written out.

use super::Ctx;
use super::bundle::{self, BundleFile};
use super::models::{Place, lineage_path};
use crate::error::{Error, Result};
use crate::git::Oid;
use crate::human;
use crate::id::Digest;
use crate::lineage::{self, Lineage};
use crate::model_info;
use crate::model_yaml::{self, Model};
use crate::release::{History, ModelName, Release, Wanted};
use crate::repo_path::RepoPath;

/// A version at a commit.
#[derive(Debug)]
pub(super) struct Candidate {
    /// The commit.
    pub(super) commit: Oid,
    /// Its declaration.
    pub(super) model: Model,
    /// Its record.
    pub(super) lineage: Lineage,
    /// Digest of the declaration's bytes.
    pub(super) model_sha256: Digest,
    /// Digest of the record's bytes.
    pub(super) lineage_sha256: Digest,
    /// Its files one by one.
    pub(super) files: Vec<BundleFile>,
    /// The model digest.
    pub(super) digest: Digest,
    /// The declaration's and the record's bytes, by path.
    pub(super) papers: [(RepoPath, Vec<u8>); 2],
}

impl Candidate {
    /// Reads the version of `name` at a commit.
    pub(super) fn load(ctx: &Ctx, name: Option<&str>, commit: &Oid) -> Result<Candidate> {
        let model = ctx.model(name, Place::Commit(commit))?;
        Candidate::of_model(ctx, model, commit)
    }

    /// Reads the version that a release's tag is about; everything that it states must be true.
    pub(super) fn of_release(ctx: &Ctx, release: &Release) -> Result<Candidate> {
        let commit = ctx.git.parse_id(&release.tag.target)?;
        let Some(payload) = release.payload() else {
            return Candidate::load(ctx, Some(release.tag.name.model().as_str()), &commit);
        };
        let shown = format!("{}@v{}", payload.name, payload.version);
        let model = ctx
            .model_at(&payload.manifest, Place::Commit(&commit))?
            .ok_or_else(|| tampered(&shown, &format!("its commit has no {}", payload.manifest)))?;
        let candidate =
            Candidate::of_model(ctx, model, &commit).map_err(|error| error.about(shown.clone()))?;
        for (what, stated, found) in [
            ("model.yaml", payload.model, candidate.model_sha256),
            ("lineage.yaml", payload.lineage, candidate.lineage_sha256),
            ("model digest", payload.digest, candidate.digest),
            ("OMS root", payload.oms, candidate.oms_root()),
        ] {
            if stated != found {
                let why = format!(
                    "its tag states another {what} ({}) than its commit has ({})",
                    stated.short(),
                    found.short()
                );
                return Err(tampered(&shown, &why));
            }
        }
        if candidate.model.name != payload.name {
            return Err(tampered(&shown, "its commit declares a model of another name"));
        }
        Ok(candidate)
    }

    fn of_model(ctx: &Ctx, model: Model, commit: &Oid) -> Result<Candidate> {
        let place = Place::Commit(commit);
        let record = lineage_path(&model)?;
        let missing = || {
            Error::refused(format!(
                "{}: no {} is committed for it at {}",
                model.name,
                lineage::FILE_NAME,
                &commit.as_str()[..10]
            ))
            .hint(format!("git model record {} and commit", model.name))
        };
        let declaration = ctx.file_at(&model.path, model_yaml::MAX_BYTES, place)?.ok_or_else(missing)?;
        let recorded = ctx.file_at(&record, lineage::MAX_BYTES, place)?.ok_or_else(missing)?;
        let lineage = Lineage::parse(&recorded, record.as_str())?;
        let files = bundle::files(ctx, &lineage, Some(commit))?;
        if let Some(file) = files.iter().find(|file| file.path.as_str() == model_info::FILE_NAME) {
            return Err(Error::refused(format!(
                "{}: a file of the model cannot have this name, because it stands beside every model that is written out",
                file.path
            ))
            .hint("move it into a folder"));
        }
        Ok(Candidate {
            commit: commit.clone(),
            digest: bundle::model_digest(&files),
            model_sha256: Digest::of(&declaration),
            lineage_sha256: Digest::of(&recorded),
            papers: [(model.path.clone(), declaration), (record, recorded)],
            model,
            lineage,
            files,
        })
    }

    /// The files that releasing puts into the store as plain objects, with digest and size.
    pub(super) fn plain_files(&self) -> impl Iterator<Item = (&RepoPath, Digest, u64)> {
        let files = self.files.iter().map(|file| (&file.path, file.sha256, file.size));
        let papers = self.papers.iter().map(|(path, bytes)| (path, Digest::of(bytes), bytes.len() as u64));
        files.chain(papers)
    }

    /// The root digest of the bundle as OpenSSF Model Signing computes it: SHA-256 over the files' digests, as raw bytes, in the
    /// order of their paths.
    pub(super) fn oms_root(&self) -> Digest {
        let mut all: Vec<(&str, Digest)> =
            self.files.iter().map(|file| (file.path.as_str(), file.sha256)).collect();
        all.extend(self.papers.iter().map(|(path, bytes)| (path.as_str(), Digest::of(bytes))));
        all.sort_unstable();
        all.dedup();
        let mut hasher = crate::id::Hasher::default();
        all.iter().for_each(|(_, digest)| hasher.update(digest.as_bytes()));
        hasher.finish()
    }
}

fn tampered(release: &str, why: &str) -> Error {
    Error::refused(format!("{release}: {why}"))
        .hint("somebody rewrote something; ask whoever released it, and compare clones")
}

/// The release of a model that was asked for. Damage that concerns it is refused.
pub(super) fn require_release<'h>(
    history: &'h History,
    name: &ModelName,
    wanted: &Wanted,
    typed: &str,
) -> Result<&'h Release> {
    let release = history.find(wanted);
    let version = match (release, wanted) {
        (Some(release), _) => Some(&release.version),
        (None, Wanted::Exact(version)) => Some(version),
        (None, _) => None,
    };
    let damaged = |version| history.findings().iter().find(|finding| finding.concerns(version));
    match (version.and_then(damaged), release) {
        (Some(finding), _) => {
            Err(Error::refused(format!("{}: {finding}", human::escape(typed))).hint(finding.remedy()))
        }
        (None, Some(release)) => Ok(release),
        (None, None) => Err(Error::new(format!("{}: there is no such release", human::escape(typed)))
            .hint(format!("git model history {name} lists the releases"))),
    }
}
