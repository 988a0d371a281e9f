//! new, record and info: what is recorded is true, stays what it is, and nothing else is recorded.

use std::os::unix::fs::symlink;
use std::time::Instant;

use crate::support::models::{
    DECLARED, LINEAGE, WEIGHTS, churn, declare, is_fixed, lineage, record, safetensors_with, train, weights,
};
use crate::support::stores::Place;
use crate::support::{Repo, Sandbox, sha256};

/// Makes a file older than everything else.
fn age(repo: &Repo, name: &str) {
    repo.sh(&format!("touch -d '2001-01-01' {name}")).ok();
}

#[test]
fn a_draft_names_what_is_there_and_can_be_recorded() {
    let sandbox = Sandbox::new();
    let repo = churn(sandbox.repo("repo"));
    repo.git(["rm", "-q", "-f", "m/model.yaml", LINEAGE]).ok();
    repo.git(["mv", "src/pre.py", "src/preprocess.py"]).ok();
    let draft = repo.json(["new", "team/churn", "--dir", "m"]);
    assert_eq!(
        (draft["schema"].as_str(), draft["path"].as_str()),
        (Some("git-model/new/v1"), Some("m/model.yaml"))
    );
    for (key, path) in [
        ("weights", "weights.safetensors"),
        ("code", "../src/preprocess.py"),
        ("config", "train.yaml"),
        ("environment", "../requirements.txt"),
        ("schema", "schema.json"),
        ("data", "../data"),
        ("evaluation", "eval.json"),
    ] {
        assert_eq!(draft["found"][key], serde_json::json!([path]), "{key}");
    }
    repo.model(["record"]).says("recorded").ok();
    assert_eq!(lineage(&repo)["model"], "team/churn");
    repo.model(["new", "Team/Churn"]).fails(2, "declares a model of this name already");
    repo.model(["new", "other", "--dir", "m"]).fails(2, "exists already");
    repo.model(["new", "other", "--dir", "data"])
        .says("hint: name the directory above it")
        .fails(2, "data/model.yaml: inside the artifact data");
    repo.model(["new", "-x"]).fails_usage();
    repo.model(["new", "a b"]).fails(2, "a b");
}

#[test]
fn everything_that_a_version_is_made_of_is_recorded() {
    let sandbox = Sandbox::new();
    let repo = churn(sandbox.repo("repo"));
    let lineage = lineage(&repo);
    let digest = sha256(&repo.join(WEIGHTS));
    for (role, path) in [
        ("weights", WEIGHTS),
        ("code", "src/pre.py"),
        ("config", "m/train.yaml"),
        ("environment", "requirements.txt"),
        ("schema", "m/schema.json"),
        ("evaluation", "m/eval.json"),
    ] {
        let file = &lineage["files"][role][0];
        assert_eq!(file["path"], path);
        assert_eq!(file["sha256"], sha256(&repo.join(path)));
        assert_eq!(file["size"], repo.read(path).len());
    }
    let weights = &lineage["weights"];
    assert_eq!(weights["sha256"], digest);
    assert_eq!((&weights["format"], &weights["tensors"]), (&"safetensors".into(), &2.into()));
    assert_eq!((&weights["parameters"], &weights["dtypes"]["F32"]), (&5.into(), &5.into()));
    assert_eq!(weights["metadata"]["format"], "pt");
    let training = &lineage["training"];
    assert_eq!((&training["weights"], &training["basis"]), (&digest.clone().into(), &"declared".into()));
    let tree =
        repo.text("data.pointer").lines().find_map(|line| line.strip_prefix("sha256: ").map(str::to_owned));
    let tree = format!("sha256:{}", tree.unwrap());
    assert_eq!(training["inputs"]["data"]["train"], tree);
    let evaluation = &lineage["evaluation"];
    assert_eq!(
        (&evaluation["weights"], &evaluation["data"]["train"]),
        (&digest.into(), &tree.clone().into())
    );
    assert_eq!(evaluation["metrics"], serde_json::json!({ "auc": 0.1, "slices.new": 0.5 }));
    assert_eq!(
        lineage["data"],
        serde_json::json!([{ "name": "train", "path": "data", "digest": tree, "files": 1, "size": 4 }])
    );
    let report = repo.json(["record", "--dry-run"]);
    assert_eq!((&report["schema"], &report["changed"]), (&"git-model/record/v1".into(), &false.into()));
}

