"""Reports: on the terminal, as JSON, as JUnit XML, and as captures."""

from conformance.report.files import write_report
from conformance.report.terminal import print_report

__all__ = ["print_report", "write_report"]
