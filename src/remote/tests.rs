//! The suite of `tests/conformance.rs` over a store in memory, as far as one process can see it: what a store has to do is
//! the same there.

use std::sync::Mutex;

use object_store::MultipartId;
use object_store::memory::InMemory;
use object_store::multipart::PartId;

use super::*;
use crate::fsio::{Durability, Partial};
use crate::progress::{Progress, Silent, Step};

const MIB: usize = 1024 * 1024;
/// Around one part, and around what comes in pieces.
const SIZES: [usize; 6] = [0, 1_000, 16 * MIB, 16 * MIB + 1, 32 * MIB + 1, 40 * MIB];

impl Remote {
    fn in_memory() -> Remote {
        let store = Arc::new(InMemory::new());
        let multipart: Arc<dyn MultipartStore> = Arc::<InMemory>::clone(&store);
        Remote {
            url: RemoteUrl::parse("s3://bucket/in/memory").unwrap(),
            store,
            signer: None,
            multipart: Some(multipart),
            checksums: None,
            runtime: connect::runtime().unwrap(),
            engine: Engine::new(&Traffic::new(None, None), false),
            interrupt: Interrupt::default(),
        }
    }

    fn overwrite(&self, digest: &Digest, bytes: Vec<u8>) {
        let key = layout::object_key(&self.url, digest).unwrap();
        self.runtime.block_on(self.store.put(&key, PutPayload::from(bytes))).unwrap();
    }
}

fn step() -> Box<dyn Step> {
    Silent.step("", 0, 0)
}

fn noise(seed: u64, size: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..size).map(|_| next()).collect()
}

/// Files to send, with their uploads.
fn uploads(dir: &std::path::Path, contents: &[Vec<u8>]) -> Vec<Upload> {
    let upload = |(number, bytes): (usize, &Vec<u8>)| {
        let file = dir.join(number.to_string());
        std::fs::write(&file, bytes).unwrap();
        let (path, size) = (format!("file-{number}"), bytes.len() as u64);
        Upload { path, digest: Digest::of(bytes), size, file, replaces: false }
    };
    contents.iter().enumerate().map(upload).collect()
}

fn download_of(upload: &Upload) -> Download {
    Download { path: upload.path.clone(), digest: upload.digest, size: upload.size, exact: true }
}

/// Keeps what comes, in order or in pieces.
struct Keep<'a> {
    digest: Digest,
    size: u64,
    dir: &'a std::path::Path,
    bytes: Vec<u8>,
    partial: Option<Arc<Partial>>,
    kept: &'a Mutex<Objects>,
}

impl Receive for Keep<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    fn in_pieces(&mut self) -> Result<Option<Arc<Partial>>> {
        let partial = Arc::new(Partial::open(self.dir, self.digest, self.size, Durability::Off)?);
        self.partial = Some(Arc::clone(&partial));
        Ok(Some(partial))
    }

    fn finish(self: Box<Self>) -> Result<()> {
        let bytes = match &self.partial {
            Some(partial) if partial.is_right()? => {
                partial.complete(0o600)?;
                std::fs::read(partial.path()).unwrap()
            }
            Some(_) => return Err(Error::new("wrong bytes")),
            None => self.bytes,
        };
        if Digest::of(&bytes) != self.digest {
            return Err(Error::new("wrong bytes"));
        }
        self.kept.lock().unwrap().insert(self.digest, bytes);
        Ok(())
    }
}

type Objects = HashMap<Digest, Vec<u8>>;

/// What came, and what did not.
fn fetch(remote: &Remote, wanted: &[Download]) -> (Objects, Vec<(Digest, Error)>) {
    let (dir, kept) = (tempfile::tempdir().unwrap(), Mutex::default());
    let receive = |download: &Download| -> Result<Box<dyn Receive + '_>> {
        let Download { digest, size, .. } = *download;
        Ok(Box::new(Keep { digest, size, dir: dir.path(), bytes: Vec::new(), partial: None, kept: &kept }))
    };
    let failed = remote.download(wanted, &receive, step().as_ref()).unwrap();
    (kept.into_inner().unwrap(), failed)
}

