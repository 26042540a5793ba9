#!/bin/bash
# Install the Debian packages of packages/<suite>, a name and a comment on each line; touch nothing when all are there.
set -euo pipefail
cd "$(dirname "$0")/.."

suite=$(. /etc/os-release && echo "${VERSION_CODENAME:-unknown}")
list=packages/$suite
if [[ ! -f $list ]]; then
    echo "setup: packages/ has no list for '$suite' (only for: $(ls packages | xargs))" >&2
    exit 3
fi

mapfile -t wanted < <(sed -E 's/[[:space:]]*#.*//; /^$/d' "$list")
# dpkg-query fails for packages it has never heard of, and prints the others all the same.
installed=$(dpkg-query --show --showformat '${Package} ${db:Status-Status}\n' "${wanted[@]}" 2>/dev/null || true)
missing=()
for package in "${wanted[@]}"; do
    grep -qxF "$package installed" <<<"$installed" || missing+=("$package")
done
if [[ ${#missing[@]} -eq 0 ]]; then
    exit 0
fi

if [[ $EUID -ne 0 ]]; then
    echo "setup: as root: apt-get install --no-install-recommends ${missing[*]}" >&2
    exit 3
fi
echo "setup: installing ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
# Sources other than Debian's own may be out of reach; whether the packages can be had shows in the next step.
apt-get update -qq || echo "setup: apt-get update has failed; going on with the package lists that are here" >&2
apt-get install -qq --no-install-recommends -o Dpkg::Use-Pty=0 "${missing[@]}" >/dev/null
