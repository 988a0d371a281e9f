#!/usr/bin/env bash
# Shows the main job of git-model in a scratch folder, printing each command as it runs it: declare a model, train and record
# it, push, release, change, go back, clone, pull, resolve, verify. Your git configuration is neither read nor changed. The
# scratch folder is removed at the end; `docs/tour.sh --keep` leaves it for you to look around.
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

# Stands for a training: some weights in the safetensors format, and a report that counts what it saw.
cat >train.sh <<'END'
header='{"layer":{"dtype":"U8","shape":[4194304],"data_offsets":[0,4194304]}}'
{
    # The length of the header in eight bytes, the header, the numbers.
    printf "\\$(printf %o ${#header})\0\0\0\0\0\0\0%s" "$header"
    head -c 4194304 /dev/urandom
} >weights.safetensors
echo "{\"rows\": $(cat data/* | wc -l)}" >eval.json
END
mkdir data && for n in 1 2 3; do seq "$n" 3 40000 >"data/part-$n.csv"; done

say "Data is tracked: git keeps a small pointer, the store keeps the bytes. Then say what the model is made of."
run 'git model add data && sh train.sh'
run 'git model new churn'

say "Train under watch: what it read and wrote is recorded, and the weights are tracked."
run 'git model run churn -- sh train.sh'
run 'git add . && git commit -q -m "First model"'
run 'git model push'
run 'git model release churn'
run 'cp weights.safetensors ../first'

say "More data, new weights, the next version."
run 'seq 1000 >> data/part-1.csv && git model run churn -- sh train.sh'
run 'git add . && git commit -q -m "Better model" && git model push'
run 'git model log churn'
run 'cp weights.safetensors ../better'

say "Go back: git checkout brings back exactly the bytes of that commit, and of this one again."
run 'git checkout -q HEAD~1 && cmp weights.safetensors ../first && echo "the first weights, byte for byte"'
run 'git checkout -q main && cmp weights.safetensors ../better && echo "the better weights, byte for byte"'

say "A colleague clones. The store named in the commit is used only once they trust it."
run 'cd .. && git clone -q churn colleague && cd colleague'
run 'git model remote trust origin'
run 'git model pull'
run 'git model info churn'

say "Deploy: what the release holds, and all of it in a folder, pinned by digest."
run 'git model resolve churn@latest'
run 'git model get churn@latest -o ../deployed && ls ../deployed'

say "Check every byte, and see that nothing is left to do."
run 'git model verify'
run 'git model status'
[ "${1:-}" != --keep ] || say "Left in $scratch"
