//! Stores and committed configurations made by somebody with bad intentions. See `hostile.rs`.

use crate::hostile::{CONTENT, READERS, Target, file_pointer, tree_pointer};
use crate::support::sha256;

/// Tree objects that a store may hold; `{file}` stands for the digest of a stored file, `{link}` for one of a link's target.
#[test]
fn tree_objects_that_lie_are_refused() {
    let target = Target::new();
    let (file, empty) = (target.store(CONTENT), target.store("git-model tree 1\n"));
    let z = "f".repeat(64);
    let lines =
        |count: usize| -> String { (0..count).map(|at| format!("file {file} 15 n{at:06}\n")).collect() };
    let mut cases: Vec<(&str, String)> = [
        ("parent", ".."),
        ("itself", "."),
        ("absolute", "/abs"),
        ("path", "a/b"),
        ("climbing", "../x"),
        ("git", ".git"),
        ("git in capitals", ".GIT"),
        ("short name of git", "git~1"),
        ("git with dots", ".git.."),
        ("git with an ignored code point", ".g\u{200c}it"),
        ("stream of git", ".git::$DATA"),
        ("backslash", "a\\b"),
        ("escape", "a\u{1b}[31m"),
        ("delete", "a\u{7f}"),
        ("carriage return", "a\r"),
        ("NUL", "a\0b"),
        ("no name", ""),
    ]
    .into_iter()
    .map(|(case, name)| (case, format!("file {file} 15 {name}\n")))
    .collect();
    cases.push(("long name", format!("file {file} 15 {}\n", "n".repeat(256))));
    cases.extend([
        ("size too small", format!("file {file} 14 a\n")),
        ("size too large", format!("file {file} 16 a\n")),
        ("size of two zettabytes", format!("file {file} {0} a\nfile {file} {0} b\n", i64::MAX)),
        ("three sizes overflow", format!("file {file} {0} a\nfile {z} {0} b\nfile {file} {0} c\n", i64::MAX)),
        ("negative", format!("file {file} -1 a\n")),
        ("leading zero", format!("file {file} 015 a\n")),
        ("plus", format!("file {file} +15 a\n")),
        ("repeated", format!("file {file} 15 a\nfile {file} 15 a\n")),
        ("out of order", format!("file {file} 15 b\nfile {file} 15 a\n")),
        ("equal ignoring case", format!("file {file} 15 A\nfile {file} 15 a\n")),
        ("equal after NFC", format!("file {file} 15 e\u{301}\nfile {file} 15 \u{e9}\n")),
        ("unknown kind", format!("device {file} 15 a\n")),
        ("link that is too long", format!("link {file} 99999 a\n")),
        ("absent file", format!("file {z} 15 a\n")),
        ("tree that is a file", format!("tree {file} 15 a\n")),
        ("tree with a wrong sum", format!("tree {empty} 15 a\n")),
        ("no line end", format!("file {file} 15 a")),
        ("carriage returns", format!("file {file} 15 a\r\n")),
        ("too many entries", lines(4097)),
        ("ten million bytes", lines(120_000)),
        ("not UTF-8 or text", "\0\u{1}".to_owned()),
        ("an HTML page", "<html>".to_owned()),
    ]);
    for (case, body) in cases {
        let root = target.store(format!("git-model tree 1\n{body}"));
        refused_tree(&target, case, &root);
    }
    for (case, text) in [
        ("no header", String::new()),
        ("foreign header", "git-model tree 2\n".to_owned()),
        ("shards that are not needed", format!("git-model shards 1\n00 {empty} 0 1\n")),
        ("shards that lie", format!("git-model shards 1\n00 {empty} 0 5000\n")),
        ("shards in capitals", format!("git-model shards 1\nAB {empty} 0 5000\n")),
        (
            "shards that overflow",
            format!("git-model shards 1\n00 {empty} 0 {0}\n01 {empty} 0 {0}\n02 {empty} 0 {0}\n", i64::MAX),
        ),
    ] {
        refused_tree(&target, case, &target.store(text));
    }
    // A cycle would need a SHA-256 that contains itself; a key that holds another object's bytes is the nearest thing.
    let bytes = format!("git-model tree 1\ntree {z} 0 again\n");
    target.repo.write(&format!("../store/objects/sha256/ff/{z}"), bytes);
    refused_tree(&target, "a key that names itself", &z);
}

