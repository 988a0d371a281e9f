//! The templates of `docs/ci`, run as a runner runs them: the steps' own scripts, with the variables that a runner sets.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

use crate::support::models::{WEIGHTS, next, published, remote_tags, remote_url, weights};
use crate::support::{Output, Repo, Sandbox};

/// A template, parsed.
fn template(name: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/ci").join(name);
    serde_yaml::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// A runner's machine: a checkout as CI makes it, a `cargo` that would install, and what a runner puts into the environment.
struct Runner {
    sandbox: Sandbox,
    repo: Repo,
    work: Repo,
}

impl Runner {
    /// A repository with two releases, the first in production.
    fn new() -> Runner {
        let sandbox = Sandbox::new();
        let repo = published(&sandbox);
        repo.model(["release", "churn", "1.0.0"]).ok();
        repo.model(["promote", "churn@1.0.0", "staging"]).ok();
        repo.model(["promote", "churn@1.0.0", "prod"]).ok();
        next(&repo, 2.0, "0.2", "1.1.0");
        repo.model(["promote", "churn@1.1.0", "staging"]).ok();
        let clone = ["clone", "-q", "--depth", "1", "--no-tags", &remote_url(&sandbox), "work"];
        sandbox.at("").git(clone).ok();
        for dir in ["bin", "temp", "tools"] {
            std::fs::create_dir(sandbox.join(dir)).unwrap();
        }
        // What it is asked to install is noted; the binary under test takes the place of the built one.
        let cargo = format!(
            "#!/bin/sh\nprintf '%s\\n' \"$*\" >>{0}/cargo.log\nwhile [ $# -gt 1 ]; do [ \"$1\" = --root ] && root=$2; shift; done\n\
             mkdir -p \"$root/bin\" && ln -s {1} \"$root/bin/git-model\"\n",
            sandbox.path().display(),
            crate::support::BINARY
        );
        std::fs::write(sandbox.join("tools/cargo"), cargo).unwrap();
        sandbox.at("").sh("chmod +x tools/cargo").ok();
        let work = sandbox.at("work");
        Runner { sandbox, repo, work }
    }

    fn path(&self, name: &str) -> String {
        self.sandbox.join(name).display().to_string()
    }

    /// Runs a script as a step: nothing in the environment but what is given, and no git-model until it is installed.
    fn run(&self, shell: &[&str], script: &str, variables: &BTreeMap<String, String>) -> Output {
        std::fs::write(self.sandbox.join("temp/step.sh"), script).unwrap();
        let added = std::fs::read_to_string(self.sandbox.join("github-path")).unwrap_or_default();
        let path: String = added.lines().map(|line| format!("{line}:")).collect();
        let mut command = self.work.command(shell[0]);
        command
            .args(&shell[1..])
            .arg(self.sandbox.join("temp/step.sh"))
            .env("PATH", format!("{path}{}:/usr/local/bin:/usr/bin:/bin", self.path("tools")))
            .envs(variables);
        crate::support::run(command)
    }
}

/// A composite action as GitHub runs it: expressions in `env` and `if`, outputs of steps, and paths that are added.
struct Action {
    runner: Runner,
    document: Value,
    inputs: BTreeMap<String, String>,
    outputs: BTreeMap<String, String>,
}

impl Action {
    fn new(runner: Runner, with: &[(&str, &str)]) -> Action {
        let document = template("github/action.yml");
        let mut inputs = BTreeMap::new();
        for (name, input) in document["inputs"].as_object().unwrap() {
            let given = with.iter().find(|(key, _)| key == name).map(|(_, value)| (*value).to_owned());
            let default = input["default"].as_str().map(str::to_owned);
            assert!(given.is_some() || default.is_some() || input["required"] == true, "{name}");
            inputs.insert(name.clone(), given.or(default).unwrap_or_default());
        }
        let known: Vec<&String> = inputs.keys().collect();
        assert!(with.iter().all(|(key, _)| known.iter().any(|name| name == key)), "{with:?} {known:?}");
        Action { runner, document, inputs, outputs: BTreeMap::new() }
    }

    /// The value of what stands between `${{` and `}}`.
    fn value(&self, expression: &str) -> String {
        let one = |term: &str| match term.trim().split_once('.') {
            Some(("inputs", name)) => self.inputs[name].clone(),
            Some(("steps", rest)) => {
                let name = rest.strip_prefix("resolve.outputs.").unwrap();
                self.outputs.get(name).cloned().unwrap_or_default()
            }
            Some(("env", _)) => String::new(),
            _ => panic!("{term}"),
        };
        expression.split("||").map(one).find(|value| !value.is_empty()).unwrap_or_default()
    }

    fn expand(&self, text: &str) -> String {
        let Some((before, rest)) = text.split_once("${{") else { return text.to_owned() };
        let (expression, after) = rest.split_once("}}").unwrap();
        format!("{before}{}{}", self.value(expression), self.expand(after))
    }

    /// Runs all steps; the first that fails ends it.
    fn run(&mut self) -> Output {
        let steps = self.document["runs"]["steps"].as_array().unwrap().clone();
        let mut last = None;
        for step in steps {
            if step["if"] == "inputs.output != ''" && self.inputs["output"].is_empty() {
                continue;
            }
            assert!(step["if"].is_null() || step["if"] == "inputs.output != ''", "{step}");
            let script = step["run"].as_str().unwrap();
            // What an input says never becomes a part of a script.
            assert!(!script.contains("${{"), "{script}");
            assert_eq!(step["shell"], "bash");
            let mut variables: BTreeMap<String, String> = BTreeMap::new();
            for (name, value) in step["env"].as_object().into_iter().flatten() {
                variables.insert(name.clone(), self.expand(value.as_str().unwrap()));
            }
            for (name, file) in
                [("GITHUB_OUTPUT", "github-output"), ("GITHUB_PATH", "github-path"), ("RUNNER_TEMP", "temp")]
            {
                variables.insert(name.to_owned(), self.runner.path(file));
            }
            let output = self.runner.run(
                &["bash", "--noprofile", "--norc", "-e", "-o", "pipefail"],
                script,
                &variables,
            );
            if output.code != 0 {
                return output;
            }
            let text = std::fs::read_to_string(self.runner.sandbox.join("github-output")).unwrap_or_default();
            let pairs = text.lines().map(|line| line.split_once('=').unwrap());
            self.outputs = pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
            last = Some(output);
        }
        last.unwrap()
    }
}

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

#[test]
fn the_github_action_installs_resolves_and_gets() {
    let runner = Runner::new();
    let trust = runner.path("store");
    let with = [
        ("reference", "churn#prod"),
        ("source", "https://git.example.com/git-model.git"),
        ("source-ref", COMMIT),
        ("output", "model"),
        ("trust", &trust),
    ];
    let mut action = Action::new(runner, &with);
    action.run().ok();
    let (work, repo) = (&action.runner.work, &action.runner.repo);
    let log = std::fs::read_to_string(action.runner.sandbox.join("cargo.log")).unwrap();
    assert!(log.contains(&format!("--git https://git.example.com/git-model.git --rev {COMMIT}")), "{log}");
    assert_eq!(work.read(&format!("model/{WEIGHTS}")), weights(1.0));
    let resolved = repo.json(["resolve", "churn#prod"]);
    let output = |name: &str| action.expand(action.document["outputs"][name]["value"].as_str().unwrap());
    assert_eq!((output("version"), output("tag")), ("1.0.0".to_owned(), "churn@v1.0.0".to_owned()));
    assert_eq!(Value::from(output("commit")), resolved["commit"]);
    assert_eq!(output("digest"), format!("sha256:{}", resolved["digest"].as_str().unwrap()));
    let lock: Value = serde_json::from_slice(&work.read("model.lock.json")).unwrap();
    assert_eq!(lock["tag_oid"], resolved["tag_oid"]);
    // All documented outputs have a value.
    for name in action.document["outputs"].as_object().unwrap().keys() {
        assert!(!output(name).is_empty(), "{name}");
    }
}

#[test]
fn the_github_action_reads_any_url_and_runs_no_input() {
    let runner = Runner::new();
    let (trust, url) = (runner.path("store"), remote_url(&runner.sandbox));
    let base = [("source", "x"), ("source-ref", COMMIT), ("trust", &trust[..]), ("repo", &url)];
    let mut action =
        Action::new(runner, &[&base[..], &[("reference", "churn@latest"), ("lock", "a b.json")]].concat());
    action.run().ok();
    assert_eq!(action.outputs["version"], "1.1.0");
    assert!(action.runner.work.exists("a b.json") && !action.runner.work.exists("model"));

    let runner = Runner::new();
    let trust = runner.path("store");
    let evil = "churn#prod; touch pwned; $(touch pwned) `touch pwned` \" ' #";
    let with = [("source", "x"), ("source-ref", COMMIT), ("trust", &trust[..]), ("reference", evil)];
    let mut action = Action::new(runner, &with);
    assert_ne!(action.run().code, 0);
    assert!(!action.runner.work.exists("pwned"));
    // A branch or a short id is not what somebody reviewed.
    for reference in ["main", "v1.0.0", "0123456", ""] {
        let mut action =
            Action::new(Runner::new(), &[("source", "x"), ("source-ref", reference), ("reference", "churn")]);
        let output = action.run().says("give the full commit id");
        assert_eq!(output.code, 2, "{output}");
        assert!(!action.runner.sandbox.join("cargo.log").exists());
    }
}

#[test]
fn the_workflow_that_promotes_pushes_one_event() {
    let runner = Runner::new();
    let document = template("github/promote.yml");
    let job = &document["jobs"]["promote"];
    let steps: Vec<&str> =
        job["steps"].as_array().unwrap().iter().filter_map(|step| step["run"].as_str()).collect();
    assert_eq!(steps.len(), 3);
    let mut variables: BTreeMap<String, String> = BTreeMap::new();
    for (name, value) in [
        ("RELEASE", "churn@v1.1.0"),
        ("STAGE", "prod"),
        ("REASON", "it's \"better\" $(touch pwned)"),
        ("ACTOR", "github:ada, run 7"),
        ("DEFAULT_BRANCH", "main"),
    ] {
        assert!(name == "DEFAULT_BRANCH" || job["env"][name].is_string(), "{name}");
        variables.insert(name.to_owned(), value.to_owned());
    }
    for (name, file) in
        [("GITHUB_PATH", "github-path"), ("RUNNER_TEMP", "temp"), ("GIT_MODEL_TRUST", "store")]
    {
        variables.insert(name.to_owned(), runner.path(file));
    }
    // The command that dispatches is only looked at.
    let gh = format!("#!/bin/sh\nprintf '%s\\n' \"$@\" >{}\n", runner.path("gh.log"));
    std::fs::write(runner.sandbox.join("tools/gh"), gh).unwrap();
    runner.sandbox.at("").sh("chmod +x tools/gh").ok();
    for script in &steps {
        runner.run(&["bash", "-e"], script, &variables).ok();
    }
    assert!(!runner.work.exists("pwned"));
    let history = runner.repo.json(["history", "churn", "--stage", "prod"]);
    let newest = &history["entries"][0];
    assert_eq!((&newest["tag"], &newest["version"]), (&"churn#prod#2".into(), &"1.1.0".into()));
    assert_eq!(newest["reason"], "it's \"better\" $(touch pwned)");
    assert_eq!(newest["by"], "github:ada, run 7, promote workflow <promote@example.com>");
    let dispatched = std::fs::read_to_string(runner.sandbox.join("gh.log")).unwrap();
    assert_eq!(dispatched, "workflow\nrun\ndeploy.yml\n--ref\nmain\n-f\nreference=churn#prod\n");
    // A gate that refuses ends the job, and nothing is dispatched or pushed.
    std::fs::remove_file(runner.sandbox.join("gh.log")).unwrap();
    let tags = remote_tags(&runner.repo);
    variables.insert("RELEASE".to_owned(), "churn@v1.0.0".to_owned());
    let refused = runner.run(&["bash", "-e"], steps[1], &variables);
    assert_eq!(refused.code, 3, "{refused}");
    assert_eq!(remote_tags(&runner.repo), tags);
}

#[test]
fn the_gitlab_job_installs_resolves_and_gets() {
    let runner = Runner::new();
    let document = template("gitlab.yml");
    let job = &document[".git-model"];
    let given = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let mut variables: BTreeMap<String, String> = BTreeMap::from([
        given("CI_PROJECT_DIR", &runner.path("work")),
        given("CI_PROJECT_URL", remote_url(&runner.sandbox).strip_suffix(".git").unwrap()),
        given("CI_SERVER_URL", "https://gitlab.example.com"),
        given("CI_JOB_TOKEN", "secret-token"),
        given("GIT_MODEL_TRUST", &runner.path("store")),
    ]);
    let project = variables["CI_PROJECT_URL"].clone();
    for (name, value) in job["variables"].as_object().unwrap() {
        variables.insert(name.clone(), value.as_str().unwrap().replace("$CI_PROJECT_URL", &project));
    }
    variables.insert("MODEL_REFERENCE".to_owned(), "churn#prod".to_owned());
    let lines = |key: &str| {
        let list = job[key].as_array().unwrap().iter().map(|line| line.as_str().unwrap());
        list.collect::<Vec<_>>().join("\n")
    };
    // GitLab runs both parts as one script, and ends at the first line that fails.
    let script = format!("set -eo pipefail\n{}\n{}\n", lines("before_script"), lines("script"));
    for shell in [&["bash"][..], &["sh"]] {
        // A plain shell has no `pipefail`, which the job does not need.
        let script =
            if shell == ["sh"] { script.replace("set -eo pipefail", "set -e") } else { script.clone() };
        runner.run(shell, &script, &variables).never_says("secret-token").ok();
        assert_eq!(runner.work.read(&format!("model/{WEIGHTS}")), weights(1.0));
        assert!(runner.work.text("model.env").contains("MODEL_VERSION=1.0.0\n"));
        for path in job["artifacts"]["paths"].as_array().unwrap() {
            assert!(runner.work.exists(path.as_str().unwrap()), "{path}");
        }
        runner.work.sh("rm -r model model.lock.json model.env .git-model-bin").ok();
    }
    // The token goes to this GitLab alone, and is in no file.
    let ask = |host: &str| {
        let fill = format!(
            "printf 'protocol=https\\nhost={host}\\n\\n' | CI_JOB_TOKEN=secret-token git credential fill"
        );
        runner.work.sh(&fill)
    };
    ask("gitlab.example.com").says("password=secret-token").ok();
    assert_ne!(ask("evil.example.com").never_says("secret-token").code, 0);
    assert!(!std::fs::read_to_string(runner.sandbox.join("gitconfig")).unwrap().contains("secret-token"));
    for bad in ["main", "0123456", "", "0123456789abcdef0123456789abcdef0123456G"] {
        variables.insert("GIT_MODEL_SOURCE_REF".to_owned(), bad.to_owned());
        let output = runner.run(&["sh"], &script.replace("set -eo pipefail", "set -e"), &variables);
        assert_eq!(output.says("give the full commit id").code, 2, "{bad}");
    }
}
