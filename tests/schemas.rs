//! The JSON Schemas under `docs/schemas` say what the code says: about what it writes, what it accepts, and what it refuses.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::Value;

use crate::support::{Output, Repo, Sandbox};

/// The least that each file must hold.
const DECLARATION: &str = "version: 1\nname: churn\n";
const RECORD: &str = "version: 1\nmodel: churn\n";

struct Schema {
    value: Value,
    validator: jsonschema::Validator,
}

impl Schema {
    /// Also checks that it is a schema.
    fn load(name: &str) -> Schema {
        let text = doc(&format!("schemas/{name}.schema.json"));
        let value: Value = serde_json::from_str(&text).unwrap();
        let validator = jsonschema::validator_for(&value).unwrap_or_else(|error| panic!("{name}: {error}"));
        Schema { value, validator }
    }

    fn allows(&self, yaml: &str) -> bool {
        self.validator.is_valid(&parse(yaml))
    }

    #[track_caller]
    fn must_allow(&self, yaml: &str) {
        let value = parse(yaml);
        let errors: Vec<String> = self.validator.iter_errors(&value).map(|error| error.to_string()).collect();
        assert!(errors.is_empty(), "{}\n{yaml}", errors.join("\n"));
    }

    /// The keys of the object at a JSON pointer.
    fn keys(&self, pointer: &str) -> BTreeSet<String> {
        let object = self.value.pointer(pointer).unwrap_or_else(|| panic!("nothing at {pointer}"));
        object["properties"].as_object().unwrap().keys().cloned().collect()
    }
}

fn doc(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs").join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn parse(yaml: &str) -> Value {
    git_model::yaml::from_slice(yaml.as_bytes(), "test.yaml")
        .unwrap_or_else(|error| panic!("{error}\n{yaml}"))
}

/// The first code block of a page in this language.
fn example(page: &str, language: &str) -> String {
    let page = doc(page);
    let (_, rest) = page.split_once(&format!("\n```{language}\n")).unwrap();
    rest.split_once("\n```").unwrap().0.to_owned() + "\n"
}

/// The rows of the table below a heading: an example, and what the tool says about it.
fn refused(page: &str, heading: &str) -> Vec<(String, String)> {
    let page = doc(page);
    let (_, rest) = page.split_once(&format!("\n## {heading}\n")).unwrap();
    let section = rest.split("\n## ").next().unwrap();
    let row = |line: &str| {
        let mut cells = line.strip_prefix("| `")?.strip_suffix("` |")?.split("` | `");
        Some((cells.next()?.to_owned(), cells.next()?.to_owned()))
    };
    let rows: Vec<_> = section.lines().filter_map(row).collect();
    assert!(rows.len() > 2, "{heading}: {rows:?}");
    rows
}

/// The least document, with this line instead of the one of the same key.
fn with(base: &str, line: &str) -> String {
    let key = line.split(':').next().unwrap();
    let others: String = base
        .lines()
        .filter(|other| other.split(':').next() != Some(key))
        .map(|line| format!("{line}\n"))
        .collect();
    format!("{others}{line}\n")
}

/// What git-model says about a declaration, or a record beside one.
fn tool(repo: &Repo, file: &str, yaml: &str) -> Output {
    repo.write("model.yaml", DECLARATION);
    repo.write("lineage.yaml", RECORD);
    repo.write(file, yaml);
    repo.model(["record", "--dry-run"])
}

