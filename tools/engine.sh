#!/bin/bash
# Make $ENGINE/root (.engine/root) hold the inline engine and the relay, from Debian 13: the same root that an appliance
# ships. SUITE=bookworm makes one of Debian 12 instead, with Suricata 7 and no relay; without SUITE, that is what is made
# where the mirror has no Debian 13.
set -euo pipefail
cd "$(dirname "$0")/.."

engine=${ENGINE:-.engine}
key=$(cat "$0" packages/engine-* | sha256sum)
if [[ -f $engine/complete && $(<"$engine/complete") == "$key" ]]; then
    exit 0
fi
if [[ $EUID -ne 0 ]]; then
    echo "setup: as root: tools/engine.sh, which makes the root of the inline engine" >&2
    exit 3
fi
mirror=$(grep -rhsoE 'https?://[^ ]*/debian/?( |$)' /etc/apt/sources.list /etc/apt/sources.list.d/ | tr -d ' ' | sort -u | head -n 1 || true)
mirror=${mirror:-http://deb.debian.org/debian}
mirror=${mirror%/}

make_root() {
    local suite=$1 wanted
    echo "setup: making $engine/root from Debian's $suite"
    wanted=$(sed -E 's/[[:space:]]*#.*//; /^$/d' "packages/engine-$suite" | paste -sd,)
    rm -rf "$engine"
    mkdir -p "$engine"
    # A user without rights, since the engine needs none after it has started.
    mmdebstrap --quiet --variant=apt --mode=root --include="$wanted" --aptopt='Acquire::Retries "3"' \
        --customize-hook='chroot "$1" useradd --system --home-dir /nonexistent --shell /usr/sbin/nologin suricata' \
        "$suite" "$engine/root" \
        "deb $mirror $suite main" "deb $mirror $suite-updates main" "deb $mirror $suite-backports main" \
        "deb $mirror-security $suite-security main"
}

if [[ -n ${SUITE:-} ]]; then
    make_root "$SUITE"
elif ! make_root trixie; then
    echo "setup: $mirror gives no Debian 13; going on with Debian 12: Suricata 7, which enforces less" >&2
    echo "setup: (docs/engine.md), and no relay for flows with assurance terminate. rm -r $engine to try again" >&2
    make_root bookworm
fi
# What the lab mounts over.
mkdir -p "$engine"/root/{run/suricata,run/haproxy,etc/haproxy,var/log/suricata}
rm -rf "$engine"/root/{etc/apt,var/lib/apt,var/cache/apt,usr/share/doc,usr/share/locale}
echo "$key" > "$engine/complete"
