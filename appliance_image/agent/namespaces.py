"""Functions called in another network namespace."""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

_CLONE_NEWNET = 0x40000000


def call_in(namespace: Path, function: Callable[[], T]) -> T:
    """Return what `function` returns, called by a thread of its own inside a network namespace.

    Raises:
        OSError: There is no such namespace, or it may not be entered.

    """
    result: Future[T] = Future()

    def inside() -> None:
        try:
            _enter(namespace)
            result.set_result(function())
        except BaseException as error:  # noqa: BLE001 - handed to the thread that waits
            result.set_exception(error)

    threading.Thread(target=inside, name=str(namespace), daemon=True).start()
    return result.result()


def _enter(namespace: Path) -> None:
    descriptor = os.open(namespace, os.O_RDONLY | os.O_CLOEXEC)
    try:
        # os.setns is there from Python 3.12 on, which appliances have; the tests run on 3.11.
        if ctypes.CDLL(None, use_errno=True).setns(descriptor, _CLONE_NEWNET) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), str(namespace))
    finally:
        os.close(descriptor)
