"""The first process of the lab's PID namespace. Run as a file by :class:`conformance.lab.reaper.Reaper`.

It ends when its standard input does, that is when the process that holds the other end ends, however that happens.
The kernel then kills every process of the namespace (pid_namespaces(7)).
"""

import signal
import sys

# Ignoring it makes the kernel reap the orphans that are handed to this process.
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
sys.stdout.write("\n")
sys.stdout.flush()
sys.stdin.read()
