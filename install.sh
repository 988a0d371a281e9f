#!/usr/bin/env bash
# Builds git-model from this checkout and installs the binary, its man pages and shell completions below a prefix.
# With --tour it then shows the main job in a scratch folder; --uninstall removes what it installed.
set -euo pipefail
umask 022

usage() {
    cat <<END
Usage: ./install.sh [--prefix DIR] [--tour | --uninstall]

  --prefix DIR  install below DIR (default: ~/.local)
  --tour        then show the main job, step by step, in a scratch folder
  --uninstall   remove the files this script installed below the prefix
  --help        print this
END
}

die() {
    printf 'error: %s\nhint: %s\n' "$1" "$2" >&2
    exit 1
}

# Refuses with the way out when something the build or the tool needs is not here.
check_requirements() {
    local need have rust="get Rust from https://rustup.rs, or version $1 or later from your distribution"
    { command -v cargo && command -v rustc; } >/dev/null || die "Rust is not installed (no cargo)" "$rust"
    need=$1 have=$(rustc -vV | sed -n 's/^release: //p')
    printf '%s\n' "$need" "$have" | sort -V -C || die "Rust $have is too old: git-model needs $need" "$rust"
    command -v cc >/dev/null ||
        die "no C compiler (cc)" "run 'apt install build-essential', 'dnf install gcc' or 'xcode-select --install'"
    command -v git >/dev/null ||
        die "git is not installed" "run 'apt install git', 'dnf install git' or 'xcode-select --install'"
}

# Lays out in the folder $1, by path below the prefix, all that is to be installed.
build() {
    local share=$1/share binary
    binary=$(cargo build --release --locked --bin git-model --message-format json-render-diagnostics |
        sed -n 's/.*"executable":"\([^"]*\)".*/\1/p')
    mkdir -p "$1/bin" "$share/man/man1" "$share/bash-completion/completions" "$share/zsh/site-functions" \
        "$share/fish/vendor_completions.d"
    install -m 755 "$binary" "$1/bin/git-model"
    "$binary" man --out "$share/man/man1"
    "$binary" completions bash >"$share/bash-completion/completions/git-model"
    "$binary" completions zsh >"$share/zsh/site-functions/_git-model"
    "$binary" completions fish >"$share/fish/vendor_completions.d/git-model.fish"
}

uninstall() {
    rm -f "$prefix"/bin/git-model "$prefix"/share/man/man1/git-model{,-*}.1 \
        "$prefix"/share/bash-completion/completions/git-model \
        "$prefix"/share/zsh/site-functions/_git-model \
        "$prefix"/share/fish/vendor_completions.d/git-model.fish
}

prefix='' action=install
while [ $# -gt 0 ]; do
    case $1 in
        --prefix) prefix=${2:?--prefix needs a folder} && shift ;;
        --prefix=*) prefix=${1#*=} ;;
        --tour) action=tour ;;
        --uninstall) action=uninstall ;;
        --help | -h) usage && exit ;;
        *) usage >&2 && exit 2 ;;
    esac
    shift
done
prefix=${prefix:-$HOME/.local}
[[ $prefix = /* ]] || prefix=$PWD/$prefix
cd "$(dirname "$0")"

if [ "$action" = uninstall ]; then
    uninstall
    echo "Removed git-model from $prefix."
    exit
fi

PATH=$PATH:${HOME:-}/.cargo/bin # where rustup puts cargo, also before the next login
check_requirements "$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)"

# Each file is complete beside its place before it is renamed there, so a running git-model is never cut short.
mkdir -p "$prefix"
stage=$(mktemp -d "$prefix/.git-model.XXXXXX")
trap 'rm -rf "$stage"' EXIT
build "$stage"
(cd "$stage" && find . -type f) | while read -r file; do
    mkdir -p "$prefix/${file%/*}"
    mv -f "$stage/$file" "$prefix/$file"
done
echo "Installed git-model in $prefix."

if [[ :$PATH: != *":$prefix/bin:"* ]]; then
    echo "warning: $prefix/bin is not on your PATH; add this line to your shell profile:" >&2
    echo "  export PATH=\"$prefix/bin:\$PATH\"" >&2
fi
if [ "$action" = tour ]; then
    PATH=$prefix/bin:$PATH docs/tour.sh
fi
