#!/usr/bin/env bash
# Install the distribution's packages that this machine lacks: `tools/setup.sh demo`, `... test` or `... bench`.
# Where that is impossible it says what is missing and exits 0: the demo then shows a sample capture, and
# the tests that need those programs are skipped.
set -uo pipefail
cd "$(dirname "$0")/.."
PATH=$PATH:/usr/sbin:/sbin # servers live there, and an ordinary user's PATH lacks it

missing=()
# want PACKAGE COMMAND...: the package is missing unless the command succeeds.
want() {
    local package=$1
    shift
    "$@" >/dev/null 2>&1 || missing+=("$package")
}
program() { command -v "$1"; }
deflate_library() { compgen -G '/usr/lib*/*/libdeflate.so.0' || compgen -G '/usr/lib*/libdeflate.so.0'; }
bcc_module() { compgen -G '/usr/lib*/python3*/*-packages/bcc/__init__.py'; }

# A program is what counts, not its package: nginx may come from nginx-core as well as from nginx-light.
want python3-bpfcc bcc_module
want python3-venv tools/find_python.sh
want nginx-light program nginx
want curl program curl
want dnsmasq-base program dnsmasq
want bind9-dnsutils program dig
want openssl program openssl
if [ "${1:-}" = bench ]; then
    want wrk program wrk
fi
if [ "${1:-}" = test ] || [ "${1:-}" = bench ]; then
    want tshark program tshark
    want libdeflate0 deflate_library
    want chromium program chromium # opens the HTML report
    want tcpdump program tcpdump
    want sysdig program sysdig
    want iproute2 program ip
    want nftables program nft
    want strace program strace
    want procps program ps
    want util-linux program unshare
    want runc program runc
fi
[ ${#missing[@]} -eq 0 ] && exit 0

if [ "$(id -u)" -ne 0 ] || ! program apt-get >/dev/null; then
    echo "Missing here: ${missing[*]}; install them as root (Debian and Ubuntu: apt install ${missing[*]})." >&2
    exit 0
fi

# Packages of servers start them when installed. This file forbids it for as long as we install.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    trap 'rm -f "$policy"' EXIT
    trap 'exit 130' INT TERM
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
fi

export DEBIAN_FRONTEND=noninteractive
install() { # what apt-get says matters only when it fails
    local said
    said=$(apt-get install -y -qq --no-install-recommends -o DPkg::Lock::Timeout=300 "$@" </dev/null 2>&1) ||
        { echo "$said" >&2 && return 1; }
}

echo "installing ${missing[*]}"
apt-get update -qq -o DPkg::Lock::Timeout=300 || echo "apt-get update failed; going on with the known lists." >&2
if ! install "${missing[@]}" 2>/dev/null; then
    # One package that this release does not have must not keep the others out.
    for package in "${missing[@]}"; do
        install "$package" || echo "could not install $package" >&2
    done
fi

# The server was wanted for tests only: it shall not come up with the next boot either.
if [[ " ${missing[*]} " == *" nginx-light "* ]] && program systemctl >/dev/null; then
    systemctl --quiet disable nginx.service >/dev/null 2>&1
fi
exit 0