#[test]
fn every_draft_is_a_valid_declaration() {
    let schema = Schema::load("model");
    let sandbox = Sandbox::new();
    let repo = sandbox.repo("repo");
    repo.model(["new", "empty", "--dir", "nothing"]).ok();
    schema.must_allow(&repo.text("nothing/model.yaml"));

    for file in [
        "uv.lock",
        "src/preprocess.py",
        "src/odd, name: preprocess.py",
        "models/eval.json",
        "models/config.yaml",
    ] {
        repo.write(file, "{}");
    }
    repo.write("models/schema.json", "{}");
    repo.write("models/weights.safetensors", "w");
    repo.write("data/train/a", "a");
    repo.model(["add", "models/weights.safetensors", "data/train"]).ok();
    repo.model(["new", "team/churn", "--dir", "models"]).ok();
    let draft = repo.text("models/model.yaml");
    schema.must_allow(&draft);
    let found = parse(&draft);
    for key in ["weights", "code", "config", "environment", "schema", "data", "evaluation"] {
        assert!(found.get(key).is_some(), "{key}\n{draft}");
    }

    // What a draft suggests in comments is valid, too.
    let is_key = |text: &str| text.starts_with(' ') || text.split(' ').next().unwrap().ends_with(':');
    let uncommented = |line: &str| match line.strip_prefix("# ").filter(|text| is_key(text)) {
        Some(text) => format!("{text}\n"),
        None => format!("{line}\n"),
    };
    let suggested: String = draft.lines().map(uncommented).collect();
    assert!(parse(&suggested)["stages"]["prod"].is_object(), "{suggested}");
    schema.must_allow(&suggested);
}

#[test]
fn every_record_is_valid() {
    let schema = Schema::load("lineage");
    let sandbox = Sandbox::new();
    let repo = sandbox.repo("repo");
    let check = |what: &str| {
        let text = repo.text("m/lineage.yaml");
        schema.must_allow(&text);
        assert!(text.contains(what), "{what}\n{text}");
    };
    let header = r#"{"__metadata__":{"format":"pt"},"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#;
    let mut weights = (header.len() as u64).to_le_bytes().to_vec();
    weights.extend_from_slice(header.as_bytes());
    weights.extend_from_slice(&[0; 4]);
    repo.write("m/w.safetensors", weights);
    repo.write("m/tokenizer/a", "a");
    repo.write("data/x.csv", "1\n");
    repo.write("m/run.sh", "#!/bin/sh\n");
    repo.write("m/train.yaml", "lr: 0.1\n");
    repo.sh("chmod +x m/run.sh; mkdir ../lake; echo a > ../lake/a").ok();
    repo.model(["add", "m/w.safetensors", "m/tokenizer", "data"]).ok();
    let lake = sandbox.join("lake");
    repo.git(["config", "--add", "model.trust", lake.to_str().unwrap()]).ok();
    repo.write(
        "m/model.yaml",
        format!(
            "version: 1\nname: churn\nweights: [w.safetensors, tokenizer]\ncode: [run.sh]\nconfig: [train.yaml]\n\
             evaluation: eval.json\ndata:\n  - {{name: train, path: ../data}}\n  - {{name: lake, url: {}}}\n  \
             - {{name: query, id: q-17, digest: any words}}\n",
            lake.display()
        ),
    );
    Schema::load("model").must_allow(&repo.text("m/model.yaml"));
    repo.git(["add", "."]).ok();

    repo.model(["record", "--note", "first: try, [1]", "--param", "lr=1e-3", "--parent", "churn@v1.0.0"])
        .ok();
    check("basis: declared");
    check("executable: true");
    repo.git(["commit", "-q", "-m", "one"]).ok();
    let evaluation = r#"echo '{"auc": {"all": 0.9, "n": 1e20}, "by": "me"}' > m/eval.json"#;
    repo.model(["run", "churn", "--", "sh", "-c", evaluation]).ok();
    check("auc.all: 0.9");
    repo.model(["run", "churn", "--", "sh", "-c", "printf x > m/tokenizer/b"]).ok();
    check("base_commit: ");
    assert_eq!(parse(&repo.text("m/lineage.yaml"))["training"]["basis"], "observed");
}

#[test]
fn documented_examples_are_valid() {
    let sandbox = Sandbox::new();
    let record = example("formats/lineage-yaml.md", "yaml");
    Schema::load("lineage").must_allow(&record);
    tool(&sandbox.repo("record"), "lineage.yaml", &record).ok();

    let declaration = example("formats/model-yaml.md", "yaml");
    Schema::load("model").must_allow(&declaration);
    let repo = sandbox.repo("declaration");
    repo.write("models/churn/model.yaml", declaration);
    // All that is missing are the files.
    repo.model(["record", "--dry-run"]).fails(1, "there is no such file in git, and no artifact");
}