#[test]
fn recording_again_changes_nothing() {
    let sandbox = Sandbox::new();
    let repo = churn(sandbox.repo("repo"));
    is_fixed(&repo);
    repo.sh("touch m/* src/* requirements.txt data/*").ok();
    is_fixed(&repo);
    age(&repo, "m/eval.json");
    is_fixed(&repo);
    repo.at("src").model(["record", "churn"]).says("nothing changed").ok();
}

#[test]
fn recording_in_a_clone_changes_nothing() {
    let sandbox = Sandbox::new();
    let repo = churn(sandbox.repo("repo"));
    train(&repo, 2.0);
    repo.write("m/eval.json", r#"{"auc": 0.2}"#);
    repo.model(["record", "--eval", "m/eval.json", "--note", "a & b", "--param", "seed=1"]).ok();
    record(&repo, "v2");
    repo.model(["push"]).ok();
    for autocrlf in ["false", "true"] {
        sandbox
            .at("")
            .git(["clone", "-q", "-c", &format!("core.autocrlf={autocrlf}"), "repo", autocrlf])
            .ok();
        let clone = sandbox.at(autocrlf);
        let has_crlf = clone.text("src/pre.py").contains("\r\n") && clone.text(LINEAGE).contains("\r\n");
        assert_eq!(has_crlf, autocrlf == "true");
        is_fixed(&clone);
        clone.model(["remote", "trust"]).ok();
        clone.model(["pull"]).ok();
        is_fixed(&clone);
        clone.model(["info"]).never_says("differs").ok();
        clone.sh("touch m/* src/*").ok();
        is_fixed(&clone);
        assert_eq!(clone.git(["status", "--porcelain"]).ok(), "");
    }
}

#[test]
fn recording_after_a_squash_changes_nothing() {
    let sandbox = Sandbox::new();
    let repo = churn(sandbox.repo("repo"));
    repo.git(["checkout", "-q", "-b", "topic"]).ok();
    for step in [2.0, 3.0] {
        train(&repo, step);
        repo.write("m/eval.json", format!("{{\"auc\": {step}}}"));
        record(&repo, "step");
    }
    repo.git(["checkout", "-q", "main"]).ok();
    is_fixed(&repo);
    repo.git(["merge", "-q", "--squash", "topic"]).ok();
    repo.git(["commit", "-q", "-m", "squashed"]).ok();
    is_fixed(&repo);
    assert_eq!(lineage(&repo)["evaluation"]["metrics"]["auc"], 3.0);
    // The commits that the training names are gone there.
    let url = format!("file://{}", repo.path.display());
    sandbox.at("").git(["clone", "-q", "--single-branch", "-c", "core.autocrlf=true", &url, "clone"]).ok();
    let clone = sandbox.at("clone");
    let base = lineage(&clone)["training"]["base_commit"].as_str().unwrap().to_owned();
    assert_ne!(clone.git(["cat-file", "-e", &base]).code, 0);
    is_fixed(&clone);
    clone.sh("touch m/* src/*").ok();
    is_fixed(&clone);
    assert_eq!(clone.git(["status", "--porcelain"]).ok(), "");
}

#[test]
fn content_that_is_not_added_is_not_recorded() {
    let sandbox = Sandbox::new();
    let repo = churn(sandbox.repo("repo"));
    let before = repo.read(LINEAGE);
    repo.write(WEIGHTS, weights(2.0));
    repo.model(["record"])
        .says("hint: git model add m/weights.safetensors")
        .fails(3, "changed since it was added");
    repo.model(["add", WEIGHTS]).ok();
    repo.write("data/more.csv", "3\n");
    repo.model(["record"]).says("hint: git model add data").fails(3, "data: changed since it was added");
    assert_eq!(repo.read(LINEAGE), before);
}

#[test]
fn a_commit_with_a_record_of_stale_content_is_refused() {
    let sandbox = Sandbox::new();
    let repo = churn(sandbox.repo("repo"));
    repo.write("m/train.yaml", "lr: 0.2\n");
    repo.model(["record"]).ok();
    repo.write(WEIGHTS, weights(2.0));
    let refused = repo.git(["commit", "-q", "-a", "-m", "stale"]);
    assert_eq!(refused.code, 1, "{refused}");
    let refused = refused.says("m/weights.safetensors: its pointer is stale");
    drop(refused.says("hint: git model add m/weights.safetensors"));
    // A commit without the record is none of its business.
    repo.git(["reset", "-q", LINEAGE]).ok();
    repo.git(["commit", "-q", "-m", "config only", "m/train.yaml"]).ok();
}

#[test]
fn training_stays_with_its_weights() {
    let sandbox = Sandbox::new();
    let repo = churn(sandbox.repo("repo"));
    let first = lineage(&repo);
    repo.write("src/pre.py", "print('two')\n");
    record(&repo, "code");
    let second = lineage(&repo);
    assert_eq!(first["training"], second["training"]);
    assert_ne!(first["files"]["code"], second["files"]["code"]);

    train(&repo, 2.0);
    record(&repo, "weights");
    let third = lineage(&repo);
    assert_eq!(third["training"]["weights"], sha256(&repo.join(WEIGHTS)));
    assert_ne!(second["training"]["inputs"]["code"], third["training"]["inputs"]["code"]);
    assert_eq!(third["training"]["basis"], "declared");
}

#[test]
fn whether_inputs_were_committed_is_told() {
    let sandbox = Sandbox::new();
    let repo = churn(sandbox.repo("repo"));
    let mut step = 1.0;
    let mut is_dirty = |repo: &Repo| {
        step += 1.0;
        train(repo, step);
        repo.model(["record"]).ok();
        lineage(repo)["training"]["dirty"].as_bool().unwrap()
    };
    assert!(!is_dirty(&repo));
    let head = repo.git(["rev-parse", "HEAD"]).ok();
    assert_eq!(lineage(&repo)["training"]["base_commit"], head.trim());
    repo.write("unrelated", "x");
    assert!(!is_dirty(&repo));
    repo.write("m/train.yaml", "lr: 0.2\n");
    assert!(is_dirty(&repo));
    repo.git(["add", "m/train.yaml"]).ok();
    assert!(is_dirty(&repo));
    repo.git(["commit", "-q", "-m", "config", "m/train.yaml"]).ok();
    assert!(!is_dirty(&repo));
    // A file that git does not know is in no commit.
    declare(&repo, "../src/pre.py", "../src/pre.py, ../src/new.py");
    repo.git(["commit", "-q", "-m", "declared", "m/model.yaml"]).ok();
    repo.write("src/new.py", "new\n");
    assert!(is_dirty(&repo));
}

#[test]
fn files_that_git_is_about_to_know_are_recorded_as_they_are() {
    let sandbox = Sandbox::new();
    let repo = churn(sandbox.repo("repo"));
    declare(&repo, "../src/pre.py", "../src/new.py");
    repo.write("src/new.py", "new\n");
    let digest = |repo: &Repo| lineage(repo)["files"]["code"][0]["sha256"].as_str().unwrap().to_owned();
    repo.model(["record"])
        .says("src/new.py: recorded, but not in git yet")
        .says("hint: git add src/new.py")
        .ok();
    assert_eq!(digest(&repo), sha256(&repo.join("src/new.py")));
    repo.git(["add", "-N", "src/new.py"]).ok();
    is_fixed(&repo);
    repo.git(["add", "src/new.py"]).ok();
    is_fixed(&repo);
    // Large weights never go into git itself.
    declare(&repo, "weights.safetensors", "raw.safetensors");
    repo.write("m/raw.safetensors", weights(3.0));
    repo.model(["record"]).says("hint: git model add m/raw.safetensors").ok();
    repo.model(["add", "m/raw.safetensors"]).ok();
    is_fixed(&repo);
}

#[test]
fn a_report_is_about_the_weights_that_it_can_have_judged() {
    let sandbox = Sandbox::new();
    let repo = churn(sandbox.repo("repo"));
    let judged = |repo: &Repo| lineage(repo)["evaluation"]["weights"].as_str().map(str::to_owned);
    let first = sha256(&repo.join(WEIGHTS));
    assert_eq!(judged(&repo), Some(first.clone()));

    // The report of the old weights stays one of the old weights.
    train(&repo, 2.0);
    repo.model(["record"]).says("judges other weights").ok();
    assert_eq!(judged(&repo), Some(first.clone()));
    assert_eq!(repo.json(["record"])["evaluation_bound"], false);
    assert_eq!(repo.json(["record"])["metrics"], serde_json::Value::Null);
    is_fixed(&repo);
    // The user may know better.
    repo.model(["record", "--eval", "m/eval.json"]).ok();
    let second = sha256(&repo.join(WEIGHTS));
    assert_eq!(judged(&repo), Some(second.clone()));
    is_fixed(&repo);

    // Another report, but older than the weights.
    repo.write("m/eval.json", r#"{"auc": 0.3}"#);
    age(&repo, "m/eval.json");
    repo.model(["record"]).says("was written before the weights").says("--eval m/eval.json").ok();
    assert_eq!(judged(&repo), None);
    is_fixed(&repo);

    // One that says which weights it judged.
    repo.write("m/eval.json", format!(r#"{{"auc": 0.4, "weights_sha256": "{first}"}}"#));
    repo.model(["record"]).says("says itself that it judged other weights").ok();
    assert_eq!(judged(&repo), None);
    repo.model(["record", "--eval", "m/eval.json"]).fails(3, "judged other weights");
    repo.write("m/eval.json", format!(r#"{{"auc": 0.4, "weights": {{"sha256": "sha256:{second}"}}}}"#));
    repo.model(["record"]).never_says("warning: m/eval").ok();
    assert_eq!(judged(&repo), Some(second));
}

#[test]
fn reports_of_every_kind_are_flattened() {
    let sandbox = Sandbox::new();
    let repo = churn(sandbox.repo("repo"));
    for (name, text) in [
        ("r.json", r#"{"a": {"b": [1, 2.5]}, "text": "no number", "yes": true, "none": null}"#),
        ("r.yaml", "a: {b: [1, 2.5]}\ntext: no number\n"),
        ("r.toml", "day = 2026-11-01\n[a]\nb = [1, 2.5]\n"),
        ("r.csv", "step,a.b.0,a.b.1\n1,0,0\n,1,2.5\n"),
    ] {
        declare(&repo, "eval.json", name);
        repo.write(&format!("m/{name}"), text);
        repo.model(["record"]).ok();
        assert_eq!(
            lineage(&repo)["evaluation"]["metrics"],
            serde_json::json!({ "a.b.0": 1, "a.b.1": 2.5 }),
            "{name}"
        );
    }
    // Without a declared report one can still be named.
    declare(&repo, "evaluation: eval.json\n", "");
    repo.model(["record", "--eval", "m/eval.json"]).ok();
    assert_eq!(lineage(&repo)["evaluation"]["metrics"]["auc"], 0.1);
    is_fixed(&repo);
    train(&repo, 5.0);
    repo.model(["record"]).ok();
    assert_eq!(lineage(&repo)["evaluation"], serde_json::Value::Null);
}

#[test]
fn what_the_user_states_is_kept_word_for_word() {
    let sandbox = Sandbox::new();
    let repo = churn(sandbox.repo("repo"));
    let note = "see *this* & !that: \"&x\", it's # {fine}\nline two \u{1f600}";
    let odd = ["1e-3", "yes", "", "- a", "&x", "*", "!x", "{a}", "null", "a: b", "|", "'", "\t", "..."];
    let mut args = vec!["record".to_owned(), "--note".to_owned(), note.to_owned()];
    for (at, value) in odd.iter().enumerate() {
        args.extend(["--param".to_owned(), format!("p{at}={value}")]);
    }
    args.extend(["--parent".to_owned(), "churn@v1.0.0".to_owned()]);
    repo.model(&args).ok();
    is_fixed(&repo);
    let training = &lineage(&repo)["training"];
    assert_eq!((&training["note"], &training["parent"]), (&note.into(), &"churn@v1.0.0".into()));
    for (at, value) in odd.iter().enumerate() {
        assert_eq!(training["params"][format!("p{at}")], *value);
    }
    // Stated about these weights, so not about the next ones.
    train(&repo, 2.0);
    repo.model(["record"]).ok();
    assert_eq!(lineage(&repo)["training"]["params"], serde_json::Value::Null);
    assert_eq!(repo.model(["record", "--param", "no value"]).says("write KEY=VALUE").code, 2);
    repo.model(["record", "--param", &format!("{}=1", "k".repeat(2000))]).fails(1, "could not be read again");
    for parent in ["churn", "churn@latest", "no/such thing", "churn#prod"] {
        repo.model(["record", "--parent", parent]).fails(2, "not a release");
    }
}

#[test]
fn a_bad_report_is_one_clear_line() {
    let sandbox = Sandbox::new();
    let repo = churn(sandbox.repo("repo"));
    declare(&repo, "", "gates: {metrics: [{name: auc, direction: higher, min: 0.5}]}\n");
    let before = repo.read(LINEAGE);
    for (text, reason) in [
        (r#"{"auc": NaN}"#, "m/eval.json:1: `auc` is NaN"),
        (r#"{"a": [1, -Infinity]}"#, "`a.1` is -Infinity"),
        (r#"{"auc": "high"}"#, "metric `auc` is the text \"high\", not a number"),
        (r#"{"auc": true}"#, "metric `auc` is true"),
        (r#"{"auc": 1, "auc": 2}"#, "m/eval.json:1: duplicate key `auc`"),
        (r#"{"a.b": 1, "a": {"b": 2}}"#, "two values have the key `a.b`"),
        ("0.5", "has no keys"),
        ("{\n", "m/eval.json:2"),
        ("", "m/eval.json"),
        ("\u{0}", "m/eval.json"),
    ] {
        repo.write("m/eval.json", text);
        repo.model(["record"]).says("hint: ").fails(1, reason);
    }
    repo.write("m/eval.json", [&b"{\"a\": "[..], &[b'['; 100_000]].concat());
    repo.model(["record"]).fails(1, "nested deeper than 64 levels");
    declare(&repo, "eval.json", "eval.csv");
    repo.write("m/eval.csv", "auc\nnan\n");
    repo.model(["record"]).fails(1, "m/eval.csv:2: `auc` is nan");
    assert_eq!(repo.read(LINEAGE), before);
    let bomb = (1..30).fold("a0: &a0 [1, 1]\n".to_owned(), |text, at| {
        format!("{text}a{at}: &a{at} [*a{0}, *a{0}]\n", at - 1)
    });
    declare(&repo, "eval.json", "eval.yaml");
    repo.write("m/eval.yaml", bomb);
    repo.model(["record"]).says("hint: ").fails(1, "m/eval.yaml:1: YAML anchors");
    std::fs::remove_file(repo.join("m/eval.yaml")).unwrap();
    repo.model(["record"]).says("m/eval.yaml: there is no such report, so no evaluation is recorded").ok();
}

#[test]
fn a_huge_report_is_refused_without_being_read() {
    let sandbox = Sandbox::new();
    let repo = churn(sandbox.repo("repo"));
    for size in [(16 << 20) + 1, 1 << 40] {
        std::fs::File::create(repo.join("m/eval.json")).unwrap().set_len(size).unwrap();
        let started = Instant::now();
        repo.model(["record"]).fails(1, "m/eval.json: larger than 16.0 MiB");
        repo.model(["record", "--eval", "m/eval.json"]).fails(1, "m/eval.json: larger than 16.0 MiB");
        assert!(started.elapsed().as_secs() < 5, "it was read");
    }
    repo.git(["checkout", "-q", "m/eval.json"]).ok();
    std::fs::File::create(repo.join("src/pre.py")).unwrap().set_len(1 << 40).unwrap();
    repo.model(["record"]).says("hint: git model add src/pre.py").fails(1, "src/pre.py: larger than");
}

#[test]
fn a_declared_path_must_be_a_file_of_this_repository() {
    let sandbox = Sandbox::new();
    let repo = churn(sandbox.repo("repo"));
    let before = repo.read(LINEAGE);
    let submodule = sandbox.git_repo("other");
    submodule.write("x.py", "x");
    submodule.git(["add", "."]).ok();
    submodule.git(["commit", "-q", "-m", "x"]).ok();
    repo.git(["submodule", "--quiet", "add", "../other", "sub"]).ok();
    symlink("pre.py", repo.join("src/link.py")).unwrap();
    symlink("src", repo.join("linked")).unwrap();
    repo.git(["add", "src/link.py", "linked"]).ok();
    repo.write("src/lfs.py", "version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 3\n");
    std::fs::create_dir(repo.join("empty")).unwrap();
    symlink("loop.py", repo.join("src/loop.py")).unwrap();
    repo.sh("mkfifo fifo").ok();
    for (path, reason) in [
        ("../src/gone.py", "m/model.yaml: code: src/gone.py: there is no such file"),
        ("../empty", "empty: a directory in which git tracks no file"),
        ("../fifo", "fifo: neither a file nor a directory"),
        ("../src/loop.py", "src/loop.py: a symbolic link"),
        ("..", "m/model.yaml: `..`: the whole repository"),
        ("lineage.yaml", "m/lineage.yaml: the record itself"),
        ("../src/link.py", "src/link.py: a symbolic link"),
        ("../linked/pre.py", "symbolic link"),
        ("../linked", "a symbolic link"),
        ("../sub", "sub: a submodule"),
        ("../sub/x.py", "sub/x.py: in a submodule"),
        ("../src/lfs.py", "src/lfs.py: held by Git LFS"),
        ("../../outside.py", "m/model.yaml:4: `../../outside.py`: leads out of the repository"),
        ("../m/../../x", "leads out of the repository"),
        ("/etc/passwd", "m/model.yaml:4: `/etc/passwd`: must be relative"),
        ("../.git/config", "not a usable path"),
    ] {
        declare(&repo, "../src/pre.py", path);
        repo.model(["record"]).says("hint: ").fails(1, reason);
        repo.model(["run", "churn", "--", "touch", "ran"]).fails(1, reason);
    }
    assert!(!repo.exists("ran"));
    // A tracked file that became a pipe: nobody waits for somebody to write.
    declare(&repo, "", "");
    repo.sh("rm src/pre.py && mkfifo src/pre.py").ok();
    repo.model(["record"]).fails(1, "src/pre.py: neither a file nor a directory");
    assert_eq!(repo.read(LINEAGE), before);
}

#[test]
fn a_bad_declaration_names_the_line() {
    let sandbox = Sandbox::new();
    let repo = churn(sandbox.repo("repo"));
    let bomb = (0..9).fold("a0: &a0 [x, x]\n".to_owned(), |text, at| {
        text + &format!("a{}: &a{} [*a{at}, *a{at}, *a{at}, *a{at}]\n", at + 1, at + 1)
    });
    for (from, to, reason) in [
        ("", "colour: red\n", "m/model.yaml:10:1: unknown field `colour`"),
        ("", "name: other\n", "m/model.yaml:10:1: duplicate field `name`"),
        ("", bomb.as_str(), "m/model.yaml:10: YAML anchors"),
        ("name: churn", "name: [churn]", "m/model.yaml:2:7: "),
        ("version: 1", "version: one", "m/model.yaml:1:10: "),
        ("{name: train, path: ../data}", "{name: train}", "m/model.yaml:8: data `train` needs either"),
        ("{name: train, ", "{name: train, nmae: x, ", "m/model.yaml:8:"),
        ("train.yaml]", "train.yaml", "m/model.yaml:"),
    ] {
        declare(&repo, from, to);
        repo.model(["record", "churn"]).fails(1, reason);
    }
    repo.write("m/model.yaml", format!("{DECLARED}#{}", "x".repeat(1 << 20)));
    repo.model(["record"]).fails(1, "larger than");
    repo.write("m/model.yaml", DECLARED);
    repo.write(LINEAGE, "version: 9\n");
    repo.model(["record"]).fails(1, "written by a newer git-model");
    repo.model(["record", "no-such"]).fails(2, "no model of this name");
}

#[test]
fn a_hostile_header_is_refused() {
    let sandbox = Sandbox::new();
    let repo = churn(sandbox.repo("repo"));
    let header = |text: &str| [&(text.len() as u64).to_le_bytes(), text.as_bytes(), &[0; 8]].concat();
    for bytes in [
        [&u64::MAX.to_le_bytes()[..], b"{}"].concat(),
        vec![1, 2, 3],
        header(r#"{"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 9]}}"#),
        header(r#"{"a": {"dtype": "F32", "shape": [9223372036854775807, 4], "data_offsets": [0, 8]}}"#),
        header(
            r#"{"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}, "b": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}}"#,
        ),
        header(r#"{"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}}"#),
    ] {
        repo.write(WEIGHTS, bytes);
        repo.model(["add", WEIGHTS]).ok();
        let said = repo.model(["record"]).fails(1, "m/weights.safetensors");
        assert!(said.contains("hint: if it is damaged: write it again"), "{said}");
    }
    // Whatever the metadata says can be written down and read again.
    let odd = serde_json::json!({ "&x *y !z: #\n": "long ".repeat(50), "k".repeat(256): "- \u{85}\u{1}|" });
    repo.write(WEIGHTS, safetensors_with(&odd.clone(), &[("a", &[1.0])]));
    repo.model(["add", WEIGHTS]).ok();
    record(&repo, "odd metadata");
    is_fixed(&repo);
    assert_eq!(lineage(&repo)["weights"]["metadata"], odd);
}

#[test]
fn branches_that_changed_different_parts_conflict() {
    let sandbox = Sandbox::new();
    let repo = churn(sandbox.repo("repo"));
    repo.git(["checkout", "-q", "-b", "topic"]).ok();
    repo.write("src/pre.py", "print('two')\n");
    record(&repo, "code");
    repo.git(["checkout", "-q", "main"]).ok();
    repo.write("m/train.yaml", "lr: 0.2\n");
    record(&repo, "config");
    let merge = repo.git(["merge", "-q", "topic"]);
    assert_eq!(merge.code, 1, "{merge}");
    let merge = merge.says("Merge conflict in m/lineage.yaml");
    drop(merge);
    assert_eq!(repo.git(["diff", "--name-only", "--diff-filter=U"]).ok(), "m/lineage.yaml\n");
    repo.model(["record"]).ok();
    repo.git(["commit", "-q", "-m", "merged"]).ok();
    is_fixed(&repo);
    let files = &lineage(&repo)["files"];
    assert_eq!(files["code"][0]["sha256"], sha256(&repo.join("src/pre.py")));
    assert_eq!(files["config"][0]["sha256"], sha256(&repo.join("m/train.yaml")));
    // Someone who merges by other means is told.
    repo.write(LINEAGE, "<<<<<<< ours\n=======\n>>>>>>> theirs\n");
    repo.model(["record"]).fails(1, "both sides of a merge changed this record");
}

#[test]
fn two_models_may_share_a_file() {
    let sandbox = Sandbox::new();
    let repo = churn(sandbox.repo("repo"));
    repo.write(
        "n/model.yaml",
        "version: 1\nname: team/other\nweights: [../m/weights.safetensors]\ncode: [../src]\n",
    );
    repo.git(["add", "n"]).ok();
    repo.model(["record"]).says("declared here: churn, team/other").fails(2, "several models");
    repo.model(["record", "team/other"]).ok();
    repo.git(["commit", "-q", "-m", "two models"]).ok();
    is_fixed(&repo);
    assert!(repo.text("n/lineage.yaml").contains("path: m/weights.safetensors"));
    // A mistake in one is no obstacle for the other, and no name is given twice.
    repo.write("n/model.yaml", "version: 1\nname: Churn\n");
    repo.model(["record", "churn"]).fails(1, "is also that of");
    repo.write("n/model.yaml", "oops");
    repo.model(["record", "churn"]).ok();
    let said = repo.model(["record", "team/other"]).fails(1, "n/model.yaml");
    assert!(said.contains("hint: "), "{said}");
}

#[test]
fn info_tells_what_is_here_and_what_differs() {
    let sandbox = Sandbox::new();
    let repo = churn(sandbox.repo("repo"));
    let head = repo.git(["rev-parse", "HEAD"]).ok();
    let info = repo.json(["info"]);
    assert_eq!((&info["schema"], &info["info"]["model"]), (&"git-model/info/v1".into(), &"churn".into()));
    assert_eq!(
        (&info["info"]["commit"], &info["differences"]),
        (&head.trim().into(), &serde_json::json!([]))
    );
    // The digest is what the design says: anyone can compute it.
    let files = ["m/schema.json", "m/train.yaml", WEIGHTS, "requirements.txt", "src/pre.py"];
    let line =
        |path: &&str| format!("100644 {} {} {path}\n", sha256(&repo.join(path)), repo.read(path).len());
    repo.write("../manifest", files.iter().map(line).collect::<String>());
    let digest = sha256(&sandbox.join("manifest"));
    assert_eq!(info["info"]["digest"], digest);
    repo.model(["info"]).says(&format!("sha256:{digest}")).never_says("warning").ok();
    let env = repo
        .sh("eval \"$(git model info --format env)\" && echo $MODEL_NAME $MODEL_DIGEST $MODEL_GIT_COMMIT");
    assert_eq!(env.ok(), format!("churn sha256:{digest} {head}"));

    repo.write("m/train.yaml", "lr: 9\n");
    repo.write(WEIGHTS, weights(7.0));
    let told =
        repo.model(["info"]).says("differs from what is recorded: m/train.yaml").says("weights.safetensors");
    assert!(told.stdout.contains(&digest), "{told}");
    assert_eq!(repo.json(["info"])["differences"].as_array().unwrap().len(), 2);
    // What is on standard output can still be evaluated.
    let env = repo.model(["info", "--format", "env"]).ok();
    assert!(env.lines().all(|line| line.contains('=')), "{env}");
    repo.git(["rm", "-q", "-f", LINEAGE]).ok();
    repo.model(["info"]).says("git model record churn").fails(1, "nothing is recorded yet");
}

/// Outside data at `url`, in which `put` makes or changes a key and `remove` removes one.
fn outside_data(place: &Place, url: &str, put: &dyn Fn(&str, &str), remove: &dyn Fn(&str)) {
    let repo = churn(place.repo("repo"));
    for (key, text) in [("a.csv", "1"), ("b/c.csv", "22"), ("d.csv", "3")] {
        put(key, text);
    }
    declare(&repo, "[{name: train, path: ../data}]", &format!("[{{name: lake, url: \"{url}/\"}}]"));
    repo.git(["config", "--add", "model.trust", url]).ok();
    train(&repo, 2.0);
    record(&repo, "lake");
    let data = lineage(&repo)["data"][0].clone();
    assert_eq!(
        (&data["url"], &data["files"], &data["size"]),
        (&format!("{url}/").into(), &3.into(), &4.into())
    );
    assert_eq!(lineage(&repo)["training"]["inputs"]["data"]["lake"], data["digest"]);
    is_fixed(&repo);
    repo.model(["verify", "--data", "lake"]).says("as it was recorded (3 files)").ok();

    repo.model(["push"]).ok();
    let listing = data["digest"].as_str().unwrap().trim_start_matches("sha256:");
    assert!(place.objects().iter().any(|key| key.ends_with(listing)), "the listing is pushed");
    let clone = place.clone_of(&repo, "clone");
    clone.git(["config", "--add", "model.trust", url]).ok();
    put("a.csv", "7");
    put("new.csv", "4");
    remove("d.csv");
    let told = clone.model(["verify", "--data", "lake"]);
    assert_eq!(told.stdout, "added    new.csv\nchanged  a.csv\nremoved  d.csv\n", "{told}");
    told.says("--refresh-data").fails(3, "lake: 3 changes");
    let json = clone.json(["verify", "--data", "lake", "--model", "churn"]);
    assert_eq!(json["schema"], "git-model/verify-data/v1");
    assert_eq!(json["changes"]["changed"], serde_json::json!(["a.csv"]));
    // What was recorded about these weights stays, until the user wants otherwise.
    is_fixed(&repo);
    repo.model(["record", "--refresh-data"]).says("recorded").ok();
    assert_ne!(lineage(&repo)["data"][0]["digest"], data["digest"]);
    assert_eq!(lineage(&repo)["training"]["inputs"]["data"]["lake"], data["digest"]);
    repo.model(["verify", "--data", "lake"]).ok();
    repo.model(["verify", "--data", "nothing"]).fails(2, "no data snapshot of this name");
}

#[test]
fn data_in_a_folder_outside_is_fingerprinted() {
    let place = Place::folder();
    let lake = place.sandbox.at("");
    let url = place.sandbox.join("lake").display().to_string();
    outside_data(&place, &url, &|key, text| lake.write(&format!("lake/{key}"), text), &|key| {
        std::fs::remove_file(lake.join(&format!("lake/{key}"))).unwrap();
    });
}

#[test]
fn data_in_a_bucket_is_fingerprinted() {
    let place = Place::garage();
    let server = crate::support::garage::garage();
    let url = format!("s3://{}/lake/2026", server.bucket());
    let put = |key: &str, text: &str| {
        let file = place.sandbox.join("to put");
        std::fs::write(&file, text).unwrap();
        server.s5cmd(&["cp", file.to_str().unwrap(), &format!("{url}/{key}")]).unwrap();
    };
    outside_data(&place, &url, &put, &|key| {
        server.s5cmd(&["rm", &format!("{url}/{key}")]).map(drop).unwrap();
    });
}

#[test]
fn outside_data_must_be_there_and_trusted() {
    let sandbox = Sandbox::new();
    let repo = churn(sandbox.repo("repo"));
    for (data, code, reason) in [
        (format!("url: {}", sandbox.join("nowhere").display()), 1, "data `lake`: "),
        ("url: \"s3://key:secret@bucket/x\"".to_owned(), 1, "not a usable location"),
        ("url: \"https://example.com/x?sig=1\"".to_owned(), 1, "not a usable location"),
        ("url: relative/folder".to_owned(), 1, "not a usable location"),
        ("id: q-17".to_owned(), 1, "needs either"),
    ] {
        declare(&repo, "{name: train, path: ../data}", &format!("{{name: lake, {data}}}"));
        train(&repo, 2.0);
        repo.model(["record"]).never_says("secret").fails(code, reason);
    }
    // A committed location with an endpoint of one's own is not contacted unasked.
    declare(&repo, "{name: train, path: ../data}", "{name: lake, url: \"s3://bucket/x/\"}");
    let reached = repo.env("AWS_ENDPOINT_URL", "http://127.0.0.1:1");
    reached
        .model(["record"])
        .says("hint: git config --add model.trust s3://bucket/x")
        .fails(1, "data `lake`");
    repo.model(["record", "--offline"]).fails(1, "--offline");
    // Only its owner knows about a query.
    declare(&repo, "{name: train, path: ../data}", "{name: query, id: q-17, digest: \"md5:ab\"}");
    repo.model(["record"]).ok();
    let data = serde_json::json!([{ "name": "query", "id": "q-17", "digest": "md5:ab" }]);
    assert_eq!(lineage(&repo)["data"], data);
    repo.model(["verify", "--data", "query"]).fails(2, "not an outside location");
}
