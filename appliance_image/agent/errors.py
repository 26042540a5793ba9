"""Why the agent does not go on."""

from __future__ import annotations


class AgentError(RuntimeError):
    """Something was refused or failed; holds a text for people."""

    code: str
    """For programs and journals: a short word that stays the same."""

    def __init__(self, code: str, text: str) -> None:
        """Say what failed.

        Args:
            code: See :attr:`code`.
            text: For people.

        """
        super().__init__(text)
        self.code = code

    @property
    def text(self) -> str:
        """For people."""
        return str(self)
