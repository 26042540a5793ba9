"""Signatures and engine configuration for the inline engine (Suricata) of every firewall."""

from ids_rules.emit import emit_ids

__all__ = ["emit_ids"]
