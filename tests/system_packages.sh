#!/bin/sh
# Installs the Debian packages that setting up and testing want and this machine lacks: as root where there is apt-get. Elsewhere it
# says what is missing and goes on, as the tests that need it skip (under CI=true they fail).
# Arguments: command:package, the package being what brings the command.
set -eu

missing=
for pair in "$@"; do
    command -v "${pair%%:*}" >/dev/null 2>&1 || missing="$missing ${pair#*:}"
done
[ -n "$missing" ] || exit 0

if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null 2>&1; then
    echo "Missing, and not installed (that takes root and apt-get):$missing"
    exit 0
fi

echo "Installing with apt-get:$missing"
log=$(mktemp)
export DEBIAN_FRONTEND=noninteractive
# shellcheck disable=SC2086 # one word a package
if ! { apt-get -q update && apt-get -q install -y --no-install-recommends $missing; } >"$log" 2>&1 </dev/null; then
    tail -n 20 "$log"
    echo "apt-get could not install:$missing"
fi
rm -f "$log"
