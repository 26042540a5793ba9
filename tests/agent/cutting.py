"""Power cuts: the process dies at a step, and the disk keeps all that was done, what was synced, or halves of it."""

from __future__ import annotations

import enum
import os
import shutil
import signal
from collections.abc import Sequence
from pathlib import Path

from appliance_image.agent import durable, programs
from appliance_image.agent.durable import Step

NEVER = 0
_JOURNAL = "journal"
"""Has its own ways on the disk, and its own tests."""


class Loss(enum.StrEnum):
    """What a cut takes."""

    NOTHING = "nothing"
    """All that was done is on the disk: as when only the agent dies."""
    UNSYNCED = "unsynced"
    """Content and names that were not synced are gone."""
    TORN = "torn"
    """Names are there, and content that was not synced is cut in half."""


class Cut:
    """Counts the steps of an operation, and ends the process before one of them."""

    def __init__(self, state: Path, at: int, lost: Path) -> None:
        """Prepare one.

        Args:
            state: The state partition.
            at: Before which step, from 1 on.
            lost: Gets a directory for each :class:`Loss`, with the state partition as the next boot finds it.

        """
        self.state = state
        self.at = at
        self.lost = lost
        self.steps: list[str] = []
        self._doing: tuple[Step, Path] | None = None
        self._synced = {path: path.read_bytes() for path in self._files()}
        self._kept = dict(self._synced)

    def lay(self) -> None:
        """Have it happen in this process."""
        durable.before = self._durable
        programs.before = self._program

    def _durable(self, step: Step, path: Path) -> None:
        self._complete()
        self._doing = (step, path)
        self._count(f"{step.value} {path.name}")

    def _program(self, argv: Sequence[str]) -> None:
        self._complete()
        self._doing = None
        # What only reads changes nothing: a cut before it is a cut before the step that follows.
        if not {"-json", "--check", "is-active"} & set(argv):
            self._count(" ".join(argv[:3]))

    def _count(self, what: str) -> None:
        self.steps.append(what)
        if len(self.steps) == self.at:
            self._lose()
            os.kill(os.getpid(), signal.SIGKILL)

    def _complete(self) -> None:
        """Follow what the step before has done to the disk."""
        if self._doing is None:
            return
        step, path = self._doing
        if step is Step.SYNC:
            self._synced[path] = path.read_bytes()
        elif step is Step.RENAME:
            fresh = path.with_name(f"{path.name}.new")
            self._synced.pop(path, None)
            if fresh in self._synced:
                self._synced[path] = self._synced.pop(fresh)
        elif step is Step.REMOVE:
            self._synced.pop(path, None)
        elif step is Step.SYNC_DIRECTORY:
            self._kept = {each: content for each, content in self._kept.items() if each.parent != path}
            self._kept |= {each: self._content(each) for each in self._files() if each.parent == path}

    def _content(self, path: Path) -> bytes:
        content = path.read_bytes()
        return content if self._synced.get(path) == content else content[: len(content) // 2]

    def _lose(self) -> None:
        shutil.rmtree(self.lost, ignore_errors=True)
        whole = {path: path.read_bytes() for path in self._files()}
        torn = {path: self._content(path) for path in whole}
        for loss, files in ((Loss.NOTHING, whole), (Loss.UNSYNCED, self._kept), (Loss.TORN, torn)):
            place = self.lost / loss
            shutil.copytree(self.state / _JOURNAL, place / _JOURNAL)
            for name in ("bundles", "identity"):
                (place / name).mkdir()
            for path, content in files.items():
                target = place / path.relative_to(self.state)
                target.parent.mkdir(exist_ok=True)
                target.write_bytes(content)

    def _files(self) -> list[Path]:
        return [
            path
            for path in self.state.rglob("*")
            if path.is_file() and path.relative_to(self.state).parts[0] != _JOURNAL
        ]