#[track_caller]
fn refused_tree(target: &Target, case: &str, root: &str) {
    target.pointer("d.pointer", &tree_pointer(root, 15, 1));
    let outputs = target.withstands(case, &[&["sync"], &["fetch"], &["status"]]);
    assert_ne!(outputs[0].code, 0, "{case}: {}", outputs[0]);
    assert!(!target.repo.exists("d"), "{case}: {}", outputs[0]);
}

#[test]
fn links_that_lead_out_are_refused() {
    let target = Target::new();
    for link in ["/etc/passwd", "..", "../honest.bin", "a/../../x", "../../outside", ".git/../../x", "./../x"]
    {
        let text = target.store(link);
        let root = target.store(format!("git-model tree 1\nlink {text} {} evil\n", link.len()));
        target.pointer("d.pointer", &tree_pointer(&root, link.len() as u64, 1));
        let outputs = target.withstands(link, &[&["sync"]]);
        assert!(!target.repo.exists("d/evil"), "{link}: {}", outputs[0]);
        assert_ne!(outputs[0].code, 0, "{link}");
        target.repo.sh("rm -rf d").ok();
    }
}

#[test]
fn a_tree_bomb_is_refused_in_bounded_memory_and_time() {
    let target = Target::new();
    let mut below = target.store("git-model tree 1\n");
    for _ in 0..4 {
        let lines: String = (0..100).map(|at| format!("tree {below} 0 d{at:02}\n")).collect();
        below = target.store(format!("git-model tree 1\n{lines}"));
    }
    target.pointer("d.pointer", &tree_pointer(&below, 0, 0));
    let outputs = target.withstands("bomb", &[&["sync"], &["push"], &["diff", "HEAD"]]);
    assert_ne!(outputs[0].code, 0);
}

#[test]
fn a_pointer_cannot_send_good_objects_into_quarantine() {
    let target = Target::new();
    target.repo.commit_artifact("w.bin", crate::support::noise(1, 3_000_000), "unpushed");
    let digest = sha256(&target.repo.join("w.bin"));
    for text in [
        tree_pointer(&digest, 3_000_000, 1),
        file_pointer(&digest, 2_999_999),
        file_pointer(&digest, 3_000_001),
    ] {
        target.pointer("evil.pointer", &text);
        target.withstands("quarantine", &READERS);
        target.withstands("quarantine", &[&["verify"], &["push"]]);
        assert!(target.repo.exists(&format!(".git/model/objects/{}/{digest}", &digest[..2])), "{text}");
    }
}

#[test]
fn huge_sizes_do_not_overflow() {
    let target = Target::new();
    for at in 0..3 {
        target.pointer(&format!("w{at}.pointer"), &file_pointer(&format!("{at}").repeat(64), i64::MAX));
    }
    let all: [&[&str]; 9] = [
        &["status"],
        &["sync"],
        &["sync", "--dry-run"],
        &["fetch"],
        &["fetch", "--dry-run"],
        &["pull"],
        &["push"],
        &["ls"],
        &["verify"],
    ];
    target.withstands("huge", &all);
}

#[test]
fn artifacts_inside_artifacts_harm_nothing() {
    let target = Target::new();
    let file = target.store(CONTENT);
    let pointer = file_pointer(&file, 15);
    let inner = target.store(&pointer);
    let tree = target
        .store(format!("git-model tree 1\nfile {file} 15 b\nfile {inner} {} p.pointer\n", pointer.len()));
    target.pointer("a.pointer", &tree_pointer(&tree, 15 + pointer.len() as u64, 2));
    target.pointer("a/b.pointer", &pointer);
    target.pointer("f.pointer", &pointer);
    target.pointer("f/g.pointer", &pointer);
    target.pointer("a.pointer.pointer", &pointer);
    target.withstands("nested", &READERS);
    target.withstands("nested", &[&["sync"], &["pull"], &["verify"]]);
}

const UUID: &str = "6f1c0c0e-58b5-4bd1-9a4e-0b8e6a1f3f6d";

