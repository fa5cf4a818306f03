"""Gaussian splat files: every format from its description, and damaged files."""

import gzip
import math
import struct

import numpy as np
import pytest
import torch

from splat_files import ply_bytes, random_gaussians, splat_bytes, spz_bytes
from unrender import FileFormatError, InputError, load_cameras, rotation_angle, rotation_from_quaternion
from unrender.io.splats import is_splat_file, load_gaussians

FORMATS = {
    "ply": (".ply", ply_bytes, 1e-6),
    "splat": (".splat", splat_bytes, 0.02),
    "spz-1": (".spz", lambda gaussians: spz_bytes(gaussians, 1), 0.04),
    "spz-2": (".spz", lambda gaussians: spz_bytes(gaussians, 2), 0.04),
    "spz-3": (".spz", lambda gaussians: spz_bytes(gaussians, 3), 0.04),
}
"""Suffix, writer, and relative error of scales and angle of rotations, of each format."""


def saved(tmp_path, data, suffix):
    path = tmp_path / f"gaussians{suffix}"
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("degree", [0, 1, 3])
@pytest.mark.parametrize("name", FORMATS)
def test_formats_keep_gaussians(tmp_path, name, degree):
    suffix, write, error = FORMATS[name]
    wanted = random_gaussians(40, degree)
    path = saved(tmp_path, write(wanted), suffix)
    found = load_gaussians(path)
    torch.testing.assert_close(found.means, wanted.means, rtol=0, atol=1e-3)
    torch.testing.assert_close(found.scales, wanted.scales, rtol=error, atol=0)
    torch.testing.assert_close(found.opacities, wanted.opacities, rtol=0, atol=1 / 255)
    kept = 1 if name == "splat" else None
    torch.testing.assert_close(found.harmonics, wanted.harmonics[:, :kept], rtol=0, atol=0.5 / 255 / 0.15)
    one, other = (rotation_from_quaternion(g.quaternions.double()) for g in (found, wanted))
    # bytes hold x, y and z of a quaternion; w follows from them, with a large error where it is small
    assert float(rotation_angle(one, other).max()) < (0.25 if name in ("spz-1", "spz-2") else error + 3e-3)
    assert is_splat_file(path)


def test_other_layouts_of_ply(tmp_path):
    wanted = random_gaussians(5, 1)
    header, body = ply_bytes(wanted).split(b"end_header\n")
    columns = np.frombuffer(body, "<f4").reshape(5, -1)
    big = header.replace(b"little", b"big") + b"end_header\n" + columns.astype(">f4").tobytes()
    rows = "\n".join(" ".join(repr(float(x)) for x in row) for row in columns)
    text = header.replace(b"binary_little_endian", b"ascii") + b"end_header\n" + rows.encode()
    for data in (big, text):
        found = load_gaussians(saved(tmp_path, data, ".ply"))
        torch.testing.assert_close(found.harmonics, wanted.harmonics)
        torch.testing.assert_close(found.scales, wanted.scales)


def test_antialiasing_is_read(tmp_path):
    plain = random_gaussians(3, 0)
    for gaussians in (plain, plain.replace(is_antialiased=True)):
        path = saved(tmp_path, spz_bytes(gaussians, 3), ".spz")
        assert load_gaussians(path).is_antialiased == gaussians.is_antialiased


def test_extreme_values_are_read_without_warnings(tmp_path):
    extreme = random_gaussians(3, 0).replace(
        opacities=torch.tensor([0.0, 1.0, 1e-44])
    )  # logits of -inf, inf and -101
    assert load_gaussians(saved(tmp_path, ply_bytes(extreme), ".ply")).opacities.tolist() == [0, 1, 0]


def spz_header(magic=0x5053474E, version=3, count=40, degree=0, fraction=12):
    return struct.pack("<IIIBBBB", magic, version, count, degree, fraction, 0, 0)