#[test]
fn objects_of_all_sizes_come_back() {
    let (remote, dir) = (Remote::in_memory(), tempfile::tempdir().unwrap());
    let contents: Vec<Vec<u8>> = (1..).zip(SIZES).map(|(seed, size)| noise(seed, size)).collect();
    let uploads = uploads(dir.path(), &contents);
    let records = dir.path().join("records");
    assert!(remote.upload(&uploads, &records, step().as_ref()).unwrap().is_empty());
    assert_eq!(std::fs::read_dir(&records).map_or(0, Iterator::count), 0, "nothing is left to go on with");
    let wanted: Vec<Download> = uploads.iter().map(download_of).collect();
    let (came, failed) = fetch(&remote, &wanted);
    assert!(failed.is_empty(), "{failed:?}");
    for bytes in contents {
        assert!(came[&Digest::of(&bytes)] == bytes, "{}", bytes.len());
    }
}

/// Begins no upload in parts, and notes which ones are to be ended.
#[derive(Default)]
struct Closed(Mutex<Vec<String>>);

#[async_trait::async_trait]
impl MultipartStore for Closed {
    async fn create_multipart(&self, _: &Path) -> object_store::Result<MultipartId> {
        Err(object_store::Error::Generic { store: "S3", source: "it is closed".into() })
    }

    async fn put_part(
        &self,
        _: &Path,
        _: &MultipartId,
        _: usize,
        _: PutPayload,
    ) -> object_store::Result<PartId> {
        unreachable!("there is no upload")
    }

    async fn complete_multipart(
        &self,
        _: &Path,
        _: &MultipartId,
        _: Vec<PartId>,
    ) -> object_store::Result<object_store::PutResult> {
        unreachable!("there is no upload")
    }

    async fn abort_multipart(&self, _: &Path, id: &MultipartId) -> object_store::Result<()> {
        self.0.lock().unwrap().push(id.clone());
        Ok(())
    }
}

#[test]
fn an_upload_that_was_not_begun_is_not_ended() {
    let (mut remote, dir) = (Remote::in_memory(), tempfile::tempdir().unwrap());
    let closed = Arc::new(Closed::default());
    remote.multipart = Some(Arc::<Closed>::clone(&closed));
    let uploads = uploads(dir.path(), &[noise(1, 17 * MIB)]);
    // Another process is at it, so this one's is not noted.
    let record = dir.path().join(uploads[0].digest.to_hex());
    let other = std::fs::File::create(&record).unwrap();
    other.lock().unwrap();
    let error = remote.upload(&uploads, dir.path(), step().as_ref()).unwrap_err();
    assert!(error.one_line().contains("it is closed"), "{}", error.one_line());
    assert_eq!(closed.0.lock().unwrap().as_slice(), [""; 0]);
}

#[test]
fn what_is_there_is_found_by_asking_and_by_listing() {
    let (remote, dir) = (Remote::in_memory(), tempfile::tempdir().unwrap());
    let contents: Vec<Vec<u8>> = (0..LIST_FROM + 40).map(|number| number.to_string().into_bytes()).collect();
    let uploads = uploads(dir.path(), &contents);
    remote.upload(&uploads[..LIST_FROM + 20], dir.path(), step().as_ref()).unwrap();
    let digests: Vec<Digest> = uploads.iter().map(|upload| upload.digest).collect();
    for asked in [&digests[..], &digests[LIST_FROM..]] {
        let sizes = remote.sizes(asked).unwrap();
        assert_eq!(sizes.len(), asked.len() - 20);
        for upload in &uploads[LIST_FROM..LIST_FROM + 20] {
            assert_eq!(sizes[&upload.digest], upload.size);
        }
    }
}

