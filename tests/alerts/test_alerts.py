"""Alerts are counted, joined to what the kernel dropped, and files that are none are refused with their line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from netpolicy.alerts import read_alerts, read_drops, summarise
from netpolicy.cli import main

_LOG = (
    "Nov 24 01:02:03 fw kernel: netpolicy fw=fw deny=forbidden_http IN=line OUT=cs SRC=10.0.0.1 DST=10.0.0.2 LEN=60 "
    "TTL=63 ID=1 DF PROTO=TCP SPT=40000 DPT=80 WINDOW=64240 SYN URGP=0\n"
    "Nov 24 01:02:03 fw kernel: netpolicy fw=fw deny=no_flow IN=line OUT=cs "
    "SRC=fd00:0000:0000:0000:0000:0000:0000:0001 DST=fd00:0000:0000:0000:0000:0000:0000:0002 PROTO=UDP SPT=1 DPT=2\n"
    "Nov 24 01:02:04 fw kernel: usb 1-1: new device\n"
)


def _event(**changes: object) -> dict[str, object]:
    event: dict[str, object] = {
        "timestamp": "2026-11-24T01:02:03.000000+0000",
        "event_type": "alert",
        "src_ip": "10.0.0.1",
        "src_port": 40000,
        "dest_ip": "10.0.0.2",
        "dest_port": 80,
        "proto": "TCP",
        "alert": {
            "action": "allowed",
            "signature_id": 1000001,
            "signature": "NET attempt at HTTP over TCP",
            "metadata": {"firewall": ["fw"], "signature": ["attempt-http-tcp"], "mitre_technique_id": ["T1071.001"]},
        },
    }
    return {**event, **changes}


def _write(path: Path, *events: dict[str, object], tail: str = "") -> Path:
    path.write_text("".join(f"{json.dumps(event)}\n" for event in events) + tail, encoding="utf-8")
    return path


def test_alerts_are_counted_and_joined(tmp_path: Path) -> None:
    """Events of other types and a half-written last line are passed over; IPv6 has one form."""
    six = _event(src_ip="fd00:0::1", dest_ip="fd00::2", src_port=1, dest_port=2, proto="UDP")
    path = _write(tmp_path / "eve.json", _event(), {"event_type": "stats"}, _event(), six, tail='{"event_type": "al')
    log = tmp_path / "log"
    log.write_text(_LOG, encoding="utf-8")
    (row,) = summarise(read_alerts(path), read_drops(log))
    assert (row.alerts, row.blocked, row.sid, row.technique) == (3, 0, 1000001, "T1071.001")
    assert row.dropped == (("forbidden_http", 1), ("no_flow", 1))


def test_the_command_tells_whether_there_are_any(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """1 with alerts, 0 without; a directory is searched."""
    (tmp_path / "below").mkdir()
    _write(tmp_path / "below/eve.json", _event())
    assert main(["alerts", str(tmp_path)]) == 1
    assert "attempt-http-tcp" in capsys.readouterr().out
    assert main(["alerts", str(tmp_path), "--json"]) == 1
    assert json.loads(capsys.readouterr().out)[0]["firewall"] == "fw"
    assert main(["alerts", str(tmp_path), "--flow", "other"]) == 0
    assert capsys.readouterr().out == "no alerts\n"


def test_ends_of_engines_and_relays_are_alerts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Those of a lab, and those in a copy of an appliance's journal; what came back is none, nor is the rest."""
    fields: dict[str, object] = {"firewall": "fw", "daemon": "engine of line", "why": "ended by signal 9"}
    events = ("boot", "ended", "back", "ended", "given-up")
    records: list[dict[str, object]] = [
        {"time": f"2026-11-24T01:02:0{at}.000000Z", "event": event, "fields": fields if at else {}}
        for at, event in enumerate(events)
    ]
    (tmp_path / "fw").mkdir()
    _write(tmp_path / "fw/000001.jsonl", *records)
    _write(tmp_path / "daemons.jsonl", {**records[1], "fields": {**fields, "firewall": "other", "daemon": "relay"}})
    assert main(["alerts", str(tmp_path), "--json"]) == 1
    rows = json.loads(capsys.readouterr().out)
    assert [(row["firewall"], row["signature"], row["alerts"], row["message"]) for row in rows] == [
        ("fw", "ended engine of line", 2, "ended by signal 9"),
        ("fw", "given-up engine of line", 1, "ended by signal 9"),
        ("other", "ended relay", 1, "ended by signal 9"),
    ]
    assert rows[0]["last"] == "2026-11-24T01:02:03.000000Z"
    _write(tmp_path / "000001.jsonl", {"event": "ended", "fields": {}})
    assert main(["alerts", str(tmp_path / "000001.jsonl")]) == 2
    assert "000001.jsonl:1: this is not a record" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("nonsense\n", "eve.json:1: this is not an event"),
        ('{"event_type": "stats"}\n{"event_type": "alert"}\n', "eve.json:2: this is not an event"),
        ("[]\n", "eve.json:1: this is not an event"),
        ("x" * (1 << 20), "eve.json:1: the line is longer than"),
    ],
)
def test_what_is_no_event_is_refused(text: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With file and line, and exit code 2."""
    (tmp_path / "eve.json").write_text(text, encoding="utf-8")
    assert main(["alerts", str(tmp_path)]) == 2
    assert said in capsys.readouterr().err


def test_a_place_without_events_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No file is no silence."""
    assert main(["alerts", str(tmp_path)]) == 2
    assert "there is no eve*.json here" in capsys.readouterr().err
    assert main(["alerts", str(tmp_path / "nowhere")]) == 2
