"""Compiles Python modules to the same bytes each time. Run as a file, by the Python that will load them.

``compiled.py ROOT DIRECTORY…``: every module below the directories, which are below ROOT and will be below / instead.

What :mod:`compileall` writes depends on how many references there happen to be to a string (marshal, format 3 and on),
which differs with the addresses of a process; format 2 has no references. The hash of the source is not checked at run
time (PEP 552): source and compiled file are both in an image that cannot change.
"""

import importlib.util
import marshal
import sys
from pathlib import Path

_UNCHECKED_HASH = 1
_FORMAT = 2

root = Path(sys.argv[1])
for directory in sys.argv[2:]:
    for path in sorted(Path(directory).rglob("*.py")):
        source = path.read_bytes()
        code = compile(source, f"/{path.relative_to(root)}", "exec", dont_inherit=True, optimize=0)
        target = Path(importlib.util.cache_from_source(str(path), optimization=""))
        target.parent.mkdir(exist_ok=True)
        head = importlib.util.MAGIC_NUMBER + _UNCHECKED_HASH.to_bytes(4, "little") + importlib.util.source_hash(source)
        target.write_bytes(head + marshal.dumps(code, _FORMAT))
