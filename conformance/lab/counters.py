"""Reading and clearing what a firewall's kernel remembers, without starting a process."""

from __future__ import annotations

import json
import socket
import struct
import threading

from nftables import Nftables

from conformance.lab.errors import LabError
from conformance.lab.namespace import Namespace

TABLE = "netpolicy"

_NLMSG_HEADER = struct.Struct("=IHHII")
_NFGENMSG = struct.Struct("=BBH")
_NLMSG_ERROR = 2
_NLM_F_REQUEST_ACK = 0x1 | 0x4
_NFNL_SUBSYS_CTNETLINK = 1
_IPCTNL_MSG_CT_DELETE = 2


class FirewallState:
    """The counters and the connections of one firewall; may be used from any thread."""

    def __init__(self, namespace: Namespace) -> None:
        """Open netlink sockets in the firewall's namespace, which they keep acting on."""
        self._firewall = namespace.name
        self._lock = threading.Lock()
        self._nft = namespace.call(_context)
        self._conntrack = namespace.call(_conntrack_socket)

    def close(self) -> None:
        """Close the sockets."""
        with self._lock:
            self._conntrack.close()
            # The binding frees its context in __del__ only.
            del self._nft

    def counters(self) -> dict[str, int]:
        """Return the packets of every named counter of ``table inet netpolicy``.

        Raises:
            LabError: There is no such table.

        """
        with self._lock:
            code, output, error = self._nft.cmd(f"list counters table inet {TABLE}")
        if code != 0:
            raise LabError(f"{self._firewall}: nft cannot list the counters: {error.strip()}")
        objects = json.loads(output)["nftables"]
        return {entry["counter"]["name"]: entry["counter"]["packets"] for entry in objects if "counter" in entry}

    def flush_conntrack(self) -> None:
        """Forget every connection.

        Raises:
            LabError: The kernel refused.

        """
        header = _NLMSG_HEADER.pack(
            _NLMSG_HEADER.size + _NFGENMSG.size,
            _NFNL_SUBSYS_CTNETLINK << 8 | _IPCTNL_MSG_CT_DELETE,
            _NLM_F_REQUEST_ACK,
            0,
            0,
        )
        with self._lock:
            self._conntrack.send(header + _NFGENMSG.pack(socket.AF_UNSPEC, 0, 0))
            answer = self._conntrack.recv(4096)
        _, kind, _, _, _ = _NLMSG_HEADER.unpack_from(answer)
        (error,) = struct.unpack_from("=i", answer, _NLMSG_HEADER.size)
        if kind != _NLMSG_ERROR or error != 0:
            raise LabError(f"{self._firewall}: the kernel does not flush its connections: error {error}")


def _context() -> Nftables:
    nft = Nftables()
    nft.set_json_output(True)
    return nft


def _conntrack_socket() -> socket.socket:
    # NETLINK_NETFILTER has no name in the socket module.
    handle = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12)
    handle.bind((0, 0))
    handle.settimeout(5)
    return handle
