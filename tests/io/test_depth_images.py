import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from unrender.errors import FileFormatError, InputError, ShapeError
from unrender.io import load_depth, points_from_depth
from unrender.io.depth import read_depth

HEIGHT, WIDTH = 40, 50
FOCAL, CENTER = torch.tensor([60.0, 55.0]), torch.tensor([26.0, 19.0])


def depth_of_plane(normal, distance, dtype=torch.float64):
    """The depth image of the plane normal · X = −distance, seen from its front side."""
    rows, columns = torch.arange(HEIGHT, dtype=dtype) + 0.5, torch.arange(WIDTH, dtype=dtype) + 0.5
    x, y = (columns - CENTER[0]) / FOCAL[0], (rows - CENTER[1]) / FOCAL[1]
    return -distance / (normal[0] * x + normal[1] * y[:, None] + normal[2])


PLANES = {
    "facing": (0.0, 0.0, -1.0),
    "turned right": (0.5, 0.0, -(0.75**0.5)),
    "a floor": (0.0, -(0.5**0.5), -(0.5**0.5)),
    "steep": (-0.6, 0.2, -(0.6**0.5)),
}


@pytest.mark.parametrize("normal", PLANES.values(), ids=PLANES)
def test_points_and_normals_of_a_plane_are_exact(normal):
    depth = depth_of_plane(normal, 2.0)
    pixels = points_from_depth(depth, FOCAL.double(), CENTER.double())
    normal = torch.tensor(normal, dtype=torch.float64)
    assert pixels.valid.all()
    assert (pixels.points @ normal + 2.0).abs().max() < 1e-12
    assert (pixels.normals - normal).abs().max() < 1e-9


def test_axes_point_right_down_and_forward():
    points = points_from_depth(torch.full((HEIGHT, WIDTH), 2.0), FOCAL, CENTER).points
    assert points[19, 26].tolist() == pytest.approx([0.5 / 60 * 2, 0.5 / 55 * 2, 2.0])
    assert points[0, 0, 0] < 0 < points[0, -1, 0]
    assert points[0, 0, 1] < 0 < points[-1, 0, 1]


def test_missing_and_flying_pixels_are_invalid():
    depth = torch.full((HEIGHT, WIDTH), 2.0)
    depth[:, 25:] = 1.0
    depth[10, 10], depth[20, 40] = torch.nan, -1.0
    depth[:, 24] = torch.linspace(1.2, 1.8, HEIGHT)  # mixed from both sides
    pixels = points_from_depth(depth, FOCAL, CENTER)
    assert not pixels.valid[:, 24].any()
    assert not pixels.valid[10, 10]
    assert not pixels.valid[20, 40]
    assert pixels.valid.sum() == HEIGHT * (WIDTH - 1) - 2
    facing = torch.tensor([0.0, 0.0, -1.0])
    assert (pixels.normals[pixels.valid] - facing).abs().max() < 1e-5
    assert (pixels.normals[~pixels.valid] == 0).all()


def test_normals_of_quantized_depth():
    exact = depth_of_plane(PLANES["turned right"], 0.7)
    pixels = points_from_depth((exact * 1000).round() / 1000, FOCAL.double(), CENTER.double())
    normal = torch.tensor(PLANES["turned right"], dtype=torch.float64)
    assert (pixels.normals @ normal).min() > np.cos(np.radians(3))


def test_batch_matches_single_images():
    depth = torch.rand(3, 2, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(0)) * 0.01 + 1
    focal = torch.tensor([[50.0, 55.0], [60.0, 65.0]]).expand(3, 2, 2)
    together = points_from_depth(depth, focal, CENTER.expand(3, 2, 2))
    shared = points_from_depth(depth, FOCAL.expand(1, 1, 2), CENTER.expand(1, 1, 2))
    for i in range(3):
        for j in range(2):
            alone = points_from_depth(depth[i, j], focal[i, j], CENTER)
            assert torch.equal(together[i, j].points, alone.points)
            assert torch.equal(together[i, j].normals, alone.normals)
            assert torch.equal(shared[i, j].points, points_from_depth(depth[i, j], FOCAL, CENTER).points)


