#!/usr/bin/env bash
# Installs what Apus needs and this machine lacks, by Debian's and Ubuntu's package names, and says what and why.
# Does nothing, and needs no network, when everything is there.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
PATH=$PATH:/usr/sbin:/sbin

readonly swift_needed=6.3
readonly log=.apus/setup.log
readonly venv=.apus/venv
readonly requirements=Scripts/requirements.txt

usage() {
    cat <<'TEXT'
usage: Scripts/setup.sh [--demo] [--test]
  (none)   what building and running need: Swift (checked only), make, git, oneDNN
  --demo   also the text that the quickstart recipe trains on
  --test   also Python in .apus/venv with the readers that the tests hold our files to (numpy, safetensors,
           tensorboard, tokenizers, sentencepiece) and NVIDIA's compiler of CUDA kernels (90 MB, needs no GPU), text in
           many languages, libsentencepiece and Open MPI
TEXT
}

say() { printf 'setup: %s\n' "$*"; }

fail() {
    printf 'setup: %s\n' "$@" >&2
    exit 1
}

for_demo=false
for_test=false
for option in "$@"; do
    case $option in
        --demo) for_demo=true ;;
        --test) for_test=true ;;
        -h | --help) usage && exit 0 ;;
        *) usage >&2 && fail "unknown option '$option'" ;;
    esac
done

check_swift() {
    command -v swiftc >/dev/null || fail \
        "Swift $swift_needed or later is needed to build Apus, and 'swiftc' is not on PATH." \
        "Install it from https://www.swift.org/install/linux (Debian 12 and Ubuntu 24.04 both have a build)," \
        "put its usr/bin on PATH, and run this again."
    local report
    report=$(swiftc --version 2>&1) || fail "'swiftc --version' failed:" "$report"
    [[ $report =~ Swift\ version\ ([0-9]+)\.([0-9]+) ]] || fail "cannot read a version from 'swiftc --version':" "$report"
    local found=${BASH_REMATCH[1]}.${BASH_REMATCH[2]}
    local lowest
    lowest=$(printf '%s\n' "$swift_needed" "$found" | sort -V | sed -n 1p)
    [[ $lowest == "$swift_needed" ]] || fail \
        "Swift $swift_needed or later is needed; $(command -v swiftc) is $found." \
        "Install a newer one from https://www.swift.org/install/linux, and put it first on PATH."
}

has_command() { command -v "$1" >/dev/null; }

# The header at build time, the library at run time: from any package or a build of one's own.
has_onednn() {
    local header
    for header in /usr/include/dnnl.h /usr/include/*/dnnl.h /usr/local/include/dnnl.h \
        /usr/include/oneapi/dnnl/dnnl.h /usr/local/include/oneapi/dnnl/dnnl.h; do
        [[ -e $header ]] || continue
        [[ $(ldconfig -p) == *libdnnl.so* ]] && return 0
        return 1
    done
    return 1
}

has_library() { [[ $(ldconfig -p) == *$1* ]]; }

# Sets `python` to a Python recent enough for the pinned packages that can make virtual environments.
python=
find_python() {
    for python in python3 /usr/bin/python3; do
        "$python" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && return
    done
    return 1
}

venv_is_current() { [[ -x $venv/bin/python3 ]] && cmp -s "$requirements" "$venv/installed.txt"; }

missing=()
need() { # package, why, then a test that succeeds when it is there
    local package=$1 why=$2
    shift 2
    "$@" && return
    missing+=("$package")
    say "needs $package: $why"
}

run_logged() {
    printf '\n$ %s\n' "$*" >>"$log"
    "$@" >>"$log" 2>&1 </dev/null
}

install_missing() {
    ((${#missing[@]})) || return 0
    local as_root=()
    if ((EUID != 0)); then
        has_command sudo || fail "not root, and there is no sudo. Ask an administrator to run:" \
            "    apt-get update && apt-get install -y ${missing[*]}"
        as_root=(sudo)
        sudo -v || fail "sudo was refused. Ask an administrator to run:" \
            "    apt-get update && apt-get install -y ${missing[*]}"
    fi
    has_command apt-get || fail "there is no apt-get here. Install these, under this system's names, and run this again:" \
        "    ${missing[*]}"
    local apt=("${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq
        -o Acquire::Retries=3 -o DPkg::Lock::Timeout=120)
    say "installing ${missing[*]} (log: $log)"
    # The first try fails on a machine that has no package lists, or lists older than the archive.
    run_logged "${apt[@]}" install -y --no-install-recommends "${missing[@]}" && return
    run_logged "${apt[@]}" update || say "apt-get update failed; trying the lists that are there"
    run_logged "${apt[@]}" install -y --no-install-recommends "${missing[@]}" && return
    tail -n 15 "$log" >&2
    fail "could not install ${missing[*]}; the whole log is $log." \
        "With no network, install them by hand; on Ubuntu, 'universe' must be among the package sources."
}

install_python_packages() {
    venv_is_current && return
    find_python || fail "Python 3.11 or later with its venv module is needed for the tests, and none was found."
    say "making $venv with $(grep -v '^#' "$requirements" | tr '\n' ' ')(what the tests check with)"
    rm -rf "$venv"
    if ! run_logged "$python" -m venv "$venv" ||
        ! run_logged "$venv/bin/python3" -m pip install --disable-pip-version-check --retries 3 \
            --only-binary :all: -r "$requirements"; then
        tail -n 15 "$log" >&2
        fail "could not make $venv; the whole log is $log"
    fi
    link_nvrtc
    cp "$requirements" "$venv/installed.txt"
}

# A path without the version of Python, for APUS_NVRTC.
link_nvrtc() {
    local library
    library=$(cd "$venv" && printf '%s\n' lib/python3*/site-packages/nvidia/*/lib/libnvrtc.so.* | sed -n 1p)
    [[ -e $venv/$library ]] || fail "the package nvidia-cuda-nvrtc left no libnvrtc.so in $venv; the whole log is $log"
    ln -sfn "$(dirname "$library")" "$venv/nvrtc"
}

mkdir -p .apus
: >"$log"
check_swift
need make "runs the targets of the Makefile" has_command make
need git "the package manager fetches Apus's Swift dependencies with it" has_command git
need libdnnl-dev "oneDNN, the fast matrix products on a CPU" has_onednn
if $for_demo; then
    need bible-kjv "4 MB of public-domain English to train the demo on" has_command bible
    need bible-kjv-text "the text itself, in the packed form that 'bible' prints" test -e /usr/lib/bible.data
fi
if $for_test; then
    need installation-guide-amd64 "text in many languages, which the tests tokenise" test -d /usr/share/doc/installation-guide-amd64
    need openmpi-bin "Open MPI, with which the tests start several ranks" has_command mpirun
    need libsentencepiece0 "reads SentencePiece models, as a user's Apus would" has_library libsentencepiece.so
    venv_is_current || need python3-venv "the tests check our files with Python's readers" find_python
fi
install_missing
if $for_test; then install_python_packages; fi
say "ready"
