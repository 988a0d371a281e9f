use super::*;

fn file(path: &str, content: &str) -> FlatEntry {
    FlatEntry {
        path: path.to_owned(),
        kind: Kind::File,
        digest: Digest::of(content.as_bytes()),
        size: content.len() as u64,
    }
}

fn dir(path: &str) -> FlatEntry {
    FlatEntry { path: path.to_owned(), kind: Kind::Tree, digest: Digest::of(b""), size: 0 }
}

fn read_from(built: &Built) -> impl FnMut(&Digest, usize) -> Result<Vec<u8>> + use<> {
    let objects: HashMap<Digest, Vec<u8>> = built.objects.iter().cloned().collect();
    move |digest, _| objects.get(digest).cloned().ok_or_else(|| Error::new("absent"))
}

fn numbered(count: usize) -> Vec<FlatEntry> {
    (0..count).map(|n| file(&format!("{n:05}.txt"), &n.to_string())).collect()
}

/// The listings that `tests/vectors/trees.json` names.
fn vector_listing(name: &str) -> Vec<FlatEntry> {
    match name {
        "empty" => vec![],
        "one file" => vec![file("a", "hello\n")],
        "every kind" => vec![
            file("b.txt", "b"),
            FlatEntry { kind: Kind::Executable, ..file("run.sh", "#!/bin/sh\n") },
            FlatEntry { kind: Kind::Link, ..file("latest", "b.txt") },
            dir("empty"),
            dir("sub"),
            file("sub/naïve 模型.bin", ""),
        ],
        "4096 entries" => numbered(4096),
        "4097 entries" => numbered(4097),
        other => panic!("unknown vector {other}"),
    }
}

#[test]
fn test_vectors() {
    let vectors: Vec<serde_json::Value> =
        serde_json::from_str(include_str!("../../tests/vectors/trees.json")).unwrap();
    assert_eq!(vectors.len(), 5);
    for vector in vectors {
        let name = vector["name"].as_str().unwrap();
        let built = build(&vector_listing(name)).unwrap();
        assert_eq!(built.root.to_hex(), vector["sha256"].as_str().unwrap(), "{name}");
        assert_eq!(built.objects.len() as u64, vector["objects"].as_u64().unwrap(), "{name}");
        if let Some(text) = vector["text"].as_str() {
            assert_eq!(std::str::from_utf8(&built.objects.last().unwrap().1).unwrap(), text, "{name}");
        }
    }
}

#[test]
fn flatten_inverts_build() {
    for name in ["empty", "one file", "every kind", "4097 entries"] {
        let listing = vector_listing(name);
        let built = build(&listing).unwrap();
        let mut flat = flatten(built.root, built.files, &mut read_from(&built)).unwrap();
        assert_eq!(flat.iter().filter(|e| e.kind != Kind::Tree).count() as u64, built.files);
        flat.sort_by(|a, b| a.path.cmp(&b.path));
        let mut paths: Vec<_> = listing.iter().map(|e| (e.path.clone(), e.kind)).collect();
        paths.sort();
        assert_eq!(flat.iter().map(|e| (e.path.clone(), e.kind)).collect::<Vec<_>>(), paths);
    }
}

#[test]
fn one_changed_file_rewrites_one_shard() {
    let mut listing = numbered(20_000);
    let before = build(&listing).unwrap();
    listing[777] = file("00777.txt", "changed");
    let after = build(&listing).unwrap();
    let old: std::collections::HashSet<Digest> = before.objects.iter().map(|(digest, _)| *digest).collect();
    let new: Vec<_> = after.objects.iter().filter(|(digest, _)| !old.contains(digest)).collect();
    assert_eq!(new.len(), 2, "the shard and its level");
    assert!(new.iter().all(|(_, bytes)| bytes.len() < 32 * 1024));
}

#[test]
fn only_canonical_bytes_parse() {
    let good = build(&vector_listing("every kind")).unwrap().objects.pop().unwrap().1;
    let good = String::from_utf8(good).unwrap();
    assert!(Node::parse(good.as_bytes(), 0).is_ok());
    let first = good.lines().nth(1).unwrap().to_owned() + "\n";
    for bad in [
        good.replace("tree 1\n", "tree 2\n"),
        good.trim_end().to_owned(),
        good.replace(" 1 b.txt", " 01 b.txt"),
        good.replace(" 1 b.txt", " +1 b.txt"),
        good.replace(" 1 b.txt", " 9223372036854775808 b.txt"),
        good.replace("b.txt", ".."),
        good.replace("b.txt", "x/y"),
        good.replace("b.txt", ".git"),
        good.replace("b.txt", "b\u{1b}"),
        good.replace("b.txt", "RUN.sh"),
        good.replace("file ", "fifo "),
        good.clone() + &first,
        good.replace('\n', "\r\n"),
        String::new(),
        "git-model shards 1\n".to_owned(),
        format!("git-model shards 1\n00 {} 5 10\n", Digest::of(b"")),
    ] {
        assert!(Node::parse(bad.as_bytes(), 0).is_err(), "{bad}");
    }
}

#[test]
fn names_that_collide_elsewhere_are_refused() {
    for (a, b) in [("a", "A"), ("é", "e\u{301}"), ("straße", "STRASSE"), ("ſ", "s"), ("ﬁ", "FI")] {
        let error = build(&[file(a, ""), file(b, "")]).unwrap_err().one_line();
        assert!(error.contains("same name as"), "{a} {b}: {error}");
    }
    assert!(build(&[file("e\u{301}", "")]).is_ok(), "a lone decomposed name is kept as it is");
    assert!(build(&[dir("a"), dir("b"), file("a/x", ""), file("b/X", "")]).is_ok(), "only within one level");
}

#[test]
fn link_targets_stay_inside() {
    for (link, target) in [("l", "a"), ("d/l", "../a"), ("l", "d/../a"), ("a/b/l", "../../x"), ("l", "./a")] {
        assert!(link_stays_inside(link, target), "{link} -> {target}");
    }
    for (link, target) in
        [("l", "../a"), ("l", "/etc/passwd"), ("d/l", "../../a"), ("l", "a/../../b"), ("l", "")]
    {
        assert!(!link_stays_inside(link, target), "{link} -> {target}");
    }
}

#[test]
fn lies_in_sums_are_found() {
    let inner = build(&[file("x", "12345")]).unwrap();
    let lie = encode_level(&[Entry { kind: Kind::Tree, digest: inner.root, size: 4, name: "d".into() }]);
    let root = lie.last().unwrap().0;
    let mut objects: HashMap<Digest, Vec<u8>> = inner.objects.into_iter().chain(lie).collect();
    let error = flatten(root, 1, &mut |digest, _| Ok(objects.remove(digest).unwrap())).unwrap_err();
    assert!(error.one_line().contains("does not hold what its parent says"));
}
