"""The half that speaks with the network: it listens on the loopback device, where only the relay comes from."""

from __future__ import annotations

import os
import selectors
import socket
import threading
import time
from contextlib import suppress
from pathlib import Path

from appliance_image.management import endpoint, link
from appliance_image.management.endpoint import Endpoint
from appliance_image.management.errors import LinkError, RefusedError
from appliance_image.management.privileged import now
from appliance_image.management.session import Bounds, Operators, Session
from appliance_image.management.tls import Files

_BACKLOG = 16
_TICK = 2.0
"""Seconds after which it is asked anew where to listen: a new bundle may say otherwise."""


class Server:
    """Listens, and attends each connection in a thread of its own."""

    def __init__(self, files: Files, privileged: Path, bounds: Bounds | None = None) -> None:
        """Prepare it.

        Args:
            files: The firewall's identity.
            privileged: The socket of the other half.
            bounds: What peers may take.

        """
        self._files = files
        self._privileged = privileged
        self._bounds = bounds or Bounds()
        self._operators = Operators(self._bounds.of_one)
        self._places = threading.BoundedSemaphore(self._bounds.connections)
        self._selector = selectors.DefaultSelector()
        self._sockets: dict[tuple[str, int], socket.socket] = {}
        self._ending = self._told = False
        self.ready = threading.Event()
        """Set as soon as it listens."""

    def serve(self) -> None:
        """Serve until :meth:`end`."""
        due = 0.0
        while not self._ending:
            if time.monotonic() >= due:
                self._settle()
                due = time.monotonic() + _TICK
            for key, _ in self._selector.select(min(_TICK, max(due - time.monotonic(), 0.0))):
                self._accept(key.data[1], key.fileobj)  # type: ignore[arg-type]
        for each in self._sockets.values():
            self._selector.unregister(each)
            each.close()
        self._sockets.clear()

    def end(self) -> None:
        """Have :meth:`serve` return within some seconds; connections that live go on."""
        self._ending = True

    def _endpoint(self) -> Endpoint:
        answer = link.ask(self._privileged, {"do": "endpoint"})
        return endpoint.read(str(answer.get("endpoint")).encode())

    def _settle(self) -> None:
        """Listen where the bundle that runs says; while nobody says anything, where it was said last."""
        try:
            wanted = self._endpoint().sockets()
        except RefusedError:
            wanted = frozenset()
        except LinkError:
            return
        for gone in set(self._sockets) - wanted:
            self._selector.unregister(self._sockets[gone])
            self._sockets.pop(gone).close()
        for each in sorted(wanted - set(self._sockets)):
            family = socket.AF_INET6 if ":" in each[0] else socket.AF_INET
            try:
                made = socket.create_server(each, family=family, backlog=_BACKLOG)
            except OSError as failed:
                print(f"netpolicy management: cannot listen at {each[0]} port {each[1]}: {failed}", flush=True)
                continue
            made.setblocking(False)
            self._sockets[each] = made
            self._selector.register(made, selectors.EVENT_READ, each)
        if not self._told:
            self._told = True
            notify("READY=1")
        if self._sockets:
            self.ready.set()

    def _accept(self, port: int, listening: socket.socket) -> None:
        try:
            connection, _ = listening.accept()
        except OSError:
            return  # it was gone before it was taken (accept(2), error handling)
        accepted = now()
        if not self._places.acquire(blocking=False):
            connection.close()
            threading.Thread(target=self._too_many, daemon=True).start()
            return
        threading.Thread(target=self._attend, args=(connection, accepted, port), daemon=True).start()

    def _attend(self, connection: socket.socket, accepted: float, port: int) -> None:
        try:
            with connection:
                found = self._endpoint()
                access = found.at(port)
                if access is not None:
                    session = Session(self._files, self._privileged, self._operators, self._bounds)
                    session.attend(connection, accepted, found, access)
        except (LinkError, RefusedError) as failed:
            print(f"netpolicy management: nobody is attended: {failed}", flush=True)
        finally:
            self._places.release()

    def _too_many(self) -> None:
        fields = {"stage": "accept", "code": "too-many", "reason": f"more than {self._bounds.connections} connections"}
        with suppress(LinkError, RefusedError):
            link.ask(self._privileged, {"do": "refused", "fields": fields})


def notify(what: str) -> None:
    """Tell the service manager, if there is one (sd_notify(3))."""
    address = os.environ.get("NOTIFY_SOCKET")
    if address:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager, suppress(OSError):
            manager.sendto(what.encode(), f"\0{address[1:]}" if address.startswith("@") else address)
