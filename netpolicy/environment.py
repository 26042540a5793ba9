"""The whole environment of every program that is started here: what it does must not depend on who starts it.

nft reads hours in its time zone and looks for includes, HAProxy puts variables into its configuration, Suricata and
OpenSSL take files from theirs, and each of them loads what ``LD_PRELOAD`` names.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

ENVIRONMENT: Mapping[str, str] = MappingProxyType(
    {
        "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
        "LC_ALL": "C.UTF-8",
        "TZ": "UTC",
    }
)
