import contextlib
import gzip
import io
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unrender import FileFormatError, InputError, UnrenderError, Volume, load_volume, save_volume
from unrender.geometry.camera import rigid, transform

nrrd, nibabel = pytest.importorskip("nrrd"), pytest.importorskip("nibabel")


def tilted() -> Volume:
    values = torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(0))
    angle = torch.tensor(0.3)
    turn = torch.tensor([[angle.cos(), -angle.sin(), 0], [angle.sin(), angle.cos(), 0], [0, 0, 1]])
    matrix = rigid(turn, torch.tensor([10.0, -20.0, 5.0])) @ torch.diag(torch.tensor([0.5, 0.7, 2.0, 1.0]))
    return Volume(values, matrix)


@pytest.mark.parametrize("suffix", [".nrrd", ".nii", ".nii.gz", ".npy"])
def test_round_trip(tmp_path, suffix):
    volume = tilted()
    save_volume(volume, tmp_path / f"scan{suffix}")
    again = load_volume(tmp_path / f"scan{suffix}")
    assert torch.equal(again.density, volume.density)
    expected = torch.eye(4) if suffix == ".npy" else volume.world_from_volume
    if suffix == ".npy":
        expected[:3, 3] = -0.5
    torch.testing.assert_close(again.world_from_volume, expected)
    sized = load_volume(tmp_path / f"scan{suffix}", spacing=(1.0, 2.0, 3.0))
    assert sized.world_from_volume.diagonal().tolist() == [1, 2, 3, 1]


def test_nrrd_and_nifti_agree_on_world_positions(tmp_path):
    values = np.arange(24, dtype=np.int16).reshape(2, 3, 4)  # x, y, z
    affine = np.array([[-2.0, 0, 0, 30], [0, -1.5, 0, 40], [0, 0, 3, -50], [0, 0, 0, 1]])
    nibabel.save(nibabel.Nifti1Image(values, affine), tmp_path / "scan.nii.gz")
    lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine
    header = {
        "space": "left-posterior-superior",
        "space directions": lps[:3, :3].T,
        "space origin": lps[:3, 3],
    }
    for name, more in (("raw", {}), ("short", {"space": "LPS"}), ("bz2", {"encoding": "bzip2"})):
        nrrd.write(str(tmp_path / f"{name}.nrrd"), values, header | more)
    center = torch.tensor([[1.5, 2.5, 3.5]])
    for name in ("scan.nii.gz", "raw.nrrd", "short.nrrd", "bz2.nrrd"):
        volume = load_volume(tmp_path / name)
        assert volume.density[3, 2, 1] == values[1, 2, 3]
        torch.testing.assert_close(
            transform(volume.world_from_volume, center)[0],
            torch.from_numpy(affine @ [1, 2, 3, 1])[:3].float(),
        )


def test_spacings_and_scaling(tmp_path):
    values = np.ones((2, 3, 4), np.uint8)
    nrrd.write(str(tmp_path / "a.nrrd"), values, {"spacings": [1.0, 2.0, 3.0]})
    assert load_volume(tmp_path / "a.nrrd").world_from_volume.diagonal().tolist() == [1, 2, 3, 1]
    image = nibabel.Nifti1Image(values, np.eye(4))
    image.header.set_slope_inter(2.0, -5.0)
    (tmp_path / "a.nii").write_bytes(image.to_bytes())
    assert load_volume(tmp_path / "a.nii").density.unique().tolist() == [-3.0]


def npy(array) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def nrrd_file(sizes: str, encoding: str, data: bytes, more: str = "") -> bytes:
    dimension = len(sizes.split())
    header = f"NRRD0004\ntype: float\ndimension: {dimension}\nsizes: {sizes}\nendian: little\n{more}"
    return f"{header}encoding: {encoding}\n\n".encode() + data


def nifti(shape, dtype=np.float32) -> bytes:
    return nibabel.Nifti1Image(np.ones(shape, dtype), np.eye(4)).to_bytes()


