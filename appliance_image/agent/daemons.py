"""The inline engines and the relay: what they read, whether they would take it, and whether they stand."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import pwd
import re
import shutil
import sys
import time
from collections.abc import Iterable
from pathlib import Path

from appliance_image.agent import services
from appliance_image.agent.errors import AgentError
from appliance_image.agent.programs import attempt
from appliance_image.agent.root import Root
from appliance_image.bundle.authorities import TRUST

START_SECONDS = 240.0
"""Emulated machines take a minute."""
_CHECK_SECONDS = 300.0
_WORKER_SECONDS = 2.0
_POLL = 0.1
_STARTED = "Engine started"
_READY = "Ready."
"""What HAProxy says (STATUS); after a reload that has failed, "Reload failed!"."""
_PREFIX, _SUFFIX = "engine-", ".yaml"
_IDENTITY = {"chain.pem": "chain.pem", "key.pem": "chain.pem.key", "crl.pem": "crl.pem"}
"""The relay's identity: what its files are called on the state partition, and what the relay calls them."""
_TRUST = "trust.pem"
"""What the relay calls the roots that it trusts, which are the bundle's."""
_USER = "suricata"
_INSIDE = Path(__file__).with_name("inside.py")
_COMPLAINT = re.compile(r"^(?:E|W|Error|Warning): (.*)", re.MULTILINE)
_DONE = "running.sha256"


def engines_of(files: Path) -> list[str]:
    """Return the interfaces that have an engine."""
    found = (files / "suricata").glob(f"{_PREFIX}*{_SUFFIX}")
    return sorted(each.name.removeprefix(_PREFIX).removesuffix(_SUFFIX) for each in found)


def has_relay(files: Path) -> bool:
    """Tell whether a bundle has a relay."""
    return (files / "relay" / "haproxy.cfg").is_file()


def check_engines(root: Root, files: Path) -> None:
    """Have Suricata say whether it would start as the engine of each interface, every doubt being a refusal.

    Raises:
        AgentError: It would not.

    """
    log = root.run / "check"
    for interface in engines_of(files):
        log.mkdir(parents=True, exist_ok=True)
        argv = [
            *("suricata", "-T", "--simulate-ips", "--init-errors-fatal", "-l", "/var/log/suricata"),
            *("-c", "/etc/suricata/suricata.yaml", "--include", f"/etc/suricata/{_PREFIX}{interface}{_SUFFIX}"),
        ]
        mounts = [(files / "suricata", "/etc/suricata"), (log, "/var/log/suricata")]
        code, said = _inside(root, mounts, argv)
        found = _COMPLAINT.findall(said)
        if code != 0 or found:
            raise AgentError("engine", f"Suricata refuses the engine of {interface}: {'; '.join(found) or said[-500:]}")


def check_relay(root: Root, files: Path, identity: Path | None = None) -> None:
    """Have HAProxy say whether it would start with this firewall's identity, or with another one.

    Raises:
        AgentError: It would not, or the identity is not whole.

    """
    if not has_relay(files):
        return
    place = root.run / "check-relay"
    _equip(files, place, identity or root.identity)
    argv = ["haproxy", "-c", "-f", "/etc/haproxy/haproxy.cfg"]
    code, said = _inside(root, [(place, "/etc/haproxy")], argv)
    if code != 0 or said not in {"", "Configuration file is valid"}:
        raise AgentError("relay", f"HAProxy refuses the relay: {said[-500:]}")


