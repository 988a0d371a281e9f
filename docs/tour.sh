#!/usr/bin/env bash
# Shows the main job of git-model in a scratch folder, printing each command as it runs it: track a model and its data,
# push, change, go back, clone, pull, verify. Your git configuration is neither read nor changed. The scratch folder
# is removed at the end; `docs/tour.sh --keep` leaves it for you to look around.
# shellcheck disable=SC2016 # `run` evaluates what it prints
set -euo pipefail

scratch=$(mktemp -d)
[ "${1:-}" = --keep ] || trap 'rm -rf "$scratch"' EXIT
cd "$scratch"

# shellcheck disable=SC2046 # one variable name per word
unset $(git rev-parse --local-env-vars)
export GIT_CONFIG_NOSYSTEM=1 GIT_CONFIG_GLOBAL=$scratch/gitconfig
git config --global user.name "Tour"
git config --global user.email "tour@example.com"
git config --global init.defaultBranch main
git config --global advice.detachedHead false
exec </dev/null # nothing here asks a question

say() { printf '\n# %s\n' "$*"; }
run() { printf '$ %s\n' "$1" && eval "$1"; }

say "A git repository, with a folder as the store. A bucket works the same: git model init s3://bucket/prefix"
run 'git init -q churn && cd churn'
run 'git model init ../store'

say "Track a model and a folder of data: git keeps a small pointer for each, the store keeps the bytes."
run 'head -c 4194304 /dev/urandom > weights.bin'
run 'mkdir data && for n in 1 2 3; do head -c 100000 /dev/urandom > "data/part-$n.bin"; done'
run 'git model add weights.bin data'
run 'git add . && git commit -q -m "First model"'
run 'git model push'
run 'cp weights.bin ../first.bin'

say "Train again: new weights, the next version."
run 'head -c 4194304 /dev/urandom > weights.bin'
run 'git model status'
run 'git model add weights.bin && git commit -q -m "Better model"'
run 'git model push'
run 'cp weights.bin ../better.bin'

say "Go back: git checkout brings back exactly the bytes of that commit, and of this one again."
run 'git checkout -q HEAD~1 && cmp weights.bin ../first.bin && echo "the first weights, byte for byte"'
run 'git checkout -q main && cmp weights.bin ../better.bin && echo "the better weights, byte for byte"'

say "A colleague clones. The store named in the commit is used only once they trust it."
run 'cd .. && git clone -q churn colleague && cd colleague'
run 'git model remote trust origin'
run 'git model pull'
run 'cmp weights.bin ../better.bin && diff -r data ../churn/data && echo "the same bytes"'

say "Check every byte, and see that nothing is left to do."
run 'git model verify'
run 'git model status'
[ "${1:-}" != --keep ] || say "Left in $scratch"