def packed(data: bytes) -> bytes:
    """Compress without the time of day, so that every collection of the tests is the same."""
    return gzip.compress(data, mtime=0)


FLAT = "space directions: (0,0,0) (0,1,0) (0,0,1)\n"
ALMOST_FLAT = "space directions: (0.1,0.4,0.3) (0.7,2.8,2.1) (0.2,0.1,1)\n"  # but for rounding
DAMAGED = {
    "two axes, npy": ("a.npy", npy(np.ones((3, 4))), "three non-empty axes, got shape [4, 3]"),
    "no voxels": ("a.npy", npy(np.ones((3, 0, 4))), "three non-empty axes"),
    "not finite": ("a.npy", npy(np.full((2, 2, 2), np.nan)), "none of the voxels is finite"),
    "cut, npy": ("a.npy", npy(np.ones((2, 2, 2)))[:-3], "the header declares"),
    "cut, nrrd": ("a.nrrd", nrrd_file("2 2 2", "raw", b"1" * 31), "[2, 2, 2] voxels, but only 31 bytes follow"),
    "cut before packing, nrrd": ("a.nrrd", nrrd_file("2 2 2", "gzip", packed(b"1" * 31)), "but only 31 bytes follow"),
    "cut after packing, nrrd": ("a.nrrd", nrrd_file("2 2 2", "gzip", packed(b"1" * 32)[:11]), "bytes follow"),
    "far too large": ("a.nrrd", nrrd_file("90000 90000 90000", "gzip", packed(b"1")), "more than 1073 million"),
    "large and empty": ("a.nrrd", nrrd_file("1000 1000 1000", "gzip", packed(b"1")), "but only 1 bytes follow"),
    "two axes, nrrd": ("a.nrrd", nrrd_file("2 2", "raw", b"1" * 16), "three non-empty axes"),
    "negative size": ("a.nrrd", nrrd_file("2 -2 2", "raw", b"1" * 16), "the volume is empty"),
    "text": ("a.nrrd", nrrd_file("2 2 2", "txt", b"1"), "unsupported encoding 'txt'"),
    "another file": ("a.nrrd", nrrd_file("2 2 2", "raw", b"", "data file: /etc/passwd\n"), "detached NRRD headers"),
    "byte skip": ("a.nrrd", nrrd_file("2 2 2", "raw", b"1" * 36, "byte skip: 4\n"), "byte skip are not supported"),
    "flat": ("a.nrrd", nrrd_file("2 2 2", "raw", b"1" * 32, FLAT), "singular"),
    "almost flat": ("a.nrrd", nrrd_file("2 2 2", "raw", b"1" * 32, ALMOST_FLAT), "singular"),
    "no nrrd": ("a.nrrd", b"something else", "damaged, or its content does not match its suffix"),
    "cut, nii": ("a.nii", nifti((4, 4, 4))[:-1], "declares [4, 4, 4] voxels, but only"),
    "cut before packing, nii": ("a.nii.gz", packed(nifti((4, 4, 4))[:-1]), "declares [4, 4, 4] voxels, but only"),
    "cut after packing, nii": ("a.nii.gz", packed(nifti((4, 4, 4)))[:40], "damaged|truncated"),
    "four axes": ("a.nii", nifti((4, 4, 4, 2)), "the file has 2 volumes"),
    "zeros": ("a.nii", b"\0" * 400, "damaged"),
    "complex": ("a.nii", nifti((2, 2, 2), np.complex64), "one number per voxel"),
}  # fmt: skip


@pytest.mark.parametrize(("name", "data", "words"), DAMAGED.values(), ids=DAMAGED)
@pytest.mark.filterwarnings("default")
def test_damaged_files_are_rejected(tmp_path, name, data, words):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(FileFormatError) as caught:
        load_volume(tmp_path / name)
    assert str(caught.value).startswith(str(tmp_path / name))
    assert any(word in str(caught.value) for word in words.split("|")), caught.value


