#!/usr/bin/env bash
# Makes sure that the tools and libraries are there: `setup.sh build` for building, `setup.sh test` for the tests on a
# real Kafka too. Installs Debian or Ubuntu packages where root or sudo without a password is at hand; otherwise says
# exactly what to install.
set -euo pipefail

purpose=${1:-build}
missing=()

need() { # command-or-file test, package
    if ! eval "$1" >/dev/null 2>&1; then missing+=("$2"); fi
}

need "command -v cc && command -v c++ && command -v make" build-essential
need "command -v perl" perl
need "command -v pkg-config" pkg-config
need "pkg-config --exists openssl" libssl-dev
# bindgen loads libclang to read RocksDB's header.
need "ls /usr/lib/llvm-*/lib/libclang*.so* /usr/lib/*/libclang*.so* 2>/dev/null | grep -q ." libclang-dev
if [ "$purpose" = test ]; then
    need "command -v java && java -version 2>&1 | grep -qE 'version \"(1[7-9]|[2-9][0-9])'" openjdk-17-jdk-headless
    need "command -v mvn" maven
fi

if [ ${#missing[@]} -gt 0 ]; then
    echo "missing: ${missing[*]}"
    sudo=
    if [ "$(id -u)" -ne 0 ]; then
        if command -v sudo >/dev/null && sudo -n true 2>/dev/null; then sudo=sudo; else sudo=none; fi
    fi
    if [ "$sudo" = none ] || ! command -v apt-get >/dev/null; then
        echo "install them and run make again, for instance: sudo apt-get install ${missing[*]}" >&2
        exit 1
    fi
    $sudo apt-get update -q
    DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -q --no-install-recommends "${missing[@]}"
fi

if ! command -v cargo >/dev/null; then
    echo "Rust is missing: install it from https://rustup.rs and run make again" >&2
    exit 1
fi
