//! The gates, one by one: what they refuse, why, and whose rules count.

use serde_json::Value;

use crate::support::models::{
    LINEAGE, RULES, WEIGHTS, advance, bare, churn, connect, declare, next, payload, published,
    published_with, record, remote_tags, rule, train, trusted_clone, verdict, weights,
};
use crate::support::{Repo, Sandbox};

/// A metric rule and a stage without rules.
fn metric(rule: &str) -> String {
    format!("gates: {{metrics: [{rule}]}}\nstages: {{prod: {{}}}}\n")
}

#[test]
fn a_version_soaks_in_the_stage_before() {
    let sandbox = Sandbox::new();
    let soak =
        |time: &str| format!("stages: {{staging: {{}}, prod: {{promotes_from: [staging], soak: {time}}}}}\n");
    let repo = published_with(&sandbox, &soak("1h"));
    repo.model(["release", "churn", "1.0.0"]).ok();
    let check = repo.json(["check", "churn@1.0.0", "--stage", "prod"]);
    assert_eq!(verdict(&check, "promotes from").1, "it is not in staging");
    assert_eq!(verdict(&check, "soak").1, "it is not in the stage before");
    repo.model(["promote", "churn@1.0.0", "staging"]).ok();
    repo.model(["promote", "churn@1.0.0", "prod"]).fails(3, "soak: ").contains("1 h").then_some(()).unwrap();
    rule(&repo, &soak("1s"));
    std::thread::sleep(std::time::Duration::from_millis(2100));
    repo.model(["promote", "churn@1.0.0", "prod"]).ok();
    // A version that left the stage before has not soaked, however long it was there.
    next(&repo, 2.0, "0.2", "1.1.0");
    repo.env("GIT_COMMITTER_DATE", "2020-01-01T00:00:00Z").model(["promote", "churn@1.1.0", "staging"]).ok();
    repo.model(["promote", "churn@1.0.0", "staging"]).ok();
    repo.model(["promote", "churn@1.1.0", "prod"]).fails(3, "promotes from: it is not in staging");
}

/// Releases a version with this schema.
fn with_schema(repo: &Repo, schema: &str, version: &str) -> crate::support::Output {
    repo.write("m/schema.json", schema);
    record(repo, version);
    repo.git(["push", "-q", "origin", "main"]).ok();
    repo.model(["release", "churn", version])
}

