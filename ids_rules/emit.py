"""All files of the inline engine of one firewall."""

from __future__ import annotations

from datetime import date

from ids_rules.anomalies import anomalies
from ids_rules.attempts import attempts
from ids_rules.configuration import emit_classification, emit_engine, emit_suricata, emit_threshold
from ids_rules.datasets import emit_datasets
from ids_rules.events import decoder
from ids_rules.lock import SidLock
from ids_rules.oddities import oddities
from ids_rules.protocols import forbidden_protocols
from ids_rules.seven import in_seven
from ids_rules.signature import NUMBER, Signature
from ids_rules.streams import streams
from ids_rules.tls_policy import tls_policy
from ids_rules.version import NEWEST, Suricata
from netpolicy.intent.model import FirewallIntent

RULES = "netpolicy.rules"


def signatures(intent: FirewallIntent, version: Suricata = NEWEST) -> tuple[Signature, ...]:
    """Return every signature of a firewall."""
    newest = (
        *forbidden_protocols(),
        *attempts(intent.forbidden),
        *anomalies(),
        *decoder(version),
        *streams(),
        *tls_policy(intent),
        *oddities(intent),
    )
    return tuple(in_seven(intent, newest)) if version is Suricata.V7 else newest


def emit_ids(intent: FirewallIntent, lock: SidLock, day: date, version: Suricata = NEWEST) -> dict[str, str]:
    """Return the files below ``suricata/`` by name.

    Args:
        intent: Of the firewall.
        lock: Numbers the signatures; those it does not know yet are added to it.
        day: The day that the policy is judged on, for signatures that are new or changed.
        version: What the files are for.

    """
    rules, limited = [], []
    for signature in signatures(intent, version):
        text = signature.text(intent.network, intent.id)
        entry = lock.assign(intent.id, signature.key, text, day)
        dates = f"created_at {_day(entry.created)}, updated_at {_day(entry.updated)}"
        rules.append(f"{text.replace(NUMBER, f'sid:{entry.sid}; rev:{entry.rev}; ')}, {dates};)")
        limited.append((entry.sid, signature))
    head = [
        f"# Signatures of firewall {intent.id} of network {intent.network}. For Suricata {version.release}.",
        "# Compiled by netpolicy from the topology: change that, not this.",
    ]
    return {
        "suricata.yaml": emit_suricata(intent, version),
        RULES: "\n".join([*head, "", *rules, ""]),
        "threshold.config": emit_threshold(limited),
        "classification.config": emit_classification(),
        "reference.config": "config reference: url https://\n",
        **{f"engine-{interface}.yaml": emit_engine(intent, interface) for interface in intent.engines},
        **emit_datasets(intent),
    }


def _day(day: date) -> str:
    return day.isoformat().replace("-", "_")