def test_masks_are_volumes_of_0_and_1(tmp_path):
    mask = np.arange(24).reshape(2, 3, 4) % 5 == 0
    np.save(tmp_path / "mask.npy", mask)
    assert torch.equal(load_volume(tmp_path / "mask.npy").density, torch.from_numpy(mask).float())


def test_unknown_suffixes_missing_packages_and_batches_are_rejected(tmp_path, monkeypatch):
    with pytest.raises(InputError, match=r"'\.mha'; use one of \.npy, \.nrrd, \.nii\.gz, \.nii"):
        load_volume(tmp_path / "a.mha")
    with pytest.raises(InputError, match="DICOM is not read; convert the series to NIfTI: `dcm2niix FOLDER`"):
        load_volume(tmp_path / "a.dcm")
    with pytest.raises(InputError, match="a single volume without color"):
        save_volume(Volume.in_box(torch.ones(2, 1, 1, 1), torch.zeros(3), torch.ones(3)), tmp_path / "a.npy")
    save_volume(tilted(), tmp_path / "a.nrrd")
    monkeypatch.setitem(sys.modules, "nrrd", None)
    with pytest.raises(
        InputError, match=r"require the package pynrrd; install it with .pip install 'unrender\[volumes\]'"
    ):
        load_volume(tmp_path / "a.nrrd")


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("volumes")
    for name in ("a.nrrd", "a.nii", "a.nii.gz"):
        save_volume(tilted(), folder / name)
    return folder


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["a.nrrd", "a.nii", "a.nii.gz"])
@settings(max_examples=150)
@given(data=st.data())
def test_fuzzed_files_load_or_raise_our_errors(saved, name, data):
    original = (saved / name).read_bytes()
    damaged = bytearray(original[: data.draw(st.integers(1, len(original)))])
    for _ in range(data.draw(st.integers(0, 4))):
        place = data.draw(st.integers(0, min(len(damaged), 420) - 1))
        damaged[place] = data.draw(st.one_of(st.integers(0, 255), st.sampled_from(b"\0\xff 09-\n:")))
    path = saved / f"damaged-{name}"
    path.write_bytes(damaged)
    with contextlib.suppress(UnrenderError):
        load_volume(path)


@pytest.mark.parametrize("suffix", [".npy", ".nii.gz"])
def test_voxels_outside_of_a_mask_are_empty(tmp_path, suffix, caplog):
    values = np.random.default_rng(0).normal(size=(4, 5, 6)).astype(np.float32)
    lost = values < -0.5
    path = tmp_path / f"spmT_0001{suffix}"
    save_volume(Volume(torch.from_numpy(np.where(lost, np.nan, values)), torch.eye(4)), path)
    found = load_volume(path).density.numpy()
    np.testing.assert_allclose(found, np.where(lost, values[~lost].min(), values))
    assert f"{lost.sum()} of 120 voxels are not finite" in caplog.text


@pytest.mark.parametrize("suffix", [".npy", ".nii"])
def test_a_file_with_several_volumes_asks_which(tmp_path, suffix):
    values = np.random.default_rng(0).random((3, 4, 5, 6), np.float32)  # time, z, y, x
    path = tmp_path / f"bold{suffix}"
    if suffix == ".npy":
        np.save(path, values)
    else:
        nibabel.Nifti1Image(values.T, np.eye(4)).to_filename(path)
    with pytest.raises(FileFormatError, match="has 3 volumes; choose one, 0 to 2, with --frame"):
        load_volume(path)
    np.testing.assert_array_equal(load_volume(path, frame=2).density, values[2])
    with pytest.raises(FileFormatError, match="frame 3 does not exist"):
        load_volume(path, frame=3)
    np.save(tmp_path / "one.npy", values[:1])
    np.testing.assert_array_equal(load_volume(tmp_path / "one.npy").density, values[0])
