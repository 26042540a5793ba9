#!/bin/bash
# Renew requirements.lock from pyproject.toml. Pins that still fit stay; with arguments, uv's: --upgrade, --upgrade-package X.
set -euo pipefail
cd "$(dirname "$0")/.."

workshop=$(mktemp -d)
trap 'rm -rf "$workshop"' EXIT
/usr/bin/python3 -m venv "$workshop"
"$workshop/bin/pip" install --quiet --disable-pip-version-check uv
"$workshop/bin/uv" pip compile --quiet --python /usr/bin/python3 --generate-hashes --extra conformance --extra proof --extra signing --extra vm --extra dev \
    --no-emit-index-url --no-emit-find-links --custom-compile-command 'make lock' "$@" \
    pyproject.toml --output-file requirements.lock