#[test]
fn committed_configurations_are_data_only() {
    for extra in [
        "endpoint: http://evil.example\n",
        "credentials: {key: a, secret: b}\n",
        "cache: /etc\n",
        "hooks: {post-checkout: 'touch /tmp/owned'}\n",
        "trust: [s3://bucket]\n",
        "remotes: {origin: {url: s3://bucket/x, endpoint: http://evil.example}}\n",
        "remotes: {origin: {url: s3://bucket/x, profile: root}}\n",
        "remotes: {origin: {url: 's3://key:secret@bucket/x'}}\n",
        "remotes: {origin: {url: 's3://bucket/x?endpoint=http://evil.example'}}\n",
        "remotes: {origin: {url: 's3://bucket/../x'}}\n",
        "remotes: {origin: {url: \"s3://bucket/x\\r\\nHost: evil\"}}\n",
        "remotes: {origin: {url: 'http://169.254.169.254/latest'}}\n",
        "remotes: {origin: {url: 'https://user:pw@evil.example/x'}}\n",
        "remotes: {origin: {url: 'ssh://-oProxyCommand=id/x'}}\n",
        "remotes: {origin: {url: 'ext::sh -c id'}}\n",
        "remotes: {origin: {url: '../store'}}\n",
        "remotes: {origin: {url: 'file://host/etc'}}\n",
        "remotes: {origin: {url: '/tmp/../etc'}}\n",
        "remotes: {'-o': {url: s3://bucket/x}}\n",
        "remotes: {\"a\\e[31m\": {url: s3://bucket/x}}\n",
        "remotes: &r {origin: {url: s3://bucket/x}}\nremote: *r\n",
        "remotes: !!map {}\n",
        "remote: nowhere\n",
        "version: 1\n",
        "version: 2\n---\nversion: 1\n",
    ] {
        let target = Target::new();
        target
            .repo
            .write(".git-model.yaml", format!("version: 1\nrepository: {UUID}\nremote: origin\n{extra}"));
        target.repo.write("big", "1");
        target.repo.sh("rm honest.bin; rm -rf .git/model/objects .git/model/pushed").ok();
        for output in
            target.withstands(extra, &[&["pull"], &["push"], &["remote", "list"], &["remote", "check"]])
        {
            assert_ne!(output.code, 0, "{extra}: {output}");
            assert!(!output.stderr.contains("secret@") || extra.contains("secret"), "{output}");
        }
    }
    let target = Target::new();
    target.repo.write(".git-model.yaml", format!("version: 1\nrepository: {UUID}\n#{}", "x".repeat(70_000)));
    assert_ne!(target.withstands("large", &[&["remote", "list"]])[0].code, 0);
}

/// The URL of a pull request: nothing is sent there, and a folder or custom endpoint is not even looked at.
#[test]
fn committed_urls_that_nobody_approved_are_not_used() {
    let target = Target::new();
    target.repo.sh("cp -a ../store ../outside/store").ok();
    let folder = target.sandbox.join("outside/store");
    let endpoint = target.repo.env("AWS_ENDPOINT_URL", "http://127.0.0.1:9").env("AWS_ACCESS_KEY_ID", "k");
    for (repo, url) in [
        (&target.repo, folder.display().to_string()),
        (&target.repo, format!("file://{}", folder.display())),
        (&target.repo, "file:///etc".to_owned()),
        (&target.repo, "/nonexistent/folder".to_owned()),
        (&endpoint, "s3://bucket/x".to_owned()),
    ] {
        let text = format!(
            "version: 1\nrepository: {UUID}\nremote: origin\nremotes: {{origin: {{url: '{url}'}}}}\n"
        );
        repo.write(".git-model.yaml", text);
        repo.sh("rm -rf honest.bin .git/model/objects .git/model/pushed").ok();
        let before = target.surroundings();
        repo.model(["pull"]).fails(1, "was not approved here");
        repo.model(["fetch"]).fails(1, "was not approved here");
        repo.model(["remote", "check"]).fails(1, "was not approved here");
        repo.write("honest.bin", "honest");
        repo.model(["add", "honest.bin"]).ok();
        repo.model(["push"]).fails(1, "was not approved here");
        assert_eq!(target.surroundings(), before, "{url}");
    }
    let cloud = target.repo.env("AWS_ACCESS_KEY_ID", "k").env("AWS_SECRET_ACCESS_KEY", "s");
    let text =
        format!("version: 1\nrepository: {UUID}\nremote: o\nremotes: {{o: {{url: s3://acme-models/x}}}}\n");
    cloud.write(".git-model.yaml", text);
    cloud.model(["push"]).fails(1, "was not approved here");
}