#[test]
fn documented_mistakes_are_refused_by_schema_and_tool() {
    let sandbox = Sandbox::new();
    let repo = sandbox.repo("repo");
    for (name, file, base) in [("model", "model.yaml", DECLARATION), ("lineage", "lineage.yaml", RECORD)] {
        let (schema, page) = (Schema::load(name), format!("formats/{name}-yaml.md"));
        schema.must_allow(base);
        tool(&repo, file, base).ok();
        for (line, reason) in refused(&page, "Refused") {
            let text = with(base, &line);
            tool(&repo, file, &text).fails(1, &reason);
            assert!(!schema.allows(&text), "the schema of {file} allows: {line}");
        }
    }
}

#[test]
fn what_a_schema_cannot_tell_is_refused_by_the_tool() {
    let sandbox = Sandbox::new();
    let repo = sandbox.repo("repo");
    for (line, reason) in refused("formats/model-yaml.md", "Refused by git-model alone") {
        tool(&repo, "model.yaml", &format!("{DECLARATION}{line}\n")).fails(1, &reason);
    }
}

#[test]
fn keys_are_those_of_the_code() {
    let sandbox = Sandbox::new();
    let repo = sandbox.repo("repo");
    for (name, line, pointer) in [
        ("model", "zzz: 1", ""),
        ("model", "data: [{zzz: 1}]", "/$defs/data"),
        ("model", "gates: {zzz: 1}", "/$defs/gates"),
        ("model", "gates: {schema: {zzz: 1}}", "/$defs/gates/properties/schema"),
        ("model", "gates: {metrics: [{zzz: 1}]}", "/$defs/metricRule"),
        ("model", "stages: {prod: {zzz: 1}}", "/$defs/stage"),
        ("model", "deploy: {zzz: 1}", "/$defs/deploy"),
        ("model", "deploy: {resources: {zzz: 1}}", "/$defs/deploy/properties/resources"),
        ("model", "deploy: {smoke: {zzz: 1}}", "/$defs/deploy/properties/smoke"),
        ("model", "deploy: {canary: [{zzz: 1}]}", "/$defs/deploy/properties/canary/items"),
        ("model", "deploy: {analysis: {zzz: 1}}", "/$defs/deploy/properties/analysis"),
        ("model", "deploy: {analysis: {error_rate: {zzz: 1}}}", "/$defs/deployMost"),
        ("model", "deploy: {analysis: {business: {zzz: 1}}}", "/$defs/deployBusiness"),
        ("lineage", "zzz: 1", ""),
        ("lineage", "files: {zzz: []}", "/properties/files"),
        ("lineage", "files: {code: [{zzz: 1}]}", "/$defs/file"),
        ("lineage", "weights: {zzz: 1}", "/$defs/weights"),
        ("lineage", "training: {zzz: 1}", "/$defs/training"),
        ("lineage", "training: {run: {zzz: 1}}", "/$defs/run"),
        ("lineage", "training: {inputs: {zzz: 1}}", "/$defs/inputs"),
        ("lineage", "evaluation: {zzz: 1}", "/$defs/evaluation"),
        ("lineage", "data: [{zzz: 1}]", "/$defs/data"),
    ] {
        let (schema, base) = (Schema::load(name), if name == "model" { DECLARATION } else { RECORD });
        let text = with(base, line);
        let said = tool(&repo, &format!("{name}.yaml"), &text).fails(1, "unknown ");
        // "unknown field `zzz`, expected one of `a`, `b`"
        let (_, expected) = said.lines().find_map(|line| line.split_once("expected ")).unwrap();
        let known: BTreeSet<String> = expected.split('`').skip(1).step_by(2).map(str::to_owned).collect();
        assert_eq!(schema.keys(pointer), known, "{name}: {pointer}");
        assert!(!schema.allows(&text), "{text}");
    }
}
