//! run: the command is left alone, and what it did is recorded as it was seen.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::models::{LINEAGE, WEIGHTS, churn, declare, is_fixed, lineage, record, weights};
use crate::support::{BINARY, Output, Repo, Sandbox, run, sha256};

/// The model, and beside it the files that a command takes new weights from.
fn ready(sandbox: &Sandbox) -> Repo {
    let repo = churn(sandbox.repo("repo"));
    for step in ["2", "3"] {
        repo.write(&format!("../weights{step}"), weights(step.parse().unwrap()));
    }
    repo
}

/// A command that writes weights and perhaps more.
fn training(step: u32, more: &str) -> String {
    format!("cat ../weights{step} > {WEIGHTS}; {more}")
}

fn run_sh(repo: &Repo, script: &str) -> Output {
    repo.model(["run", "churn", "--", "sh", "-c", script])
}

fn parsed(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

/// Every artifact and its digest in the record are those of the pointers, in the worktree and in the index.
#[track_caller]
fn agrees(repo: &Repo) {
    let lineage = lineage(repo);
    let data = lineage["data"][0]["digest"].as_str().unwrap().trim_start_matches("sha256:");
    let recorded = [(WEIGHTS, lineage["weights"]["sha256"].as_str().unwrap()), ("data", data)];
    for (artifact, digest) in recorded {
        let line = format!("sha256: {digest}");
        let pointer = format!("{artifact}.pointer");
        assert!(repo.text(&pointer).contains(&line), "{pointer}: {line}");
        repo.git(["show", &format!(":{pointer}")]).says(&line).ok();
        assert_eq!(repo.state(artifact), "clean");
    }
    assert_eq!(repo.git(["show", &format!(":{LINEAGE}")]).ok(), repo.text(LINEAGE));
    is_fixed(repo);
}

/// Nothing is different from the last commit but these lines of `git status`.
#[track_caller]
fn changed(repo: &Repo, status: &str) {
    assert_eq!(repo.git(["status", "--porcelain"]).ok(), status);
}

#[test]
fn a_training_is_recorded_as_it_was_seen() {
    let sandbox = Sandbox::new();
    let repo = ready(&sandbox);
    let before = lineage(&repo);
    let head = repo.git(["rev-parse", "HEAD"]).ok();
    let script = training(2, "echo '{\"auc\": 0.3}' > m/eval.json && echo done");
    let ran = run_sh(&repo, &script);
    assert_eq!(ran.stdout, "done\n", "{ran}");
    ran.says("added m/weights.safetensors").says("recorded").ok();
    agrees(&repo);
    let after = lineage(&repo);
    let digest = sha256(&repo.join(WEIGHTS));
    for block in ["training", "evaluation"] {
        let block = &after[block];
        assert_eq!((&block["weights"], &block["basis"]), (&digest.clone().into(), &"observed".into()));
        assert_eq!(block["run"]["command"], serde_json::json!(["sh", "-c", script]));
        let started = block["run"]["started"].as_str().unwrap();
        assert!(started.starts_with("20") && started.ends_with('Z'), "{started}");
        assert!(block["run"]["seconds"].as_u64().unwrap() < 60);
        assert!(block["run"]["host"]["platform"].as_str().unwrap().starts_with("linux "));
    }
    assert_eq!(
        (&after["training"]["base_commit"], &after["training"]["dirty"]),
        (&head.trim().into(), &false.into())
    );
    assert_eq!(after["training"]["inputs"], before["training"]["inputs"]);
    assert_eq!(after["evaluation"]["metrics"]["auc"], 0.3);
    repo.git(["add", "."]).ok();
    repo.git(["commit", "-q", "-m", "v2"]).ok();
    agrees(&repo);
    // An evaluation alone says nothing about the training.
    run_sh(&repo, "echo '{\"auc\": 0.4}' > m/eval.json").ok();
    let later = lineage(&repo);
    assert_eq!(later["training"], after["training"]);
    assert_eq!(
        (&later["evaluation"]["metrics"]["auc"], &later["evaluation"]["weights"]),
        (&0.4.into(), &digest.into())
    );
}

#[test]
fn python_is_told_with_its_version() {
    let sandbox = Sandbox::new();
    let repo = ready(&sandbox);
    let script = format!("import shutil; shutil.copyfile('../weights2', '{WEIGHTS}')");
    let ran = parsed(&repo.model(["run", "churn", "--json", "--", "python3", "-c", &script]).ok());
    assert_eq!((&ran["schema"], &ran["wrote_weights"]), (&"git-model/run/v1".into(), &true.into()));
    assert_eq!((&ran["wrote_report"], &ran["added"]), (&false.into(), &serde_json::json!([WEIGHTS])));
    let version = repo.sh("python3 --version").ok();
    assert_eq!(
        lineage(&repo)["training"]["run"]["host"]["python"],
        version.trim().trim_start_matches("Python ")
    );
}

#[test]
fn inputs_are_those_before_the_command() {
    let sandbox = Sandbox::new();
    let repo = ready(&sandbox);
    let before = lineage(&repo)["training"]["inputs"].clone();
    run_sh(&repo, &training(2, "echo 'lr: 9' > m/train.yaml; echo new > data/new.csv; echo > src/pre.py"))
        .ok();
    agrees(&repo);
    let after = lineage(&repo);
    assert_eq!(after["training"]["inputs"], before);
    // The version is made of what is there now.
    assert_eq!(after["files"]["config"][0]["sha256"], sha256(&repo.join("m/train.yaml")));
    assert_eq!(after["data"][0]["files"], 2);
}

#[test]
fn data_that_was_changed_before_is_what_the_command_read() {
    let sandbox = Sandbox::new();
    let repo = ready(&sandbox);
    repo.write("data/more.csv", "3,4\n");
    run_sh(&repo, &training(2, "")).says("added data").ok();
    agrees(&repo);
    let after = lineage(&repo);
    assert_eq!(after["data"][0]["files"], 2);
    assert_eq!(after["training"]["inputs"]["data"]["train"], after["data"][0]["digest"]);
    assert_eq!(after["training"]["dirty"], true);
}

#[test]
fn the_first_training_makes_the_weights() {
    let sandbox = Sandbox::new();
    let repo = ready(&sandbox);
    repo.model(["rm", WEIGHTS]).ok();
    repo.git(["rm", "-q", "-f", LINEAGE, "m/eval.json"]).ok();
    repo.git(["commit", "-q", "-m", "nothing trained yet"]).ok();
    repo.model(["record"]).fails(1, "m/weights.safetensors");
    run_sh(&repo, &training(2, "")).says("added m/weights.safetensors").ok();
    agrees(&repo);
    let lineage = lineage(&repo);
    assert_eq!((&lineage["training"]["basis"], &lineage["evaluation"]), (&"observed".into(), &Value::Null));
    assert!(repo.text("m/.gitignore").contains("/weights.safetensors"));
}

#[test]
fn the_same_bytes_again_are_no_other_training() {
    let sandbox = Sandbox::new();
    let repo = ready(&sandbox);
    run_sh(&repo, &training(2, "")).ok();
    record(&repo, "v2");
    let first = lineage(&repo);
    run_sh(&repo, &training(2, "sleep 1.1")).ok();
    assert_eq!(lineage(&repo)["training"], first["training"]);
    changed(&repo, "");
    // A command that wrote nothing is not recorded.
    run_sh(&repo, "true").says("nothing is recorded about it").ok();
    changed(&repo, "");
    agrees(&repo);
}

#[test]
fn a_failing_command_records_nothing_and_loses_nothing() {
    let sandbox = Sandbox::new();
    let repo = ready(&sandbox);
    for (end, code) in [("exit 7", 7), ("exit 255", 255), ("kill -9 $$", 137), ("kill -TERM $$", 143)] {
        let script = training(3, &format!("echo '{{\"auc\": 9}}' > m/eval.json; {end}"));
        run_sh(&repo, &script).says("nothing was recorded").fails(code, "sh: it ended with exit code");
        changed(&repo, " M m/eval.json\n");
        assert_eq!(repo.read(WEIGHTS), weights(3.0));
        assert_eq!(repo.state(WEIGHTS), "modified");
    }
    for (command, code) in
        [("no-such-command", 127), ("./no-such-file", 127), ("m/train.yaml", 126), ("./m", 126)]
    {
        let ran = repo.model(["run", "churn", "--", command]).says("hint: is");
        ran.fails(code, &format!("{command}: cannot be started"));
    }
    assert_eq!(repo.model(["run", "churn", "--"]).code, 2);
    repo.model(["run", "churn", "--parent", "x", "--", "touch", "ran"]).fails(2, "not a release");
    assert!(!repo.exists("ran"));
}

#[test]
fn what_cannot_be_meant_is_refused_before_the_command_runs() {
    let sandbox = Sandbox::new();
    let repo = ready(&sandbox);
    std::os::unix::fs::symlink("eval.json", repo.join("m/link.json")).unwrap();
    let long = format!("{}=1", "k".repeat(2000));
    for (option, value, code, reason) in [
        ("--parent", "x", 2, "x: not a release"),
        ("--parent", "churn@latest", 2, "not a release"),
        ("--param", long.as_str(), 1, "could not be read again"),
        ("--eval", "../outside.json", 2, "outside the repository"),
        ("--eval", "m/other.json", 2, "the declared evaluation is m/eval.json"),
    ] {
        repo.model(["run", "churn", option, value, "--", "touch", "ran"]).fails(code, reason);
    }
    assert_eq!(
        repo.model(["run", "churn", "--param", "x", "--", "touch", "ran"]).says("write KEY=VALUE").code,
        2
    );
    declare(&repo, "evaluation: eval.json\n", "");
    for path in [".", "m", "m/link.json"] {
        repo.model(["run", "churn", "--eval", path, "--", "touch", "ran"]).fails(2, "not a file");
    }
    repo.write(LINEAGE, "<<<<<<< ours\n=======\n>>>>>>> theirs\n");
    repo.model(["run", "churn", "--", "touch", "ran"]).fails(1, "both sides of a merge");
    assert!(!repo.exists("ran"));
    // A report that the command is going to write need not be there, and is seen being written.
    repo.git(["checkout", "-q", LINEAGE]).ok();
    let script = "echo '{\"auc\": 0.7}' > m/new.json";
    repo.model(["run", "churn", "--eval", "m/new.json", "--", "sh", "-c", script]).ok();
    let evaluation = &lineage(&repo)["evaluation"];
    assert_eq!((&evaluation["basis"], &evaluation["metrics"]["auc"]), (&"observed".into(), &0.7.into()));
}

#[test]
fn what_was_seen_survives_a_record_that_could_not_be_written() {
    let sandbox = Sandbox::new();
    let repo = ready(&sandbox);
    let inputs = lineage(&repo)["training"]["inputs"].clone();
    let script = training(2, "echo '{\"auc\": NaN}' > m/eval.json; echo 'lr: 9' > m/train.yaml");
    let args = ["run", "churn", "--note", "long", "--param", "seed=1", "--", "sh", "-c", &script];
    repo.model(args).says("hint: what was seen of the command is kept").fails(1, "`auc` is NaN");
    assert_eq!(repo.read(WEIGHTS), weights(2.0));
    repo.git(["diff", "--quiet", "HEAD", "--", LINEAGE]).ok();
    // The report is repaired by hand, which nobody saw; the training was seen.
    repo.write("m/eval.json", r#"{"auc": 0.5}"#);
    repo.model(["record", "--dry-run"]).says("taken up what git model run saw of `sh -c").ok();
    let taken = repo.json(["record", "--note", "shorter"]);
    assert_eq!(taken["taken_up"][0]["command"], serde_json::json!(["sh", "-c", script]));
    let after = lineage(&repo);
    let (training, evaluation) = (&after["training"], &after["evaluation"]);
    assert_eq!((&training["basis"], &training["inputs"]), (&"observed".into(), &inputs));
    assert_eq!(training["weights"], sha256(&repo.join(WEIGHTS)));
    assert_eq!((&training["note"], &training["params"]["seed"]), (&"shorter".into(), &"1".into()));
    assert_eq!((&evaluation["basis"], &evaluation["metrics"]["auc"]), (&"declared".into(), &0.5.into()));
    agrees(&repo);
    assert_eq!(repo.json(["record"])["taken_up"], serde_json::json!([]));
}

#[test]
fn a_later_evaluation_is_recorded_with_the_training_before_it() {
    let sandbox = Sandbox::new();
    let repo = ready(&sandbox);
    run_sh(&repo, &training(2, "echo '{' > m/eval.json")).fails(1, "m/eval.json");
    run_sh(&repo, "echo '{\"auc\": 0.6}' > m/eval.json").says("taken up what git model run saw").ok();
    let after = lineage(&repo);
    for block in ["training", "evaluation"] {
        assert_eq!(after[block]["basis"], "observed");
        assert_eq!(after[block]["weights"], sha256(&repo.join(WEIGHTS)));
    }
    assert_ne!(after["training"]["run"]["command"], after["evaluation"]["run"]["command"]);
    agrees(&repo);
}

#[test]
fn what_was_seen_of_other_weights_is_not_taken_up() {
    let sandbox = Sandbox::new();
    let repo = ready(&sandbox);
    run_sh(&repo, &training(2, "echo '{' > m/eval.json")).fails(1, "m/eval.json");
    repo.write("m/eval.json", r#"{"auc": 0.5}"#);
    repo.write(WEIGHTS, weights(3.0));
    repo.model(["add", WEIGHTS]).ok();
    repo.model(["record"]).says("not the ones that git model run saw `sh -c").ok();
    assert_eq!(lineage(&repo)["training"]["basis"], "declared");
    agrees(&repo);
    // They are back.
    repo.write(WEIGHTS, weights(2.0));
    repo.model(["add", WEIGHTS]).ok();
    repo.model(["record"]).says("taken up").ok();
    assert_eq!(lineage(&repo)["training"]["basis"], "observed");
    // Another worktree has its own.
    run_sh(&repo, &training(3, "echo '{' > m/eval.json")).fails(1, "m/eval.json");
    repo.git(["worktree", "add", "-q", "../other"]).ok();
    let other = sandbox.at("other");
    other.model(["sync"]).ok();
    other.write(WEIGHTS, weights(3.0));
    other.model(["add", WEIGHTS]).ok();
    other.model(["record"]).never_says("saw").ok();
    assert_eq!(lineage(&other)["training"]["basis"], "declared");
}

/// A `git` that waits when it is about to stage, so that a signal comes while git-model records.
const SLOW_GIT: &str = "#!/bin/sh\ncase \" $* \" in *' update-index '*) [ ! -e slow ] || { touch ready; sleep 1; } ;; esac\n\
                        PATH=${PATH#*:} exec git \"$@\"\n";

#[test]
fn a_signal_while_recording_loses_nothing() {
    let sandbox = Sandbox::new();
    let repo = ready(&sandbox);
    let git = sandbox.join("bin/git");
    std::fs::create_dir(sandbox.join("bin")).unwrap();
    std::fs::write(&git, SLOW_GIT).unwrap();
    repo.sh(&format!("chmod +x {}", git.display())).ok();
    let path = format!("{}:{}", sandbox.join("bin").display(), std::env::var("PATH").unwrap());
    let slow = repo.env("PATH", path);
    let child = start(&slow, &training(2, "touch slow"));
    signal(&child, "TERM");
    let output = child.wait_with_output().unwrap();
    std::fs::remove_file(repo.join("slow")).unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("error: interrupted after the command had ended"), "{said}");
    assert!(said.contains("hint: what was seen of the command is kept: git model record churn"), "{said}");
    repo.git(["diff", "--quiet", "HEAD", "--", LINEAGE]).ok();
    repo.model(["add", WEIGHTS]).ok();
    repo.model(["record"]).says("taken up").ok();
    assert_eq!(lineage(&repo)["training"]["basis"], "observed");
    agrees(&repo);
}

/// Waits for a signal, though not for ever: one that never comes must fail the test and leave nothing running.
const WAIT: &str = "for i in $(seq 200); do sleep 0.05; done";

/// Starts `git model run` of a script that tells when it is ready.
fn start(repo: &Repo, script: &str) -> Child {
    let mut command: Command = repo.command(BINARY);
    command.args(["run", "churn", "--", "sh", "-c", script]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().unwrap();
    let started = Instant::now();
    while !repo.exists("ready") {
        assert!(started.elapsed() < Duration::from_secs(30), "it does not start");
        std::thread::sleep(Duration::from_millis(10));
    }
    std::fs::remove_file(repo.join("ready")).unwrap();
    child
}

fn signal(child: &Child, name: &str) {
    let mut kill = Command::new("kill");
    kill.args(["-s", name, &child.id().to_string()]);
    run(kill).ok();
}

#[test]
fn signals_reach_the_command() {
    let sandbox = Sandbox::new();
    let repo = ready(&sandbox);
    for (name, number) in [("TERM", 15), ("INT", 2), ("HUP", 1), ("USR1", 10)] {
        // The command decides what a signal means.
        let handled = format!("trap 'echo {name} > caught; exit 3' {name}; touch ready; {WAIT}");
        let child = start(&repo, &handled);
        signal(&child, name);
        assert_eq!(child.wait_with_output().unwrap().status.code(), Some(3), "{name}");
        assert_eq!(repo.text("caught"), format!("{name}\n"));
        let child = start(&repo, "touch ready; exec sleep 10");
        // The shell may not have become sleep yet, which makes no difference.
        signal(&child, name);
        assert_eq!(child.wait_with_output().unwrap().status.code(), Some(128 + number), "{name}");
    }
    // A training that saves its work on a signal and succeeds is a training.
    let saves = format!("trap '{}exit 0' TERM; touch ready; {WAIT}", training(2, ""));
    let child = start(&repo, &saves);
    signal(&child, "TERM");
    assert_eq!(child.wait_with_output().unwrap().status.code(), Some(0));
    agrees(&repo);
    assert_eq!(lineage(&repo)["training"]["basis"], "observed");
}

#[test]
fn secrets_are_not_written_down() {
    let sandbox = Sandbox::new();
    let repo = ready(&sandbox);
    let script = training(2, ": --token hush && X_API_KEY=hush : -H 'Authorization: Bearer hush'");
    let args = ["run", "churn", "--", "env", "WANDB_API_KEY=hush", "sh", "-c", &script];
    let rest = ["sh", "--password", "hush", "--url=https://me:hush@host/x?sig=hush", "--lr", "0.1"];
    repo.model(args.into_iter().chain(rest)).ok();
    let text = repo.text(LINEAGE);
    assert!(!text.contains("hush"), "{text}");
    let command = &lineage(&repo)["training"]["run"]["command"];
    assert_eq!(command[1], "WANDB_API_KEY=***");
    assert_eq!((&command[9], &command[10]), (&"--lr".into(), &"0.1".into()), "{command}");
    agrees(&repo);
}

#[test]
fn any_command_line_can_be_recorded() {
    let sandbox = Sandbox::new();
    let repo = ready(&sandbox);
    let script = training(2, "true && echo \"a: b\" & wait # &x *y !z\n\techo '\u{1f600}'");
    let args = ["run", "churn", "--", "sh", "-c", &script];
    let odd = [
        "", "-", "&", "*", "!", "{", "}", "[a, b]", "a,b", "null", "0x1", "\t", "'", "\"", "\\", "- x",
        "a:&b",
    ];
    repo.model(args.into_iter().chain(odd)).ok();
    let command = lineage(&repo)["training"]["run"]["command"].clone();
    assert_eq!(command[2], script);
    for (at, word) in odd.iter().enumerate() {
        assert_eq!(command[at + 3], *word);
    }
    agrees(&repo);
}

#[test]
fn the_command_has_the_terminal_and_the_folder() {
    let sandbox = Sandbox::new();
    let repo = ready(&sandbox);
    let script = "echo typed | git model run churn -- sh -c 'cat; pwd; echo told >&2; echo $X'";
    let ran = repo.at("m").env("X", "inherited").sh(script);
    assert_eq!(ran.stdout, format!("typed\n{}\ninherited\n", repo.join("m").display()));
    ran.says("told").ok();
}

#[test]
fn statements_go_with_the_training() {
    let sandbox = Sandbox::new();
    let repo = ready(&sandbox);
    let args = [
        "run",
        "churn",
        "--param",
        "seed=1",
        "--note",
        "longer",
        "--parent",
        "churn@v1.0.0",
        "--",
        "sh",
        "-c",
    ];
    repo.model(args.into_iter().chain([training(2, "").as_str()])).ok();
    let training = &lineage(&repo)["training"];
    assert_eq!((&training["params"]["seed"], &training["note"]), (&"1".into(), &"longer".into()));
    assert_eq!(training["parent"], "churn@v1.0.0");
    agrees(&repo);
}

#[test]
fn weights_in_several_files_are_one() {
    let sandbox = Sandbox::new();
    let repo = ready(&sandbox);
    declare(&repo, "[weights.safetensors]", "[weights.safetensors, more, tokenizer.json]");
    repo.write("m/tokenizer.json", "{}");
    repo.git(["add", "m"]).ok();
    run_sh(&repo, &training(2, "mkdir -p m/more && cp ../weights3 m/more/a.safetensors"))
        .says("added m/more")
        .ok();
    agrees_several(&repo);
    run_sh(&repo, "rm m/more/a.safetensors && cp ../weights2 m/more/b.safetensors").ok();
    agrees_several(&repo);
    is_fixed(&repo);
}

/// The digest of several files is one over lines of digest and path.
#[track_caller]
fn agrees_several(repo: &Repo) {
    let lineage = lineage(repo);
    let line = |file: &Value| {
        format!(
            "{} {}\n",
            file["sha256"].as_str().unwrap(),
            file["path"].as_str().unwrap().trim_start_matches("m/")
        )
    };
    let lines: String = lineage["files"]["weights"].as_array().unwrap().iter().map(line).collect();
    repo.write("../lines", lines);
    assert_eq!(lineage["weights"]["sha256"], sha256(&repo.join("../lines")));
    assert_eq!(
        (&lineage["weights"]["tensors"], &lineage["training"]["basis"]),
        (&4.into(), &"observed".into())
    );
}
