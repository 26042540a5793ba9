"""The output directory is replaced as a whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from netpolicy.build import tree
from netpolicy.build.tree import BuildError, replace_tree

OLD = {"manifest.json": "{}\n", "a-fw/nftables.nft": "old\n", "gone-fw/nftables.nft": "old\n"}
NEW = {"manifest.json": "{}\n", "a-fw/nftables.nft": "new\n"}


def _content(root: Path) -> dict[str, str]:
    return {str(path.relative_to(root)): path.read_text() for path in sorted(root.rglob("*")) if path.is_file()}


def test_a_tree_is_replaced_with_nothing_left_over(tmp_path: Path) -> None:
    """Files of the old build that the new one lacks are gone, and nothing else remains beside it."""
    out = tmp_path / "build"
    replace_tree(out, OLD)
    replace_tree(out, NEW)
    assert _content(out) == NEW
    assert [path.name for path in tmp_path.iterdir()] == ["build"]


def test_a_missing_parent_is_made(tmp_path: Path) -> None:
    """A first build may go to a directory that does not exist yet."""
    replace_tree(tmp_path / "some" / "where", NEW)
    assert _content(tmp_path / "some" / "where") == NEW


def test_two_renames_stand_in_where_directories_cannot_be_exchanged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file system without renameat2 gets the same tree."""
    monkeypatch.setattr(tree, "_RENAME_EXCHANGE", 0x8000)  # flags the kernel refuses with EINVAL
    out = tmp_path / "build"
    replace_tree(out, OLD)
    replace_tree(out, NEW)
    assert _content(out) == NEW
    assert [path.name for path in tmp_path.iterdir()] == ["build"]


@pytest.mark.parametrize("bad", ["a-fw/" + "x" * 300, "a-fw/nftables.nft/below"])
def test_a_failure_leaves_the_previous_tree(tmp_path: Path, bad: str) -> None:
    """When a file cannot be written, the old tree is untouched and no half of the new one stays."""
    out = tmp_path / "build"
    replace_tree(out, OLD)
    with pytest.raises(OSError, match="a-fw"):
        replace_tree(out, {**NEW, bad: "no\n"})
    assert _content(out) == OLD
    assert [path.name for path in tmp_path.iterdir()] == ["build"]


def test_a_directory_that_is_not_a_build_is_refused(tmp_path: Path) -> None:
    """A home directory given by mistake is not replaced."""
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(BuildError, match="not empty and holds no manifest"):
        replace_tree(tmp_path, NEW)
    assert _content(tmp_path) == {"letter.txt": "dear"}


@pytest.mark.parametrize("kind", ["file", "link"])
def test_what_is_no_directory_is_refused(tmp_path: Path, kind: str) -> None:
    """Neither a file nor a symbolic link is replaced."""
    out = tmp_path / "build"
    if kind == "file":
        out.write_text("x")
    else:
        (tmp_path / "elsewhere").mkdir()
        out.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BuildError, match="not a directory"):
        replace_tree(out, NEW)