#[test]
fn absent_and_wrong_objects_are_named_and_the_others_come() {
    let (remote, dir) = (Remote::in_memory(), tempfile::tempdir().unwrap());
    let contents =
        [noise(1, 1_000), noise(2, 1_000), noise(3, 40 * MIB), noise(4, 40 * MIB), noise(5, 1_000)];
    let uploads = uploads(dir.path(), &contents);
    remote.upload(&uploads[..4], dir.path(), step().as_ref()).unwrap();
    remote.overwrite(&uploads[1].digest, noise(9, 1_000));
    remote.overwrite(&uploads[2].digest, noise(9, 40 * MIB));
    remote.overwrite(&uploads[3].digest, noise(4, 39 * MIB));
    let wanted: Vec<Download> = uploads.iter().map(download_of).collect();
    let (came, failed) = fetch(&remote, &wanted);
    assert_eq!(came.into_keys().collect::<Vec<_>>(), [uploads[0].digest]);
    let texts: Vec<String> = failed.iter().map(|(_, error)| error.one_line()).collect();
    for (text, expected) in texts.iter().zip([
        "file-1: wrong bytes",
        "file-2: wrong bytes",
        "file-3: the store has 40894464 bytes under its name, not 41943040",
        "file-4: its content is not in s3://bucket/in/memory",
    ]) {
        assert!(text.contains(expected), "{texts:?}");
    }
    assert_eq!(texts.len(), 4);
}

#[test]
fn an_upload_whose_file_is_damaged_is_not_made() {
    let (remote, dir) = (Remote::in_memory(), tempfile::tempdir().unwrap());
    let uploads = uploads(dir.path(), &[noise(1, 1_000), noise(2, 40 * MIB), noise(3, 1_000)]);
    for damaged in &uploads[..2] {
        let mut bytes = std::fs::read(&damaged.file).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        std::fs::write(&damaged.file, bytes).unwrap();
    }
    let failed = remote.upload(&uploads, dir.path(), step().as_ref()).unwrap();
    let failed: Vec<Digest> = failed.into_iter().map(|(digest, _)| digest).collect();
    assert_eq!(failed, [uploads[0].digest, uploads[1].digest]);
    let digests: Vec<Digest> = uploads.iter().map(|upload| upload.digest).collect();
    let there = remote.sizes(&digests).unwrap();
    assert_eq!(there.into_keys().collect::<Vec<_>>(), [uploads[2].digest]);
}

#[test]
fn a_store_has_one_id_and_says_whether_it_honours_conditions() {
    let remote = Remote::in_memory();
    assert_eq!(remote.id().unwrap(), None);
    let id = remote.id_or_create().unwrap();
    assert_eq!(remote.id_or_create().unwrap(), id);
    let checked = remote.check().unwrap();
    assert_eq!(
        (checked.store, checked.writable, checked.conditional_writes),
        (Some(id), Some(true), Some(true))
    );
}

#[test]
fn what_is_attested_is_listed_and_checked() {
    let remote = Remote::in_memory();
    let model = Digest::of(b"model");
    assert_eq!(remote.attestations(&model).unwrap(), [""; 0]);
    let key = remote.attest(&model, b"statement".to_vec()).unwrap();
    assert_eq!(remote.attest(&model, b"statement".to_vec()).unwrap(), key);
    assert_eq!(remote.attestations(&model).unwrap(), std::slice::from_ref(&key));
    assert_eq!(remote.attestation(&key, 100).unwrap().as_deref(), Some(&b"statement"[..]));
    assert_eq!(remote.attestation(&key, 8).unwrap(), None);
    let path = Path::parse(&key).unwrap();
    remote.runtime.block_on(remote.store.put(&path, PutPayload::from_static(b"other"))).unwrap();
    assert!(remote.attestation(&key, 100).is_err());
}
