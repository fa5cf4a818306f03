import errno
import os
import stat
from pathlib import Path

import pytest

from unrender.errors import InputError
from unrender.io import FileAccessError, atomic_write


def test_file_appears_when_the_block_ends(tmp_path):
    path = tmp_path / "file"
    with atomic_write(path) as file:
        file.write(b"new")
        file.flush()
        assert not path.exists()
    assert path.read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_existing_file_is_kept_after_an_error(tmp_path, error):
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def fail_halfway():
        with atomic_write(path) as file:
            file.write(b"new")
            raise error

    with pytest.raises(error):
        fail_halfway()
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


def test_full_disk_leaves_nothing(tmp_path, monkeypatch):
    def full(handle):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with (
        pytest.raises(FileAccessError, match="file: cannot be written: the disk is full"),
        atomic_write(tmp_path / "file") as file,
    ):
        file.write(b"new")
    assert not os.listdir(tmp_path)


def test_folder_is_rejected(tmp_path):
    with (
        pytest.raises(InputError, match="cannot be written as a file: it is a folder"),
        atomic_write(tmp_path),
    ):
        pass


def test_missing_folder_is_rejected(tmp_path):
    with (
        pytest.raises(OSError, match=r"create the folder .*runs first"),
        atomic_write(tmp_path / "runs" / "file"),
    ):
        pass


def test_device_is_rejected():
    with (
        pytest.raises(InputError, match="cannot be written as a file: it is a device or pipe"),
        atomic_write(os.devnull),
    ):
        pass


def test_write_protected_files_and_folders_are_rejected(tmp_path, monkeypatch):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # as for a user who is not root
    with pytest.raises(InputError, match="write-protected"), atomic_write(path):
        pass

    def denied(self, mode):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "open", denied)
    with (
        pytest.raises(InputError, match="permission denied; choose another folder"),
        atomic_write(tmp_path / "new"),
    ):
        pass


def test_symbolic_links_are_followed(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "file")
    with atomic_write(tmp_path / "link") as file:
        file.write(b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "file").read_bytes() == b"new"


def test_file_has_default_permissions(tmp_path):
    (tmp_path / "usual").touch()
    with atomic_write(tmp_path / "file"):
        pass
    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("usual", "file")]
    assert modes[0] == modes[1]


def test_long_names(tmp_path):
    with atomic_write(tmp_path / ("x" * 255)) as file:
        file.write(b"new")