def start_engines(root: Root, files: Path) -> None:
    """Start the engines of a bundle anew and wait until each inspects.

    Raises:
        AgentError: One failed, or took more than :data:`START_SECONDS`; holds what it said.

    """
    engines = engines_of(files)
    if not engines:
        return
    _forget(root, "suricata")
    _replace_tree(files / "suricata", root.run / "suricata")
    _prepare_output(root, engines)
    services.restart(root, [services.engine(interface) for interface in engines])
    end = time.monotonic() + START_SECONDS
    for interface in engines:
        while not inspects(root, interface):
            state = services.state(root, services.engine(interface))
            if state in {"failed", "inactive"} or time.monotonic() > end:
                said = _console(root, interface).strip()[-600:]
                raise AgentError("engine", f"the engine of {interface} has not started ({state}): {said}")
            time.sleep(_POLL)
    _keep(root, "suricata", files / "suricata")


def begin_engine_again(root: Root, files: Path, interface: str) -> None:
    """Start an engine that has ended again, with the files that it had, and do not wait.

    Raises:
        AgentError: Those are not the bundle's.

    """
    if not _kept(root, "suricata") == _digest(files / "suricata") == _digest(root.run / "suricata"):
        raise AgentError("engine", f"what the engine of {interface} would read is not the bundle's")
    _prepare_output(root, [interface])
    services.restart(root, [services.engine(interface)])


def engines_stand(root: Root, files: Path) -> bool:
    """Tell whether the engines of a bundle run, with its very files."""
    return all(
        _kept(root, "suricata") == _digest(files / "suricata")
        and services.state(root, services.engine(interface)) == "active"
        and inspects(root, interface)
        for interface in engines_of(files)
    )


def stop_engines(root: Root, interfaces: Iterable[str]) -> None:
    """End engines.

    Raises:
        AgentError: One does not end.

    """
    services.stop(root, [services.engine(interface) for interface in interfaces])


def inspects(root: Root, interface: str) -> bool:
    """Tell whether an engine has said that it inspects."""
    return _STARTED in _console(root, interface)


def start_relay(root: Root, files: Path) -> None:
    """Start the relay anew, or end it if a bundle has none, and wait until it listens.

    Raises:
        AgentError: It failed or took more than :data:`START_SECONDS`.

    """
    if not has_relay(files):
        _forget(root, "relay")
        services.stop(root, [services.RELAY])
        return
    begin_relay(root, files)
    end = time.monotonic() + START_SECONDS
    while (state := services.state(root, services.RELAY)) != "active":
        if state == "failed" or time.monotonic() > end:
            raise AgentError("relay", f"the relay does not listen ({state})")
        time.sleep(_POLL)
    await_worker(root)


def begin_relay(root: Root, files: Path) -> None:
    """Start the relay of a bundle anew, and do not wait.

    Raises:
        AgentError: The identity is not whole.

    """
    _forget(root, "relay")
    _equip(files, root.run / "relay", root.identity)
    services.restart(root, [services.RELAY])
    _keep(root, "relay", files / "relay")


def reload_relay(root: Root, files: Path) -> None:
    """Have the relay take this firewall's identity anew; living connections go on with the old one.

    Raises:
        AgentError: It does not.

    """
    if not has_relay(files):
        return
    # The unit has the directory itself in its view, not its name: files are replaced in it.
    _write_identity(root.identity, root.run / "relay" / "tls")
    services.reload(root, services.RELAY)
    # A master that cannot go on with the files lives on with its worker, and is ready: only its words tell.
    if (said := services.said(root, services.RELAY)) != _READY:
        raise AgentError("relay", f"the relay has not taken the identity: {said or 'it says nothing'}")
    await_worker(root)


def relay_stands(root: Root, files: Path) -> bool:
    """Tell whether the relay of a bundle runs with its very files, or does not run if it has none."""
    state = services.state(root, services.RELAY)
    if not has_relay(files):
        return state != "active"
    return state == "active" and _kept(root, "relay") == _digest(files / "relay")


