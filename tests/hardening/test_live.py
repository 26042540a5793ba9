"""What a running appliance reports, and how it is judged."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from appliance_image.hardening.figures import AuditError, Mark
from appliance_image.hardening.live import read_report, section
from appliance_image.image.places import PROJECT

_RELAY = {"kind": "tcp", "address": "127.0.0.1", "port": 61001, "namespace": "", "program": "haproxy"}
_ENGINE = {"kind": "packet", "address": "", "port": 3, "namespace": "wire-wan", "program": "Suricata-Main"}
_SOUND: dict[str, Any] = {
    "sockets": [_RELAY, _ENGINE],
    "settings": {"kernel/modules_disabled": "1"},
    "command_line": "lockdown=confidentiality",
    "lockdown": "confidentiality",
}


def test_sound() -> None:
    """The relay on the loopback and engines on their wires are within the limits, and told."""
    found = section(_SOUND)
    assert found.over == ()
    assert [each.name for each in found.figures if each.mark is Mark.TOLD] == [
        "tcp 127.0.0.1 61001 (haproxy)",
        "packet  3 (Suricata-Main)",
    ]


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"sockets": [{**_RELAY, "address": "0.0.0.0"}]}, "sockets open to the network"),
        ({"sockets": [{**_RELAY, "kind": "udp6", "address": "::"}]}, "sockets open to the network"),
        ({"sockets": [{**_ENGINE, "namespace": ""}]}, "raw and packet sockets outside engines' namespaces"),
        ({"lockdown": "none"}, "lockdown"),
        ({"settings": {"kernel/modules_disabled": "0"}}, "modules can be loaded"),
        ({"settings": {}}, "modules can be loaded"),
    ],
)
def test_loosened(change: dict[str, Any], name: str) -> None:
    """An open socket, frames read elsewhere, or a kernel that is not locked are over the limit."""
    (found,) = section({**_SOUND, **change}).over
    assert found.name == name


def test_no_report() -> None:
    """Without a report the figure is unknown."""
    (figure,) = section(None).figures
    assert figure.mark is Mark.UNKNOWN


@pytest.mark.parametrize(
    "text", ["", "{}", '{"exposure": 1}', json.dumps({"exposure": {**_SOUND, "sockets": [{"kind": "tcp"}]}})]
)
def test_no_status(tmp_path: Path, text: str) -> None:
    """A file that is not what status printed is refused."""
    (tmp_path / "x").write_text(text)
    with pytest.raises(AuditError, match="not the report"):
        read_report(tmp_path / "x")


_ASK = """
import json
from appliance_image.agent.exposure import exposure
from appliance_image.agent.root import Root
print(json.dumps({"exposure": exposure(Root())}))
"""


def test_agent_tells(tmp_path: Path) -> None:
    """What the agent tells of a network namespace can be read, and has the socket that listens there."""
    listen = (
        "import socket; s = socket.create_server(('::', 7), family=socket.AF_INET6); r = socket.socket(17, 3, 768)\n"
    )
    done = subprocess.run(
        ["unshare", "--net", sys.executable, "-c", listen + _ASK],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    (tmp_path / "report").write_text(done.stdout)
    report = read_report(tmp_path / "report")
    found = {(each["kind"], each["address"], each["port"]) for each in report["sockets"]}
    assert found == {("tcp6", "::", 7), ("packet", "", socket.htons(768))}
    assert all(each["program"].startswith("python") for each in report["sockets"])
    assert len(section(report).over) >= 2
