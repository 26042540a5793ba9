"""The lab: every node and firewall of a topology as a network namespace of this machine's kernel.

The namespaces have no names: only file descriptors and processes of the lab hold them, so that the whole lab, its
interfaces and its processes vanish with the process that made it, however that ends.
"""

from conformance.lab.errors import LabError
from conformance.lab.lab import Lab
from conformance.lab.namespace import Namespace

__all__ = ["Lab", "LabError", "Namespace"]
