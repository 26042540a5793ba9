"""The engine and the relay as programs: the root they run from, and what they say of a configuration themselves."""

from netpolicy.rooted.root import Mount, Root, RootError

__all__ = ["Mount", "Root", "RootError"]
