"""The relay of flows with assurance `terminate`: HAProxy, which ends the TLS of both sides on the firewall."""

from netpolicy.relay.emit import emit_relay

__all__ = ["emit_relay"]
