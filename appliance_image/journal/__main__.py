"""``python3 -I -m appliance_image.journal``: where there is no `netpolicy`."""

from __future__ import annotations

import argparse
import sys

from appliance_image.journal.command import add_actions, run


def main() -> int:
    """Run one action and return its exit code."""
    parser = argparse.ArgumentParser(prog="journal", description="Usage records.")
    add_actions(parser)
    try:
        return run(parser.parse_args())
    except OSError as failed:
        print(f"netpolicy: {failed}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
