#!/bin/bash
# Make .engine/root hold the inline engine and the relay, from Debian 13: the same root that an appliance ships.
set -euo pipefail
cd "$(dirname "$0")/.."

key=$(cat "$0" packages/engine | sha256sum)
if [[ -f .engine/complete && $(<.engine/complete) == "$key" ]]; then
    exit 0
fi
if [[ $EUID -ne 0 ]]; then
    echo "setup: as root: tools/engine.sh, which makes the root of the inline engine" >&2
    exit 3
fi

echo "setup: making .engine/root from Debian 13"
wanted=$(sed -E 's/[[:space:]]*#.*//; /^$/d' packages/engine | paste -sd,)
mirror=$(grep -rhsoE 'https?://[^ ]*/debian/?( |$)' /etc/apt/sources.list /etc/apt/sources.list.d/ | tr -d ' ' | sort -u | head -n 1 || true)
mirror=${mirror:-http://deb.debian.org/debian}
mirror=${mirror%/}
rm -rf .engine
mkdir -p .engine
# A user without rights, since the engine needs none after it has started.
mmdebstrap --quiet --variant=apt --mode=root --include="$wanted" --aptopt='Acquire::Retries "3"' \
    --customize-hook='chroot "$1" useradd --system --home-dir /nonexistent --shell /usr/sbin/nologin suricata' \
    trixie .engine/root \
    "deb $mirror trixie main" "deb $mirror trixie-updates main" "deb $mirror trixie-backports main" \
    "deb $mirror-security trixie-security main"
# What the lab mounts over.
mkdir -p .engine/root/{run/suricata,run/haproxy,etc/haproxy,var/log/suricata}
rm -rf .engine/root/{etc/apt,var/lib/apt,var/cache/apt,usr/share/doc,usr/share/locale}
echo "$key" > .engine/complete
