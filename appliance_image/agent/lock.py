"""One change at a time."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager

from appliance_image.agent.errors import AgentError
from appliance_image.agent.root import Root

CHANGES, DAEMONS = "lock", "daemons.lock"
"""Who changes what is to run, and, inside of that or without it, who begins and ends what runs: an upload that is
checked, or an image that is written, must not keep an engine that has ended from coming back."""


@contextmanager
def locked(root: Root, *, wait: bool, what: str = CHANGES) -> Iterator[None]:
    """Be the only one who changes anything, while inside; the kernel lets go when the process dies.

    Raises:
        AgentError: Another one is at it, and `wait` is not asked for.

    """
    root.run.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(root.run / what, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError as busy:
            raise AgentError("busy", "another change is under way") from busy
        yield
    finally:
        os.close(descriptor)
