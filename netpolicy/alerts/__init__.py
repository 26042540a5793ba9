"""What inline engines and kernels said, summed up: alerts (EVE) and log lines of drops, joined by packet."""

from netpolicy.alerts.read import AlertsError, Drop, Seen, read_alerts, read_drops
from netpolicy.alerts.summary import Row, summarise

__all__ = ["AlertsError", "Drop", "Row", "Seen", "read_alerts", "read_drops", "summarise"]
