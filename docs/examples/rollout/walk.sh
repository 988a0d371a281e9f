#!/bin/sh
# From commit to production and back, as docs/rollout.md tells it: walk.sh embedded|fetched TARGET DIR
# DIR must not exist. Everything happens below it, with a bare repository as the remote and a folder as the store.
set -eu
example=$1 target=$2
here=$(cd "$(dirname "$0")" && pwd)
mkdir "$3" && cd "$3"

# A repository with its remote and its store.
git init -q --bare remote.git
git --git-dir remote.git symbolic-ref HEAD refs/heads/main
git init -q repo && cd repo && git checkout -q -b main
git remote add origin ../remote.git
git model init ../store
cp "$here/$example/model.yaml" .
name=$(sed -n 's/^name: //p' model.yaml)

# Stands for a training: weights of one tensor with one number.
train() {
  { printf '\100\000\000\000\000\000\000\000'
    printf '%-64s' '{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
    printf '%s' "$1"; } > weights.safetensors
  git model add weights.safetensors
  git add . && git model record "$name" && git add . && git commit -q -m "$2"
  git push -q origin main
}

# Stands for a build: the digest that a registry would give to the server's image, which has the model in it when embedded.
build() {
  if [ "$example" = embedded ]; then
    image="--image ghcr.io/acme/$name@sha256:$(sha256sum weights.safetensors | cut -d ' ' -f 1)"
  else
    image=
  fi
}

train AAAA "first" && git model release "$name" 1.0.0 && build
git model promote "$name@1.0.0" staging && git model promote "$name@1.0.0" prod
git model deploy "$name#prod" --target "$target" -o ../gitops/prod $image

train BBBB "second" && git model release "$name" 1.1.0 && build
git model promote "$name@1.1.0" staging
git model promote "$name@1.1.0" prod --traffic 10
if git model deploy --check ../gitops/prod; then echo "must disagree" >&2; exit 1; fi
git model deploy "$name#prod" -o ../gitops/prod $image
git model deploy --check ../gitops/prod

# The cluster says that it went well; later it turns out that it did not.
git model outcome "$name" prod ok --actor rollout
git model promote "$name@1.1.0" prod
git model deploy "$name#prod" -o ../gitops/prod
git model rollback "$name" prod --reason "p95 doubled" --deploy ../gitops/prod
git model deploy --check ../gitops/prod
git model history "$name" --stage prod