def await_worker(root: Root) -> None:
    """Wait until a relay that has said that it is ready has proven it.

    Raises:
        AgentError: It has ended.

    HAProxy's master says so before its worker has given up its rights; when that fails, both end. It says so as well
    before the worker of before a reload has let go of the sockets that both listen on, which it does when it is next
    scheduled (measured: within 24 ms on a busy machine).

    """
    end = time.monotonic() + _WORKER_SECONDS
    while time.monotonic() < end:
        if (state := services.state(root, services.RELAY)) != "active":
            raise AgentError("relay", f"the relay ended as soon as it had begun ({state})")
        time.sleep(_POLL)


def _equip(files: Path, place: Path, identity: Path) -> None:
    """Put together what the relay reads: the bundle's files, and a firewall's own identity."""
    fresh = place.with_name(f"{place.name}.new")
    shutil.rmtree(fresh, ignore_errors=True)
    shutil.copytree(files / "relay", fresh)
    tls = fresh / "tls"
    tls.mkdir(mode=0o700)
    _write_identity(identity, tls)
    shutil.copyfile(files / TRUST, tls / _TRUST)
    shutil.rmtree(place, ignore_errors=True)
    fresh.rename(place)


def _write_identity(identity: Path, tls: Path) -> None:
    """Write an identity by the names that the relay has for its files, in the place of another one."""
    for source, name in _IDENTITY.items():
        try:
            content = (identity / source).read_bytes()
        except OSError as missing:
            raise AgentError("relay", f"this firewall has no relay identity: {missing}") from missing
        fresh = tls / f"{name}.new"
        fresh.unlink(missing_ok=True)
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(content)
        fresh.replace(tls / name)


def _prepare_output(root: Root, interfaces: Iterable[str]) -> None:
    owner = _owner()
    for interface in interfaces:
        root.engine(interface).mkdir(parents=True, exist_ok=True)
        for directory in (root.engine(interface).parent, root.engine(interface)):
            directory.chmod(0o755)
        for part in ("log", "run"):
            directory = root.engine(interface) / part
            directory.mkdir(exist_ok=True)
            directory.chmod(0o750)
            os.chown(directory, *owner)
        with contextlib.suppress(FileNotFoundError):
            (root.engine(interface) / "console").unlink()


def _replace_tree(source: Path, place: Path) -> None:
    """Copy files for a daemon, which may not be root, to read."""
    fresh = place.with_name(f"{place.name}.new")
    shutil.rmtree(fresh, ignore_errors=True)
    shutil.copytree(source, fresh)
    for path in (fresh, *fresh.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    shutil.rmtree(place, ignore_errors=True)
    fresh.rename(place)


def _inside(root: Root, mounts: Iterable[tuple[Path, str]], argv: list[str]) -> tuple[int, str]:
    plan = json.dumps({"mounts": [[str(source), target] for source, target in mounts], "argv": argv})
    done = attempt(root, [sys.executable, "-I", str(_INSIDE), plan], seconds=_CHECK_SECONDS)
    return done.returncode, (done.stdout + done.stderr).strip()


def _digest(directory: Path) -> str:
    """Return a hash over the names and contents of files."""
    found = hashlib.sha256()
    for path in sorted(directory.rglob("*")):
        if path.is_file():
            found.update(f"{path.relative_to(directory)}\0{hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return found.hexdigest()


def _keep(root: Root, name: str, files: Path) -> None:
    """Note that daemons run with these files: what was not noted is started anew when in doubt."""
    (root.run / f"{name}.{_DONE}").write_text(_digest(files), encoding="ascii")


def _kept(root: Root, name: str) -> str:
    try:
        return (root.run / f"{name}.{_DONE}").read_text(encoding="ascii")
    except FileNotFoundError:
        return ""


def _forget(root: Root, name: str) -> None:
    (root.run / f"{name}.{_DONE}").unlink(missing_ok=True)


def _console(root: Root, interface: str) -> str:
    try:
        return (root.engine(interface) / "console").read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return ""


def _owner() -> tuple[int, int]:
    try:
        user = pwd.getpwnam(_USER)
    except KeyError:
        return os.getuid(), os.getgid()
    return user.pw_uid, user.pw_gid
