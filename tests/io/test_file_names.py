"""File names made of names in data stay in their folder, on every file system."""

import unicodedata
from pathlib import Path, PureWindowsPath

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unrender.errors import InputError
from unrender.io.confinement import confinable_writes, confine_writes
from unrender.io.file_names import MAX_BYTES, safe_file_names, without_suffix
from unrender.io.files import atomic_write, atomic_write_folder

HOSTILE = [
    "", ".", "..", "/", "\\", "/etc/passwd", "C:\\x\\a.png", "\\\\server\\share\\a", "~", "-rf", ".hidden", "...",
    "a\0b", "con", "NUL.png", "com1.tar.gz", "lpt9", "CONIN$", "x" * 300, "é" * 200, "a" * 190 + ".png", "trailing. ",
    "｡｡／a", "․․", "℀", "a:b*c?d<e>f|g\"h", "line\nfeed", "\u202egnp.exe", "A.png", "a.png", "ſ", "s", "\ud800",
    "com²", "0001_a",
]  # fmt: skip
PART = st.one_of(
    st.sampled_from(HOSTILE), st.text(max_size=12), st.text("./\\ -_aA\0:", max_size=8), st.just("x" * 150)
)
NAME = st.lists(PART, max_size=4).flatmap(
    lambda parts: st.sampled_from("/\\").map(lambda sep: sep.join(parts))
)


def check(names: list[str], safe: list[str]) -> None:
    assert len(safe) == len(names)
    folded = {unicodedata.normalize("NFKC", name).casefold() for name in safe}
    assert len(folded) == len(names)
    for name in safe:
        assert name == Path(name).name == PureWindowsPath(name).name
        assert 0 < len(name.encode()) <= MAX_BYTES
        assert name[0] not in ".-"
        assert name[-1] not in ". "
        assert not PureWindowsPath(name).is_reserved()
        assert not set(name) & set('<>:"/\\|?*\0 ~$')
        assert name.isprintable()


@settings(max_examples=1000)
@given(st.lists(NAME, min_size=1, max_size=6))
def test_any_names_become_safe_and_unique_ones(names: list[str]) -> None:
    check(names, safe_file_names(names))
    check(names, safe_file_names([without_suffix(name) for name in names]))


def test_all_hostile_names_at_once() -> None:
    check(HOSTILE, safe_file_names(HOSTILE))
    check(HOSTILE * 40, safe_file_names(HOSTILE * 40))


def test_harmless_names_are_kept() -> None:
    names = ["images/IMG_0001.JPG", "картина-2.png", "0.5.png", "日本.png"]
    assert safe_file_names(names) == ["IMG_0001.JPG", "картина-2.png", "0.5.png", "日本.png"]
    assert [without_suffix(name) for name in ("a.b/c", "a/b.png", ".png", "a/.png", "a\\b.c.png")] == [
        "a.b/c", "a/b", ".png", "a/.png", "a\\b.c",
    ]  # fmt: skip


def test_long_names_keep_their_suffix() -> None:
    [name] = safe_file_names(["é" * 200 + ".jpeg"])
    assert name.endswith("é.jpeg")


def test_writes_outside_the_output_folder_are_refused(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "link").symlink_to(tmp_path)
    with confinable_writes():
        with atomic_write(tmp_path / "before"):
            pass
        confine_writes(out)
        with atomic_write(out / "inside"):
            pass
        for path in (tmp_path / "a", out / ".." / "a", out / "link" / "a", tmp_path / "outer"):
            with pytest.raises(InputError, match="outside the output folder"), atomic_write(path):
                pass
            with pytest.raises(InputError, match="outside the output folder"), atomic_write_folder(path):
                pass
    with atomic_write(tmp_path / "after"):
        pass
    assert {path.name for path in tmp_path.iterdir()} == {"out", "before", "after"}
    assert {path.name for path in out.iterdir()} == {"inside", "link"}