def test_damaged_files_are_refused(tmp_path):
    gaussians = random_gaussians(40, 1)
    ply, splat, spz = ply_bytes(gaussians), splat_bytes(gaussians), spz_bytes(gaussians, 3)
    nan = gaussians.replace(means=gaussians.means.index_fill(0, torch.tensor([2]), math.nan))
    negative = gaussians.replace(scales=gaussians.scales.index_fill(0, torch.tensor([7]), -1.0))
    empty = gaussians.map(lambda values: values[:0])
    cases = [
        (
            ply[:-7],
            ".ply",
            "truncated or damaged: the header declares 40 rows of 'vertex', but the file has 39",
        ),
        (ply.replace(b"scale_2", b"scale_z"), ".ply", "not a Gaussian splat file: no property scale_2"),
        (
            ply.replace(b"f_rest_8", b"f_more_8"),
            ".ply",
            "expected 0, 9, 24 or 45 properties f_rest_0, .*, got 8",
        ),
        (ply_bytes(nan), ".ply", r"Gaussian 3 of 40 has the position \[nan, nan, nan\]; 1 have values"),
        (ply_bytes(empty), ".ply", "no vertices"),
        (ply.replace(b" f_dc_0", b" packed_position"), ".ply", "compressed ply files are not supported"),
        (splat[:-7], ".splat", "truncated or damaged: 1,273 bytes are not a multiple of 32"),
        (splat_bytes(negative), ".splat", "Gaussian 8 of 40 has the scale .*not finite or negative"),
        (splat_bytes(nan), ".splat", "Gaussian 3 of 40 has the position"),
        (spz[:-9], ".spz", "truncated: the gzip stream does not end"),
        (spz[:30], ".spz", "truncated"),
        (gzip.compress(b"NGSP"), ".spz", "truncated: expected a header of 16 bytes, got 4"),
        (gzip.compress(spz_header(magic=1)), ".spz", "magic 0x1, version 3"),
        (gzip.compress(spz_header(version=5)), ".spz", "version 5, degree 0"),
        (gzip.compress(spz_header(degree=4)), ".spz", "degree 4"),
        (gzip.compress(spz_header(count=0)), ".spz", "the header declares 0"),
        (
            gzip.compress(spz_header(count=2**31)),
            ".spz",
            "1 to 10,000,000 Gaussians, .* declares 2,147,483,648",
        ),
        (gzip.compress(spz_header(count=9_000_000)), ".spz", "need 180,000,000 bytes, but the file has 0"),
        (spz_header(version=4), ".spz", "version 4 and later are not supported"),
        (b"hello, world", ".spz", "should begin with a gzip stream"),
        (b"", ".splat", "the file is empty"),
    ]
    for data, suffix, message in cases:
        with pytest.raises(FileFormatError, match=message):
            load_gaussians(saved(tmp_path, data, suffix))
    with pytest.raises(InputError, match=r"unsupported suffix '.obj'; use one of .ply, .splat, .spz"):
        load_gaussians(tmp_path / "mesh.obj")


def test_other_ply_files_are_none(tmp_path):
    assert not is_splat_file(saved(tmp_path, b"ply\nformat ascii 1.0\nend_header\n", ".ply"))
    assert not is_splat_file(tmp_path / "missing.splat")


def test_cameras_of_splatting(tmp_path):
    turn = [[0.0, 0.0, -1.0], [1.0, 0.0, 0.0], [0.0, -1.0, 0.0]]  # looks along -x, with down along -z
    camera = {"id": 0, "img_name": "a.png", "width": 8, "height": 6, "position": [1.0, 2.0, 3.0]}
    path = tmp_path / "cameras.json"
    path.write_text(str([camera | {"rotation": turn, "fx": 9.0, "fy": 10.0}]).replace("'", '"'))
    [frame] = load_cameras(path)
    assert frame.name == "a.png"
    torch.testing.assert_close(frame.camera.position, torch.tensor([1.0, 2, 3]))
    torch.testing.assert_close(frame.camera.camera_from_world[2, :3], torch.tensor([-1.0, 0, 0]))
    torch.testing.assert_close(frame.camera.camera_from_world[1, :3], torch.tensor([0.0, 0, -1]))
    assert frame.camera.focal.tolist() == [9, 10]
    path.write_text('[{"img_name": "a.png"}]')
    with pytest.raises(FileFormatError, match=r"cameras\.json"):
        load_cameras(path)
