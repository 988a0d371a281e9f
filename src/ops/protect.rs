//! The rules with which a host keeps releases and stage events as they are.

use serde_json::json;

/// Where the repository is hosted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Host {
    /// Rulesets: `POST /repos/{owner}/{repo}/rulesets`.
    GitHub,
    /// Protected tags: `POST /projects/{id}/protected_tags`, one request a line.
    GitLab,
    /// A bare repository: `hooks/update`.
    Hook,
}

/// The rules in the host's own form.
pub fn rules(host: Host) -> String {
    match host {
        // fnmatch: `**/*` matches names with and without a slash.
        Host::GitHub => pretty(&json!({
            "name": "git-model releases and stages are immutable",
            "target": "tag",
            "enforcement": "active",
            "conditions": {
                "ref_name": {
                    "include": ["refs/tags/**/*@v*", "refs/tags/*@v*", "refs/tags/**/*#*#*", "refs/tags/*#*#*"],
                    "exclude": []
                }
            },
            "rules": [{"type": "update"}, {"type": "deletion"}, {"type": "non_fast_forward"}],
            "bypass_actors": []
        })),
        // Nobody may update or delete a protected tag without unprotecting it first; who may create one is access level 40
        // (maintainers) here.
        Host::GitLab => {
            let line = |name: &str| json!({ "name": name, "create_access_level": 40 }).to_string() + "\n";
            ["*@v*", "*#*#*"].map(line).concat()
        }
        Host::Hook => HOOK.to_owned(),
    }
}

fn pretty(value: &serde_json::Value) -> String {
    format!("{value:#}\n")
}

const HOOK: &str = r#"#!/bin/sh
# hooks/update of a bare repository: tags of releases and stage events are made once, annotated, and never moved or deleted.
# Made by: git model protect --print hook
ref=$1 old=$2 new=$3
case "$ref" in
refs/tags/*@v* | refs/tags/*'#'*'#'*) ;;
*) exit 0 ;;
esac
is_zero() { case "$1" in *[!0]*) return 1 ;; esac; }
if is_zero "$new"; then
	echo "git-model: $ref: a release or stage event is never deleted" >&2
	exit 1
fi
if ! is_zero "$old"; then
	echo "git-model: $ref: a release or stage event is never moved" >&2
	exit 1
fi
if [ "$(git cat-file -t "$new")" != tag ]; then
	echo "git-model: $ref: a release or stage event is an annotated tag" >&2
	exit 1
fi
"#;
