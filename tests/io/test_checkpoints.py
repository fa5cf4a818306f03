"""Files of named tensors: the format of safetensors, streamed to disk."""

import collections
import shutil
from pathlib import Path

import pytest
import torch

from unrender.io.checkpoints import DTYPES, load_tensors, save_tensors
from unrender.io.files import DiskFullError, remove_unfinished

usage = collections.namedtuple("usage", ["total", "used", "free"])


def test_tensors_of_all_types_and_shapes_come_back(tmp_path: Path) -> None:
    tensors = {str(dtype): torch.arange(6).view(2, 3).to(dtype) for dtype in DTYPES}
    tensors |= {"number": torch.tensor(1.5), "empty": torch.zeros(0, 3), "turned": torch.rand(3, 2).T}
    save_tensors(tensors, {"kind": "Σ"}, tmp_path / "a.safetensors")
    found, description = load_tensors(tmp_path / "a.safetensors")
    assert description == {"kind": "Σ"}
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor), name


def test_a_disk_without_space_is_found_before_writing(tmp_path: Path, monkeypatch) -> None:
    path = tmp_path / "a.safetensors"
    save_tensors({"x": torch.zeros(10)}, {}, path)
    before = path.read_bytes()
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage(10 << 20, 7 << 20, 3 << 20))
    message = r"a\.safetensors: .* 9 MiB are needed and 3 MiB are free: 6 MiB are missing"
    with pytest.raises(DiskFullError, match=message):
        save_tensors({"x": torch.zeros(2 << 20)}, {}, path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    (tmp_path / "views" / ".0123456789abcdef.part").mkdir(parents=True)
    (tmp_path / "views" / ".0123456789abcdef.part" / "x.npy").touch()
    (tmp_path / ".fedcba9876543210.part").touch()
    (tmp_path / "views" / ".mine.part").touch()
    remove_unfinished(tmp_path)
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == [".mine.part"]
    assert not (tmp_path / "views" / ".0123456789abcdef.part").exists()