def test_gradients():
    depth = (
        torch.rand(4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 0.02 + 1
    ).requires_grad_()
    focal = torch.tensor([10.0, 11.0], dtype=torch.float64, requires_grad=True)
    center = torch.tensor([2.0, 2.5], dtype=torch.float64, requires_grad=True)

    def values(*inputs):
        pixels = points_from_depth(*inputs, radius=2)
        return pixels.points, pixels.normals

    assert torch.autograd.gradcheck(values, (depth, focal, center))


def test_gradient_is_finite_where_nothing_is_measured():
    depth = torch.zeros(6, 6, requires_grad=True)
    pixels = points_from_depth(depth, FOCAL, CENTER)
    (pixels.points.sum() + pixels.normals.sum()).backward()
    assert depth.grad.isfinite().all()


@pytest.mark.parametrize("focal", [[0.0, 1.0], [-1.0, 1.0], [torch.nan, 1.0]])
def test_invalid_focal_length_is_rejected(focal):
    with pytest.raises(InputError, match="`focal` should be positive and finite"):
        points_from_depth(torch.ones(3, 3), torch.tensor(focal), CENTER)


def test_wrong_shape_is_rejected():
    with pytest.raises(ShapeError, match="points_from_depth: `focal` should be"):
        points_from_depth(torch.ones(3, 3), torch.ones(3), CENTER)


@pytest.fixture
def metres():
    depth = np.full((HEIGHT, WIDTH), 1.25, np.float32)
    depth[:5] = 0
    return depth


def pfm(depth, scale=b"-1.0"):
    order = "<f4" if scale.startswith(b"-") else ">f4"
    return b"Pf\n%d %d\n%s\n" % (WIDTH, HEIGHT, scale) + depth[::-1].astype(order).tobytes()


@pytest.mark.parametrize("scale", [b"-1.0", b"1"])
def test_portable_float_maps(tmp_path, metres, scale):
    path, depth = tmp_path / "depth.pfm", metres + np.linspace(0, 0.2, HEIGHT, dtype=np.float32)[:, None]
    path.write_bytes(pfm(depth, scale))
    np.testing.assert_array_equal(read_depth(path, None), depth)
    for data, message in (
        (path.read_bytes()[:-1], "truncated or damaged: the header declares 50 × 40 values"),
        (b"PF\n2 2\n-1\n" + bytes(48), "three channels"),
        (b"P5\n", "not a PFM file"),
    ):
        path.write_bytes(data)
        with pytest.raises(FileFormatError, match=message):
            read_depth(path, None)


def test_axes_of_length_one_are_dropped_and_negative_depths_refused(tmp_path, metres):
    path, depth = tmp_path / "depth.npy", metres + np.linspace(0, 0.2, WIDTH, dtype=np.float32)
    np.save(path, depth[None, :, :, None])
    np.testing.assert_array_equal(read_depth(path, None), depth)
    np.save(path, -depth)
    with pytest.raises(FileFormatError, match=r"all depths are negative; .*: negate them"):
        read_depth(path, None)
    np.save(path, np.full_like(depth, -1))  # nothing was measured
    assert not (read_depth(path, None) > 0).any()


@pytest.mark.parametrize("suffix", ["png", "tiff", "npy", "millimetres.npy"])
def test_every_format_gives_meters(tmp_path, metres, suffix):
    path = tmp_path / f"depth.{suffix}"
    if suffix == "png":
        Image.fromarray((metres * 1000).astype(np.uint16)).save(path)
    elif suffix == "tiff":
        Image.fromarray(np.where(metres > 0, metres, np.inf)).save(path)
    elif suffix == "npy":
        np.save(path, np.where(metres > 0, metres, np.nan))
    else:
        np.save(path, (metres * 1000).astype(np.int32))
    cloud = load_depth(path, 60.0)
    assert cloud.points.shape == ((HEIGHT - 5) * WIDTH, 3)
    assert cloud.points[:, 2].unique().tolist() == [1.25]
    assert cloud.points.dtype == torch.float32
    assert cloud.points[:, 0].mean() == pytest.approx(0, abs=1e-5)
    assert (cloud.normals - torch.tensor([0.0, 0.0, -1.0])).abs().max() < 1e-5


def test_scale_center_and_mask(tmp_path, metres):
    Image.fromarray((metres * 5000).astype(np.uint16)).save(tmp_path / "depth.png")
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[20:30, 10:40] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    args = (tmp_path / "depth.png", (60.0, 55.0), (26.0, 19.0))
    whole, part = (
        load_depth(*args, scale=1 / 5000),
        load_depth(*args, scale=1 / 5000, mask=tmp_path / "mask.png"),
    )
    assert whole.points[:, 2].unique().tolist() == [1.25]
    assert part.points.shape == (300, 3)
    expected = whole.points.reshape(HEIGHT - 5, WIDTH, 3)[15:25, 10:40].reshape(-1, 3)
    torch.testing.assert_close(part.points, expected)


REFUSED = {
    "8 bits": (lambda metres: metres.astype(np.uint8), "8-bit depth cannot be in millimeters"),
    "colors": (lambda metres: np.zeros((4, 5, 3), np.uint8), "one channel"),
    "nothing": (lambda metres: np.zeros((4, 5), np.uint16), "no pixel measures a surface"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_files_without_depth_are_rejected(tmp_path, metres, case):
    make, message = REFUSED[case]
    Image.fromarray(make(metres)).save(tmp_path / "depth.png")
    with pytest.raises(FileFormatError, match=message):
        load_depth(tmp_path / "depth.png", 60.0)


def test_mask_of_another_size_is_rejected(tmp_path, metres):
    np.save(tmp_path / "depth.npy", metres)
    Image.fromarray(np.ones((3, 3), np.uint8)).save(tmp_path / "mask.png")
    with pytest.raises(
        FileFormatError, match=r"mask.png: the mask has \[3, 3\] pixels, but the image has \[40, 50\]"
    ):
        load_depth(tmp_path / "depth.npy", 60.0, mask=tmp_path / "mask.png")


def test_invalid_scale_is_rejected(tmp_path, metres):
    np.save(tmp_path / "depth.npy", metres)
    with pytest.raises(InputError, match="`scale` should be positive and finite, got 0"):
        load_depth(tmp_path / "depth.npy", 60.0, scale=0)


def test_image_that_declares_too_many_pixels_is_rejected(tmp_path):
    path = tmp_path / "depth.png"
    Image.fromarray(np.full((4, 4), 9, np.uint16)).save(path)
    data = bytearray(path.read_bytes())
    data[16:24] = (12_000).to_bytes(4) * 2
    path.write_bytes(data)
    with pytest.raises(FileFormatError, match=r"depth\.png: "):
        load_depth(path, 60.0)


HOPE = Path(__file__).parents[3] / "shared" / "data" / "pose" / "hope"


@pytest.mark.skipif(not HOPE.exists(), reason="needs the shared data")
def test_real_depth_image(tmp_path):
    truth = json.loads((HOPE / "ground_truth.json").read_text())
    center = (truth["cx"] + 0.5, truth["cy"] + 0.5)
    scene = HOPE / "scene"
    cloud = load_depth(scene / "depth.png", (truth["fx"], truth["fy"]), center, mask=scene / "seg.png")
    middle = torch.tensor(truth["camera_from_object_translation"]) / 1000
    assert 15_000 < len(cloud.points) < 25_000
    assert (cloud.points.median(dim=0).values - middle).norm() < 0.04
    assert (cloud.points * cloud.normals).sum(-1).max() < 0