#[test]
fn a_schema_must_not_break_the_callers_of_production() {
    let sandbox = Sandbox::new();
    let repo = published_with(&sandbox, "gates: {schema: {against: prod}}\nstages: {prod: {}}\n");
    let schema = |input: &str, output: &str| {
        format!(
            r#"{{"type": "object", "properties": {{
                "input": {{"type": "object", "required": ["text"], "properties": {{"text": {{"type": "string"}}{input}}}}},
                "output": {{"type": "object", "required": ["score"], "properties": {{"score": {{"type": "number"}}{output}}}}}
            }}}}"#
        )
    };
    let label = r#", "label": {"type": "string"}"#;
    with_schema(&repo, &schema("", label), "1.0.0").ok();
    repo.model(["promote", "churn@1.0.0", "prod"]).ok();
    let check = repo.json(["check", "churn"]);
    assert_eq!(verdict(&check, "schema").1, "the same as in prod");

    let said =
        with_schema(&repo, &schema("", ""), "1.1.0").fails(3, "schema: callers of prod break: output.label");
    assert!(!said.contains("input"), "{said}");
    let required = schema("", label).replace(r#"["text"]"#, r#"["text", "more"]"#);
    with_schema(&repo, &required, "1.1.0").fails(3, "callers of prod break: input.more");
    with_schema(&repo, "{\"title\": \"no schema\"}", "1.1.0").fails(1, "not a JSON Schema");
    // A new optional input and a new output break nobody.
    let more =
        schema(r#", "note": {"type": "string"}"#, &format!("{label}, \"why\": {{\"type\": \"string\"}}"));
    with_schema(&repo, &more, "1.1.0").ok();
    repo.model(["promote", "churn@1.1.0", "prod"]).ok();
    // Now the way back to the first one breaks callers: promoting refuses, rolling back does not.
    repo.model(["promote", "churn@1.0.0", "prod"]).fails(3, "callers of prod break: output.why");
    repo.model(["rollback", "churn", "prod"]).ok();
}

#[test]
fn formats_and_license_are_required() {
    let sandbox = Sandbox::new();
    let rules = "gates: {formats: [gguf, onnx], require: [license]}\n";
    let repo = published_with(&sandbox, rules);
    let check = repo.json(["check", "churn"]);
    assert_eq!(check["passed"], false);
    assert_eq!(verdict(&check, "formats"), ("fail".into(), "safetensors is not among gguf, onnx".into()));
    assert_eq!(verdict(&check, "requires license").0, "fail");
    repo.model(["release", "churn"]).fails(3, "(and 1 more)");
    rule(&repo, &format!("license: ' '\n{}", rules.replace("gguf", "safetensors")));
    repo.model(["release", "churn"]).fails(3, "requires license: it is not declared");
    rule(&repo, &format!("license: Apache-2.0\n{}", rules.replace("gguf", "safetensors")));
    repo.model(["release", "churn"]).ok();
    // Bytes of no known format are none of the allowed ones.
    repo.write("m/weights.bin", "not a model");
    repo.write("m/eval.json", r#"{"auc": 0.9}"#);
    repo.model(["add", "m/weights.bin"]).ok();
    repo.write("m/model.yaml", repo.text("m/model.yaml").replace("weights.safetensors", "weights.bin"));
    record(&repo, "bytes");
    repo.model(["release", "churn"]).fails(3, "formats: the weights are in no known format");
}

#[test]
fn metrics_are_compared_with_production() {
    let sandbox = Sandbox::new();
    let lower = "{name: latency.p95, direction: lower, max: 40, against: prod, max_relative_increase: 0.1}";
    let slice = "{name: slices.new, direction: higher, min: 0.4}";
    let repo = published_with(&sandbox, &metric(&format!("{lower}, {slice}")));
    let report =
        |p95: &str, new: &str| format!(r#"{{"latency": {{"p95": {p95}}}, "slices": {{"new": {new}}}}}"#);
    repo.model(["release", "churn"]).fails(3, "metric latency.p95: the evaluation report does not have it");
    advance(&repo, 2.0, &report("30", "0.39"), "slice");
    repo.model(["release", "churn", "1.0.0"]).fails(3, "metric slices.new: 0.39 is below the minimum 0.4");
    advance(&repo, 3.0, &report("30", "0.4"), "good");
    repo.model(["release", "churn", "1.0.0"]).ok();
    repo.model(["promote", "churn@1.0.0", "prod"]).ok();
    advance(&repo, 4.0, &report("33.1", "0.9"), "slow");
    repo.model(["release", "churn"]).fails(3, "33.1, 30 in prod: an increase of more than 10 %");
    advance(&repo, 5.0, &report("41", "0.9"), "slower");
    repo.model(["release", "churn"]).fails(3, "41 is above the maximum 40");
    advance(&repo, 6.0, &report("33", "0.9"), "bearable");
    repo.model(["release", "churn", "1.1.0"]).ok();
    repo.model(["promote", "churn@1.1.0", "prod"]).ok();
    // An evaluation of other weights says nothing about these.
    train(&repo, 7.0);
    record(&repo, "not evaluated");
    repo.model(["release", "churn"]).fails(3, "evaluation: the report judged other weights");
    repo.model(["release", "churn", "--override", "trust me"]).fails(3, "evaluation: ");
}

#[test]
fn a_promotion_is_judged_again() {
    let sandbox = Sandbox::new();
    let repo = published(&sandbox);
    repo.model(["release", "churn", "1.0.0"]).ok();
    next(&repo, 2.0, "0.3", "1.1.0");
    repo.model(["promote", "churn@1.1.0", "staging"]).ok();
    repo.model(["promote", "churn@1.1.0", "prod"]).ok();
    // What was good enough for an empty stage is a drop now; the words for it stay in the event.
    repo.model(["promote", "churn@1.0.0", "staging"]).fails(3, "0.1, 0.3 in prod: a drop of more than 0.1");
    repo.model(["promote", "churn@1.0.0", "staging", "--override", " "])
        .fails(2, "--override needs a reason");
    repo.model(["promote", "churn@1.0.0", "staging", "--override", "for a comparison"]).ok();
    let event = payload(&sandbox.at("remote.git"), "churn#staging#2");
    let expected = serde_json::json!([{"gate": "metric auc", "reason": "for a comparison"}]);
    assert_eq!(event["overrides"], expected);
    repo.model(["history", "churn"]).says("[override metric auc: for a comparison]").ok();
    // Rules that became stricter count for what was released under weaker ones.
    rule(&repo, &RULES.replace("min: 0.1", "min: 0.5"));
    repo.model(["promote", "churn@1.1.0", "prod", "--traffic", "5"]).fails(3, "has all of the traffic");
    repo.model(["promote", "churn@1.1.0", "staging"]).fails(3, "0.3 is below the minimum 0.5");
    repo.model(["promote", "churn@1.1.0", "nowhere"])
        .fails(2, "nowhere: m/model.yaml declares no such stage");
}

#[test]
fn rules_that_cannot_be_read_let_nothing_through() {
    let sandbox = Sandbox::new();
    let repo = published(&sandbox);
    repo.model(["release", "churn", "1.0.0"]).ok();
    // Somebody breaks the declaration on the default branch.
    repo.git(["checkout", "-q", "-b", "broken"]).ok();
    repo.write("m/model.yaml", "version: 1\nname: [churn\n");
    repo.git(["commit", "-q", "-a", "--no-verify", "-m", "broken"]).ok();
    repo.git(["push", "-q", "--no-verify", "origin", "broken:main"]).ok();
    repo.git(["checkout", "-q", "main"]).ok();
    let tags = remote_tags(&repo);
    let why = "the rules on the default branch cannot be read, so nothing is released: m/model.yaml";
    repo.model(["check", "churn"]).fails(3, why);
    repo.model(["promote", "churn@1.0.0", "staging", "--override", "really"]).fails(3, why);
    train(&repo, 9.0);
    repo.write("m/eval.json", r#"{"auc": 0.9}"#);
    record(&repo, "next");
    repo.model(["release", "churn", "9.0.0", "--override", "really"]).fails(3, why);
    assert_eq!(remote_tags(&repo), tags);
    // A remote without any default branch has no rules either.
    sandbox.at("remote.git").git(["symbolic-ref", "HEAD", "refs/heads/none"]).ok();
    repo.model(["check", "churn"]).fails(3, "cannot be read");
    repo.model(["promote", "churn@1.0.0", "staging"]).fails(3, "cannot be read");
    assert_eq!(remote_tags(&repo), tags);
}

#[test]
fn a_new_model_brings_its_own_rules_until_it_is_on_the_default_branch() {
    let sandbox = Sandbox::new();
    bare(&sandbox);
    let repo = sandbox.repo("repo");
    repo.write("README", "nothing yet");
    repo.git(["add", "."]).ok();
    repo.git(["commit", "-q", "-m", "empty"]).ok();
    connect(&sandbox, &repo);
    repo.git(["checkout", "-q", "-b", "model"]).ok();
    let repo = churn(repo);
    declare(
        &repo,
        "",
        "gates: {metrics: [{name: auc, direction: higher, min: 0.05}]}\nstages: {staging: {}}\n",
    );
    record(&repo, "model");
    repo.git(["push", "-q", "origin", "model"]).ok();
    repo.model(["release", "churn", "1.0.0"]).ok();
    let remote = sandbox.at("remote.git");
    let head = repo.git(["rev-parse", "HEAD"]).ok();
    let policy = payload(&remote, "churn@v1.0.0")["policy"].clone();
    assert_eq!((&policy["source"], &policy["commit"]), (&"release-commit".into(), &head.trim().into()));
    // Once the default branch has it, in another folder even, its rules count.
    repo.git(["checkout", "-q", "main"]).ok();
    repo.write("elsewhere/model.yaml", "version: 1\nname: churn\ngates: {metrics: [{name: auc, direction: higher, min: 0.5}]}\nstages: {staging: {}}\n");
    repo.git(["add", "."]).ok();
    repo.git(["commit", "-q", "-m", "rules"]).ok();
    repo.git(["push", "-q", "origin", "main"]).ok();
    repo.model(["promote", "churn@1.0.0", "staging"]).fails(3, "0.1 is below the minimum 0.5");
    repo.git(["checkout", "-q", "model"]).ok();
    let check = repo.json(["check", "churn"]);
    assert_eq!(check["policy"]["source"], "default-branch");
    let rules = repo.git(["cat-file", "blob", "main:elsewhere/model.yaml"]);
    std::fs::write(sandbox.join("rules"), rules.ok()).unwrap();
    assert_eq!(check["policy"]["sha256"], crate::support::sha256(&sandbox.join("rules")));
}

#[test]
fn a_weaker_rule_of_a_branch_or_an_old_commit_has_no_say() {
    let sandbox = Sandbox::new();
    let repo = published_with(&sandbox, &metric("{name: auc, direction: higher, min: 0.0}"));
    advance(&repo, 2.0, r#"{"auc": 0.05}"#, "weak");
    let weak = repo.git(["rev-parse", "HEAD"]).ok();
    rule(&repo, &metric("{name: auc, direction: higher, min: 0.5}"));
    repo.model(["release", "churn", "1.0.0", "--commit", weak.trim()]).fails(3, "below the minimum 0.5");
    repo.git(["checkout", "-q", "-b", "mine", weak.trim()]).ok();
    repo.model(["release", "churn", "1.0.0"]).fails(3, "below the minimum 0.5");
    // What is the default branch here, or in the branch's own upstream, does not matter.
    repo.git(["branch", "-q", "-f", "main", "mine"]).ok();
    repo.git(["push", "-q", "-u", "origin", "mine"]).ok();
    repo.git(["remote", "set-head", "origin", "mine"]).ok();
    repo.model(["release", "churn", "1.0.0"]).fails(3, "below the minimum 0.5");
    assert!(remote_tags(&repo).is_empty());
}

#[test]
fn the_record_is_never_overridden() {
    let sandbox = Sandbox::new();
    let repo = published(&sandbox);
    let push = || repo.git(["push", "-q", "origin", "main"]).ok();
    let refused = |why: &str| {
        repo.model(["release", "churn", "1.0.0"]).fails(3, why);
        repo.model(["release", "churn", "1.0.0", "--override", "because"]).fails(3, why);
    };
    // A declared file that was changed and committed without recording.
    repo.write("src/pre.py", "print('two')\n");
    repo.git(["commit", "-q", "-a", "--no-verify", "-m", "code"]).ok();
    push();
    refused("recorded: code: src/pre.py changed since it was recorded");
    // Data, too.
    record(&repo, "recorded");
    repo.write("data/rows.csv", "3,4\n");
    repo.model(["add", "data"]).ok();
    repo.git(["commit", "-q", "-a", "--no-verify", "-m", "data"]).ok();
    refused("recorded: data `train` changed since it was recorded");
    record(&repo, "recorded");
    // A record of another model, or none.
    let text = repo.text(LINEAGE);
    repo.write(LINEAGE, text.replacen("model: churn", "model: other", 1));
    repo.git(["commit", "-q", "-a", "--no-verify", "-m", "other"]).ok();
    refused("recorded: lineage.yaml is of the model `other`");
    repo.git(["rm", "-q", LINEAGE]).ok();
    repo.git(["commit", "-q", "--no-verify", "-m", "none"]).ok();
    assert_ne!(repo.model(["release", "churn", "1.0.0", "--override", "because"]).code, 0);
    assert!(remote_tags(&repo).is_empty());
}

#[test]
fn an_old_record_is_not_what_was_released_already() {
    let sandbox = Sandbox::new();
    let repo = published(&sandbox);
    repo.model(["release", "churn", "1.0.0"]).ok();
    let head = repo.git(["rev-parse", "HEAD"]).ok();
    let asked: [&[&str]; 3] = [
        &["release", "churn"],
        &["release", "churn", "--minor", "--json"],
        &["release", "churn", "1.0.0", "--override", "because"],
    ];
    let all = |why: &str| asked.map(|args| repo.model(args).fails(3, why));
    repo.write("src/pre.py", "print('two')\n");
    all("churn@v1.0.0: what is here is not what was released: committed: declared files differ");
    repo.git(["commit", "-q", "-a", "--no-verify", "-m", "code"]).ok();
    all("recorded: code: src/pre.py changed since it was recorded");
    // Of the very commit that was released it is true, whatever is checked out.
    repo.model(["release", "churn", "--commit", head.trim()])
        .says("this very model is released already")
        .ok();
    repo.git(["reset", "-q", "--hard", head.trim()]).ok();
    asked.iter().for_each(|args| drop(repo.model(*args).ok()));
    assert_eq!(remote_tags(&repo).len(), 1);
}

#[test]
fn content_that_is_not_what_is_committed_is_not_released() {
    let sandbox = Sandbox::new();
    let repo = published(&sandbox);
    for (path, bytes) in [(WEIGHTS, weights(7.0)), ("data/rows.csv", b"8,8\n".to_vec())] {
        let before = repo.read(path);
        repo.write(path, bytes);
        let artifact = path.strip_suffix("/rows.csv").unwrap_or(path);
        let why = format!("{artifact}: its content is not what is committed (1 artifact)");
        repo.model(["check", "churn"]).says(&why).fails(3, "1 gate refused");
        repo.model(["release", "churn", "1.0.0", "--override", "x"]).fails(3, &format!("committed: {why}"));
        repo.write(path, before);
        repo.model(["check", "churn"]).ok();
    }
    // An older version's that was not brought up to date, either.
    let old = repo.read(WEIGHTS);
    let head = repo.git(["rev-parse", "HEAD"]).ok();
    advance(&repo, 2.0, r#"{"auc": 0.2}"#, "two");
    repo.git(["-c", "core.hooksPath=/dev/null", "reset", "-q", "--hard", head.trim()]).ok();
    assert_ne!(repo.read(WEIGHTS), old);
    repo.model(["release", "churn", "1.0.0"]).fails(3, "m/weights.safetensors: its content is not");
    // Neither CI, which has no content at all, nor a release of another commit is held up.
    repo.model(["release", "churn", "1.0.0", "--commit", "HEAD"]).ok();
    trusted_clone(&sandbox, "ci").model(["release", "churn", "1.1.0"]).ok();
    assert_eq!(remote_tags(&repo).len(), 2);
}

#[test]
fn a_model_without_files_is_none() {
    let sandbox = Sandbox::new();
    let repo = published(&sandbox);
    repo.write("bert/model.yaml", "version: 1\nname: bert\n");
    repo.git(["add", "."]).ok();
    repo.model(["record", "bert"])
        .says("warning: bert: no file belongs to it, so it cannot be released")
        .says("declare its weights in bert/model.yaml")
        .ok();
    repo.git(["add", "."]).ok();
    repo.git(["commit", "-q", "-m", "bert"]).ok();
    let why = "no file belongs to the model; declare its weights in bert/model.yaml";
    repo.model(["check", "bert"]).says(why).fails(3, "1 gate refused");
    repo.model(["release", "bert", "--override", "x"]).fails(3, why);
    // What is drafted beside a tracked file with the common name has it.
    repo.write("bert/pytorch_model.bin", "weights");
    repo.model(["add", "bert/pytorch_model.bin"]).ok();
    std::fs::remove_file(repo.join("bert/model.yaml")).unwrap();
    let draft = repo.json(["new", "bert", "--dir", "bert"]);
    assert_eq!(draft["found"]["weights"], serde_json::json!(["pytorch_model.bin"]));
    repo.model(["record", "bert"]).never_says("no file belongs").ok();
    repo.git(["add", "."]).ok();
    repo.git(["commit", "-q", "-m", "weights"]).ok();
    repo.git(["push", "-q", "origin", "main"]).ok();
    repo.model(["release", "bert"]).says("released bert@v0.1.0").ok();
}

#[test]
fn names_that_differ_in_letter_case_only_get_no_tag() {
    let sandbox = Sandbox::new();
    let repo = published_with(&sandbox, "stages: {qa: {}, prod: {}}\n");
    repo.model(["release", "churn", "1.0.0"]).ok();
    repo.model(["promote", "churn@1.0.0", "qa"]).ok();
    // Where there are two already, as older versions let them be made, the ways out stay open.
    let (remote, only) = (sandbox.at("remote.git"), "differs from QA in letter case only");
    remote.sh("git update-ref 'refs/tags/churn#QA#1' $(git rev-parse 'refs/tags/churn#qa#1')").ok();
    next(&repo, 2.0, "0.2", "1.1.0");
    repo.model(["promote", "churn@1.1.0", "qa"]).fails(3, only);
    repo.model(["retire", "churn", "qa", "--dry-run"]).says(only).says("would be: v1.0.0 -> empty").ok();
    remote.git(["tag", "-d", "churn#QA#1"]).ok();
    let tags = remote_tags(&repo);
    // A stage beside another one, in the rules and as the only one of a later rule.
    declare(&repo, "", "stages: {qa: {}, QA: {}}\n");
    let both = "m/model.yaml:10: stages `QA` and `qa` differ in letter case only";
    repo.model(["record", "churn"]).fails(1, both);
    rule(&repo, "stages: {QA: {}, prod: {}}\n");
    repo.model(["promote", "churn@1.0.0", "QA"]).fails(3, "churn#QA: churn#qa differs in letter case only");
    repo.model(["retire", "churn", "qa", "--dry-run"]).says("would be").ok();
    // A model that is called otherwise now, and one in a folder; also without a remote.
    repo.write("m/model.yaml", repo.text("m/model.yaml").replace("name: churn", "name: Churn"));
    repo.model(["record", "Churn"]).ok();
    repo.git(["commit", "-q", "-a", "-m", "renamed"]).ok();
    let why = "Churn: there is churn#qa#1, whose name differs in letter case only";
    repo.model(["release", "Churn"]).says("call the model churn").fails(3, why);
    assert_eq!(remote_tags(&repo), tags);
    repo.git(["remote", "remove", "origin"]).ok();
    repo.model(["release", "Churn"]).fails(3, why);
}

#[test]
fn verdicts_are_json_and_well_formed_junit() {
    let sandbox = Sandbox::new();
    // A name that XML and a terminal would stumble over.
    let odd = r#""a<b>&\"c\"'\e]]>""#;
    let repo = published_with(&sandbox, &metric(&format!("{{name: {odd}, direction: higher, min: 0.5}}")));
    for args in [&["check", "churn"][..], &["check", "churn", "--stage", "prod"]] {
        let output = repo.model(args.iter().chain(&["--json"]));
        assert_eq!(output.code, 3, "{output}");
        let check: Value = serde_json::from_str(&output.stdout).unwrap();
        assert_eq!((&check["schema"], &check["passed"]), (&"git-model/check/v1".into(), &false.into()));
        assert_eq!(
            (&check["model"], &check["policy"]["source"]),
            (&"churn".into(), &"default-branch".into())
        );
        assert_eq!(verdict(&check, "metric a<b>&\"c\"'\u{1b}]]>").0, "fail");
        let output = repo.model(args.iter().chain(&["--junit"]));
        assert_eq!(output.code, 3, "{output}");
        std::fs::write(sandbox.join("junit.xml"), &output.stdout).unwrap();
        let script = "import sys, xml.etree.ElementTree as t; r = t.parse('junit.xml').getroot(); c = r.findall('testcase'); \
                      print(r.tag, r.get('tests') == str(len(c)), r.get('failures'), \
                      len([x for x in c if x.find('failure') is not None]), [x.get('name') for x in c if x.find('failure') is not None][0])";
        let parsed = sandbox.at("").command("python3").args(["-c", script]).output().unwrap();
        let parsed = String::from_utf8(parsed.stdout).unwrap();
        assert_eq!(parsed.trim_end(), "testsuite True 1 1 metric a<b>&\"c\"' ]]>", "{}", output.stdout);
    }
    repo.model(["check", "churn", "--json", "--junit"]).fails_usage();
    rule(&repo, "stages: {prod: {}}\n");
    repo.model(["check", "churn", "--junit"]).says("failures=\"0\"").ok();
}

#[test]
fn bytes_that_the_store_lacks_are_named() {
    let sandbox = Sandbox::new();
    let repo = published(&sandbox);
    repo.model(["release", "churn", "1.0.0"]).ok();
    let object = |path: &str| {
        let digest = crate::support::sha256(&repo.join(path));
        sandbox.join("store/objects/sha256").join(&digest[..2]).join(&digest)
    };
    let kept = std::fs::read(object(WEIGHTS)).unwrap();
    std::fs::remove_file(object(WEIGHTS)).unwrap();
    let clone = trusted_clone(&sandbox, "clone");
    for there in [&repo, &clone] {
        there.model(["check", "churn@1.0.0"]).says("does not have it").fails(3, "1 gate refused");
        there
            .model(["promote", "churn@1.0.0", "staging"])
            .fails(3, "stored: m/weights.safetensors: origin does not");
    }
    std::fs::write(object(WEIGHTS), &kept[1..]).unwrap();
    clone
        .model(["promote", "churn@1.0.0", "staging", "--override", "x"])
        .fails(3, "stored: m/weights.safetensors");
    std::fs::write(object(WEIGHTS), &kept).unwrap();
    std::fs::remove_file(object("data/rows.csv")).unwrap();
    clone.model(["promote", "churn@1.0.0", "staging"]).fails(3, "stored: data");
    // Whoever has the bytes can bring them back.
    repo.model(["push", "--repair"]).ok();
    clone.model(["promote", "churn@1.0.0", "staging"]).ok();
}
