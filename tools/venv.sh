#!/bin/bash
# Make .venv hold exactly what requirements.lock pins, and this tree; touch nothing when it does.
set -euo pipefail
cd "$(dirname "$0")/.."

# Debian's own Python, whatever else is first on PATH: the lock file is for its version.
python=/usr/bin/python3
key=$(cat "$0" requirements.lock pyproject.toml setup.cfg | sha256sum; "$python" --version)
if [[ -f .venv/complete && $(<.venv/complete) == "$key" ]]; then
    exit 0
fi

echo "setup: installing requirements.lock to .venv"
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1
rm -f .venv/complete
"$python" -m venv .venv
.venv/bin/pip install -qq --require-hashes --requirement requirements.lock
# The build backend is one of the packages just installed: nothing is fetched that the lock file does not pin.
.venv/bin/pip install --quiet --no-deps --no-build-isolation --editable .
# Debian's binding of libnftables is not on PyPI; nothing else of the system's packages is to be seen.
site=$(.venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
ln -sfn /usr/lib/python3/dist-packages/nftables "$site/nftables"
echo "$key" > .venv/complete
