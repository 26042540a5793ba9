"""The lock file: what it pins is what is fetched, and what is gone is told."""

from __future__ import annotations

import hashlib
import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pytest

from appliance_image.image.errors import ImageError, LackingError
from appliance_image.image.packages import (
    Lock,
    Package,
    changes,
    fetch,
    lock_path,
    own_mirror,
    read_lock,
    read_wanted,
)
from appliance_image.image.places import PROJECT

_CONTENT = b"a package"


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class calls it so
        pass


@contextmanager
def _served(directory: Path) -> Iterator[str]:
    """Serve a directory and yield its address."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(directory))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def _lock(content: bytes = _CONTENT) -> Lock:
    package = Package(
        "hello",
        "1:2.10-5+b1",
        "amd64",
        hashlib.sha256(content).hexdigest(),
        len(content),
        "debian/pool/main/h/hello/hello_2.10-5+b1_amd64.deb",
        ("root", "tools"),
        "hello",
        "2.10-5",
    )
    return Lock(datetime(2026, 11, 23, 11, 22, 38, tzinfo=UTC), (package,))


def _put(directory: Path, path: str, content: bytes) -> None:
    (directory / path).parent.mkdir(parents=True, exist_ok=True)
    (directory / path).write_bytes(content)


def test_a_lock_file_reads_back_as_it_was_written(tmp_path: Path) -> None:
    (tmp_path / "lock").write_text(_lock().text())
    assert read_lock(tmp_path / "lock") == _lock()


@pytest.mark.parametrize(
    ("line", "wrong"),
    [
        ("hello 1 amd64", "lock:3"),
        ("hello 1 amd64 zz 9 debian/pool/h.deb root hello 1", "lock:3"),
        (f"hello 1 amd64 {'0' * 64} 9 ../../etc/passwd root hello 1", "lock:3"),
        (f"hello 1 amd64 {'0' * 64} nine debian/pool/h.deb root hello 1", "lock:3"),
    ],
)
def test_what_is_no_lock_file_is_refused_with_its_place(tmp_path: Path, line: str, wrong: str) -> None:
    (tmp_path / "lock").write_text(f"# a comment\nsnapshot 20261123T112238Z\n{line}\n")
    with pytest.raises(ImageError, match=wrong):
        read_lock(tmp_path / "lock")


@pytest.mark.parametrize("text", ["", "snapshot 20261123T112238Z\n"])
def test_a_lock_file_that_pins_nothing_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "lock").write_text(text)
    with pytest.raises(ImageError, match="pins nothing"):
        read_lock(tmp_path / "lock")


@pytest.mark.parametrize("flavour", ["virtual", "hardware"])
def test_the_lock_files_hold_every_package_that_is_wanted_and_none_that_is_left_out(flavour: str) -> None:
    lock = read_lock(lock_path(flavour))
    lists = [read_wanted(PROJECT / "packages" / name) for name in ("image-trixie", f"image-trixie-{flavour}")]
    left_out = {name for each in lists for name in each.left_out}
    wanted = {name.partition("/")[0] for each in lists for name in each.names} - left_out
    names = {each.name for each in lock.of("root").packages}
    assert wanted <= names
    assert not names & left_out
    assert not names & {"apt", "dpkg", "perl-base", "bash", "dash", "login", "openssh-server", "busybox-static"}


def test_packages_are_fetched_once_and_then_from_the_cache(tmp_path: Path) -> None:
    mirror, cache = tmp_path / "mirror", tmp_path / "cache"
    _put(mirror, _lock().packages[0].path, _CONTENT)
    with _served(mirror) as address:
        paths = fetch(_lock(), cache, address, offline=False)
    assert [path.read_bytes() for path in paths] == [_CONTENT]
    assert fetch(_lock(), cache, "http://127.0.0.1:1", offline=True) == paths


def test_a_package_that_the_mirror_has_dropped_comes_from_the_snapshot(tmp_path: Path) -> None:
    package = _lock().packages[0]
    _put(tmp_path / "snapshot", package.path.replace("debian/", "debian/20261123T112238Z/", 1), _CONTENT)
    (tmp_path / "mirror").mkdir()
    with _served(tmp_path / "mirror") as mirror, _served(tmp_path / "snapshot") as snapshots:
        (path,) = fetch(_lock(), tmp_path / "cache", mirror, offline=False, snapshots=snapshots)
    assert path.read_bytes() == _CONTENT


def test_a_package_that_is_gone_is_named_with_what_to_do(tmp_path: Path) -> None:
    with (
        _served(tmp_path) as address,
        pytest.raises(LackingError, match=r"hello 1:2\.10-5\+b1 .*404.*netpolicy image lock"),
    ):
        fetch(_lock(), tmp_path / "cache", address, offline=False, snapshots=address)


@pytest.mark.parametrize("content", [b"another  ", b"a packag", b"a package and more"])
def test_another_file_of_that_name_is_refused_and_not_kept(tmp_path: Path, content: bytes) -> None:
    _put(tmp_path / "mirror", _lock().packages[0].path, content)
    with (
        _served(tmp_path / "mirror") as address,
        pytest.raises(LackingError, match="not the file that the lock file pins"),
    ):
        fetch(_lock(), tmp_path / "cache", address, offline=False, snapshots=address)
    assert not list((tmp_path / "cache").iterdir())


def test_a_cached_file_that_has_changed_is_not_used(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    _put(cache, _lock().packages[0].file, b"A PACKAGE")
    with pytest.raises(LackingError, match="Build once without --offline"):
        fetch(_lock(), cache, None, offline=True)


def test_changes_name_each_package_that_differs() -> None:
    old, package = _lock(), _lock().packages[0]
    other = Package("new", *(getattr(package, name) for name in Package.__slots__[1:]))
    assert changes(old, Lock(old.snapshot, (other,))) == [
        "hello 1:2.10-5+b1 → (gone)",
        "new (new) → 1:2.10-5+b1",
    ]
    assert changes(old, old) == []


@pytest.mark.parametrize(
    ("file", "text", "mirror"),
    [
        ("sources.list", "deb http://mirror.example/debian trixie main\n", "http://mirror.example"),
        ("sources.list.d/debian.sources", "# URIs: http://no/debian\nURIs: https://a.b/x/debian/\n", "https://a.b/x"),
        ("sources.list", "deb https://packages.example/apt x main\n", "http://deb.debian.org"),
    ],
)
def test_the_mirror_is_the_one_that_apt_uses(tmp_path: Path, file: str, text: str, mirror: str) -> None:
    _put(tmp_path, file, text.encode())
    assert own_mirror(tmp_path) == mirror
