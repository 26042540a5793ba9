"""Usage records (使用記録): an append-only, hash-chained journal, sealed by signed checkpoints.

Standard library and the `openssl` program only: it runs on the appliance as well as on the host that builds.
"""

from appliance_image.journal.errors import JournalError, JournalFull
from appliance_image.journal.journal import Journal
from appliance_image.journal.record import Fields, Record
from appliance_image.journal.verify import Problem, Report, examine, verify

__all__ = ["Fields", "Journal", "JournalError", "JournalFull", "Problem", "Record", "Report", "examine", "verify"]
