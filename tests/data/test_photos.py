import io
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter

import unrender
from unrender.data.photos import Photo, load_photo
from unrender.errors import FileFormatError, InputError, ShapeError
from unrender.io import save_image

HEIGHT, WIDTH = 60, 80
DATA = Path(__file__).parents[3] / "shared" / "data"
NOISE = np.random.default_rng(0)


def camera(height=HEIGHT, width=WIDTH):
    return unrender.Camera(torch.ones(2), torch.ones(2), torch.eye(4), height, width)


@pytest.fixture
def path(tmp_path):
    """A red box on white."""
    image = torch.ones(HEIGHT, WIDTH, 3)
    image[20:40, 30:60] = torch.tensor([0.8, 0.1, 0.1])
    save_image(image, tmp_path / "photo.png")
    return tmp_path / "photo.png"


def with_exif(path, orientation=1, **tags):
    codes = {
        "focal": 0x920A,
        "on_film": 0xA405,
        "resolution": 0xA20E,
        "unit": 0xA210,
        "wide": 0xA002,
        "high": 0xA003,
    }
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif.get_ifd(0x8769).update({codes[name]: value for name, value in tags.items()})
    Image.open(path).save(path.with_suffix(".jpg"), exif=exif, quality=95)
    return path.with_suffix(".jpg")


def test_intrinsics_are_taken_as_they_are(path):
    photo = load_photo(path, intrinsics=(100.0, 110.0, 41.0, 29.0))
    assert photo.camera.focal.tolist() == [100, 110]
    assert photo.camera.center.tolist() == [41, 29]
    assert torch.equal(photo.camera.camera_from_world, torch.eye(4))
    assert photo.depth is None


def test_a_field_of_view_is_that_of_look_at(path):
    photo = load_photo(path, fov_degrees=40)
    expected = unrender.Camera.look_at((0.0, 0.0, 1.0), fov_degrees=40, height=HEIGHT, width=WIDTH)
    torch.testing.assert_close(photo.camera.focal, expected.focal)
    torch.testing.assert_close(photo.camera.center, expected.center)


DIAGONAL = math.hypot(36, 24)
EXIF = {
    "on film": ({"on_film": 50, "focal": 4.2}, 50 / DIAGONAL * 100),
    "inches": ({"focal": 10.0, "resolution": 254.0}, 100),
    "centimetres": ({"focal": 10.0, "resolution": 100.0, "unit": 3}, 100),
    "scaled down": ({"focal": 10.0, "resolution": 2540.0, "wide": 800, "high": 600}, 100),
}


@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize("case", EXIF)
def test_focal_length_of_exif(path, case, orientation):
    tags, focal = EXIF[case]
    photo = load_photo(with_exif(path, orientation, **tags))
    assert photo.camera.focal.tolist() == pytest.approx([focal, focal])
    size = (HEIGHT, WIDTH) if orientation == 1 else (WIDTH, HEIGHT)
    assert photo.mask.shape == size
    assert photo.camera.center.tolist() == [size[1] / 2, size[0] / 2]


@pytest.mark.parametrize("tags", [{}, {"on_film": 0}, {"focal": 5.0}, {"focal": 5.0, "resolution": 0.0}])
def test_without_focal_length_the_message_says_what_to_give(path, tags):
    with pytest.raises(InputError, match=r"photo\.jpg: .*give `intrinsics` .* or `fov_degrees`"):
        load_photo(with_exif(path, **tags))


NONSENSE = {
    "both": ({"intrinsics": (1, 1, 1, 1), "fov_degrees": 40}, "not both"),
    "no focal": ({"intrinsics": (0, 1, 1, 1)}, "fx, fy positive"),
    "nan": ({"intrinsics": (1, 1, math.nan, 1)}, "finite"),
    "three": ({"intrinsics": (1, 1, 1)}, "should be fx, fy, cx, cy"),
    "far": ({"intrinsics": (100, 100, 1000, 20)}, "far outside of an image of 80 × 60 pixels"),
    "zero": ({"fov_degrees": 0}, "between 0 and 180"),
    "half": ({"fov_degrees": 180}, "between 0 and 180"),
    "nan angle": ({"fov_degrees": math.nan}, "between 0 and 180"),
    "scale": ({"fov_degrees": 40, "depth_scale": 1.0}, "`depth_scale` without `depth`"),
}


@pytest.mark.parametrize("case", NONSENSE)
def test_nonsense_is_refused(path, case):
    arguments, message = NONSENSE[case]
    with pytest.raises(InputError, match=message):
        load_photo(path, **arguments)


@pytest.mark.parametrize("largest", [255, 128, 1])
def test_grey_of_a_mask_is_a_share_of_its_brightest(path, tmp_path, largest):
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[5:9, 5:9] = largest
    mask[9, 5:9] = largest // 2
    Image.fromarray(mask).save(tmp_path / "mask.png")
    photo = load_photo(path, fov_degrees=40, mask=tmp_path / "mask.png")
    np.testing.assert_allclose(photo.mask, mask / largest, atol=1e-6)


def test_an_upright_mask_fits_a_turned_photo(path, tmp_path):
    mask = torch.zeros(WIDTH, HEIGHT)
    mask[30:60, 20:40] = 1
    save_image(mask, tmp_path / "mask.png")
    photo = load_photo(with_exif(path, 6, on_film=30), mask=tmp_path / "mask.png")
    assert torch.equal(photo.mask, mask)
    assert photo.image[40, 30, 1] < 0.5 < photo.image[10, 10, 1]


def test_a_mask_of_another_size_is_refused(path, tmp_path):
    save_image(torch.ones(5, 7), tmp_path / "mask.png")
    with pytest.raises(
        FileFormatError, match=r"mask\.png: the mask has \[5, 7\] pixels, but the image has \[60, 80\]"
    ):
        load_photo(path, fov_degrees=40, mask=tmp_path / "mask.png")


def test_a_black_mask_is_refused(path, tmp_path):
    save_image(torch.zeros(HEIGHT, WIDTH), tmp_path / "mask.png")
    with pytest.raises(InputError, match="no object in the image"):
        load_photo(path, fov_degrees=40, mask=tmp_path / "mask.png")


def test_alpha_is_the_mask_unless_it_is_constant(path, tmp_path):
    rgba = torch.cat([unrender.load_image(path), torch.rand(HEIGHT, WIDTH, 1)], -1)
    save_image(rgba, tmp_path / "alpha.png")
    photo = load_photo(tmp_path / "alpha.png", fov_degrees=40)
    assert photo.image.shape == (HEIGHT, WIDTH, 3)
    assert (photo.mask - rgba[..., 3]).abs().max() < 0.5 / 255 + 1e-6
    rgba[..., 3] = 1
    save_image(rgba, tmp_path / "opaque.png")
    photo = load_photo(tmp_path / "opaque.png", fov_degrees=40)
    assert torch.equal(photo.mask, load_photo(path, fov_degrees=40).mask)
    assert photo.mask.sum() == 600


@pytest.mark.parametrize("suffix", ["png", "npy"])
def test_depth_is_in_metres_unless_a_scale_is_given(path, tmp_path, suffix):
    depth = np.full((HEIGHT, WIDTH), 1500, np.uint16)
    depth[:5] = 0
    file = tmp_path / f"depth.{suffix}"
    Image.fromarray(depth).save(file) if suffix == "png" else np.save(file, depth)
    assert load_photo(path, fov_degrees=40, depth=file).depth.unique().tolist() == [0, 1.5]
    assert load_photo(path, fov_degrees=40, depth=file, depth_scale=0.5).depth.unique().tolist() == [0, 750]


def test_depth_of_another_size_or_scale_is_refused(path, tmp_path):
    np.save(tmp_path / "depth.npy", np.ones((5, 7), np.float32))
    with pytest.raises(
        FileFormatError, match=r"depth\.npy: the depth image has \[5, 7\] pixels, but the photo has"
    ):
        load_photo(path, fov_degrees=40, depth=tmp_path / "depth.npy")
    with pytest.raises(InputError, match="`scale` should be positive"):
        load_photo(path, fov_degrees=40, depth=tmp_path / "depth.npy", depth_scale=-1)


def test_a_photo_is_consistent():
    image, mask = torch.zeros(HEIGHT, WIDTH, 3), torch.ones(HEIGHT, WIDTH)
    photo = Photo(image, mask, camera(), torch.ones(HEIGHT, WIDTH)).to(torch.float64)
    assert photo.camera.focal.dtype == photo.mask.dtype == torch.float64
    moved = camera().replace(camera_from_world=torch.diag(torch.tensor([-1.0, -1.0, 1.0, 1.0])))
    for wrong, message in (
        ((image, mask, camera(5, 7)), r"an image of \[60, 80\] and a camera of \[5, 7\] pixels"),
        ((image, mask, moved), "identity"),
        ((image * torch.nan, mask, camera()), "`image` should be finite"),
        ((image, mask * 2, camera()), r"`mask` should lie in \[0, 1\]"),
        ((image, mask * 0, camera()), "no object in the image"),
        ((image, mask, camera(), -mask), "`depth` should be finite"),
    ):
        with pytest.raises(InputError, match=message):
            Photo(*wrong)
    with pytest.raises(ShapeError, match="Photo: `mask` should be"):
        Photo(image, mask[1:], camera())


def jpeg(image, quality):
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file))


def backdrop(kind):
    y, x = np.mgrid[:180, :240] / 240
    return {
        "white": np.ones(3),
        "black": np.zeros(3),
        "blue": np.array([0.2, 0.35, 0.6]),
        "gradient": np.stack([0.35 + 0.3 * x, 0.55 + 0.2 * y - 0.1 * x * x, 0.8 - 0.3 * x * y], -1),
        "vignette": np.array([0.8, 0.8, 0.85]) / (1 + 1.2 * ((x - 0.5) ** 2 + (y - 0.37) ** 2))[..., None],
    }[kind]


@pytest.mark.parametrize("cut", [False, True], ids=["whole", "cut by the frame"])
@pytest.mark.parametrize(
    ("kind", "noise", "quality"),
    [
        ("white", 0, 0),
        ("black", 0, 0),
        ("white", 0, 60),
        ("gradient", 0.01, 0),
        ("gradient", 0.01, 80),
        ("vignette", 0.01, 85),
        ("blue", 0.01, 85),
    ],
)
def test_the_object_before_a_plain_background_is_found(tmp_path, kind, noise, quality, cut):
    eye, target = torch.tensor([2.4, 1.5, 3.6]), torch.tensor([1.0, 0.0, -1.0]) * cut
    view = unrender.Camera.look_at(eye, target, fov_degrees=38, height=180, width=240)
    mesh = unrender.torus()
    truth = unrender.render_mesh(mesh, view, background=None, supersampling=4, color=(0.75, 0.4, 0.2)).numpy()
    image = (
        truth[..., :3]
        + (1 - truth[..., 3:]) * backdrop(kind)
        + NOISE.normal(0, 1, truth[..., :3].shape) * noise
    )
    bytes_ = (image.clip(0, 1) * 255).round().astype(np.uint8)
    Image.fromarray(jpeg(bytes_, quality) if quality else bytes_).save(tmp_path / "a.png")
    mask = load_photo(tmp_path / "a.png", fov_degrees=38).mask.numpy()
    assert (truth[[0, -1], :, 3].sum() + truth[:, [0, -1], 3].sum() > 50) == cut
    assert np.minimum(mask, truth[..., 3]).sum() / np.maximum(mask, truth[..., 3]).sum() > 0.97


@pytest.mark.parametrize("level", [0.0, 0.01])
def test_an_empty_image_is_refused(tmp_path, level):
    image = torch.full((50, 70, 3), 0.5) + level * torch.randn(
        50, 70, 3, generator=torch.Generator().manual_seed(0)
    )
    save_image(image, tmp_path / "a.png")
    with pytest.raises(InputError, match=r"a\.png: .*--mask"):
        load_photo(tmp_path / "a.png", fov_degrees=40)


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (2, 2), (3, 40), (7, 3000)])
def test_tiny_images(tmp_path, size):
    save_image(torch.rand(*size, 3, generator=torch.Generator().manual_seed(0)), tmp_path / "a.png")
    with pytest.raises(InputError, match=rf"{size[1]} × {size[0]} pixels is too small .*--mask"):
        load_photo(tmp_path / "a.png", fov_degrees=40)
    save_image(torch.ones(size), tmp_path / "mask.png")
    assert load_photo(tmp_path / "a.png", fov_degrees=40, mask=tmp_path / "mask.png").mask.shape == size


@pytest.mark.parametrize("size", [(8, 8), (12, 4000)])
def test_the_smallest_images(tmp_path, size):
    height, width = size
    image, expected = torch.full((*size, 3), 0.5), torch.zeros(size)
    expected[2 : height - 2, width // 4 : width // 2] = 1
    save_image(image + 0.4 * expected[..., None], tmp_path / "a.png")
    mask = load_photo(tmp_path / "a.png", fov_degrees=40).mask
    assert torch.equal((mask > 0.5).float(), expected)


BUSY = sorted((DATA / "fox/images").glob("*.jpg"))[::12] + sorted((DATA / "pose/lmo/rgb").glob("*.png"))


@pytest.mark.skipif(not BUSY, reason="needs the shared data")
def test_busy_photos_are_refused():
    for path in BUSY:
        with pytest.raises(InputError, match=r"the background is not plain.*--mask"):
            load_photo(path, fov_degrees=40)


@pytest.mark.skipif(not (DATA / "pose/hope").exists(), reason="needs the shared data")
def test_a_real_photo_with_mask_and_depth():
    folder = DATA / "pose/hope"
    truth = json.loads((folder / "ground_truth.json").read_text())
    photo = load_photo(
        folder / "scene/rgb.png",
        intrinsics=(truth["fx"], truth["fy"], truth["cx"] + 0.5, truth["cy"] + 0.5),
        mask=folder / "scene/seg.png",
        depth=folder / "scene/depth.png",
    )
    middle = torch.tensor(truth["camera_from_object_translation"]) / 1000
    assert photo.image.shape == (1080, 1920, 3)
    assert photo.depth[photo.mask > 0.5].median() == pytest.approx(float(middle[2]), abs=0.05)
    place = photo.camera.project(middle[None])[0, :2].long()
    assert photo.mask[place[1], place[0]] == 1


@pytest.fixture
def instances(tmp_path):
    """Three objects with the IDs 1, 2 and 7; the second one is that of `path`."""
    ids = np.zeros((HEIGHT, WIDTH), np.uint8)
    ids[2:12, 2:20], ids[20:40, 30:60], ids[45:55, 2:20] = 1, 2, 7
    return ids


def save_ids(ids, file, kind):
    palette = [0, 0, 0, 128, 0, 0, 0, 128, 0, *[90] * 12, 128, 128, 0]
    if kind == "palette":
        image = Image.fromarray(ids, "L")
        image.putpalette(palette)
    elif kind == "color":
        image = Image.fromarray(np.array(palette, np.uint8).reshape(-1, 3)[ids])
    else:
        image = Image.fromarray(ids.astype(np.uint16) if kind == "16 bits" else ids)
    image.save(file)


@pytest.mark.filterwarnings("ignore:'mode' parameter is deprecated")
@pytest.mark.parametrize("kind", ["gray", "16 bits", "palette", "color"])
def test_a_mask_of_several_objects_asks_which(path, tmp_path, instances, kind):
    file = tmp_path / "mask.png"
    save_ids(instances, file, kind)
    second = 256 * 128 if kind == "color" else 2
    with pytest.raises(InputError, match=rf"3 objects, with the IDs {second} \(12\.5 %\).*`mask_id`"):
        load_photo(path, fov_degrees=40, mask=file)
    photo = load_photo(path, fov_degrees=40, mask=file, mask_id=second)
    assert np.array_equal(photo.mask, instances == 2)
    with pytest.raises(InputError, match="no pixel of the mask has the ID 3"):
        load_photo(path, fov_degrees=40, mask=file, mask_id=3)
    with pytest.raises(InputError, match="`mask_id` without `mask`"):
        load_photo(path, fov_degrees=40, mask_id=2)


@pytest.mark.parametrize("blur", [0, 1, 3])
@pytest.mark.parametrize("suffix", ["png", "jpg", "from-jpg.png"])
def test_soft_and_compressed_masks_are_of_one_object(path, tmp_path, instances, blur, suffix):
    image = Image.fromarray((instances == 2).astype(np.uint8) * 255).filter(ImageFilter.GaussianBlur(blur))
    file = tmp_path / f"mask.{suffix}"
    if suffix == "from-jpg.png":
        image.save(tmp_path / "mask.jpg", quality=80)
        image = Image.open(tmp_path / "mask.jpg")
    image.save(file)
    photo = load_photo(path, fov_degrees=40, mask=file)
    assert abs(int((photo.mask > 0.5).sum()) - 600) <= 40


def test_an_inverted_mask_is_inverted_with_a_warning(path, tmp_path, instances, caplog):
    Image.fromarray((instances != 2).astype(np.uint8) * 255).save(tmp_path / "mask.png")
    photo = load_photo(path, fov_degrees=40, mask=tmp_path / "mask.png")
    assert np.array_equal(photo.mask, instances == 2)
    assert "white around a black region" in caplog.text


def test_masks_and_depth_of_another_size_are_resampled(path, tmp_path, instances):
    Image.fromarray((instances == 2).astype(np.uint8) * 255).resize((2 * WIDTH, 2 * HEIGHT)).save(
        tmp_path / "m.png"
    )
    depth = np.full((HEIGHT // 4, WIDTH // 4), 1500, np.uint16)
    depth[0] = 0
    Image.fromarray(depth).save(tmp_path / "d.png")
    photo = load_photo(path, fov_degrees=40, mask=tmp_path / "m.png", depth=tmp_path / "d.png")
    assert abs(int((photo.mask > 0.5).sum()) - 600) <= 60
    assert photo.depth.shape == (HEIGHT, WIDTH)
    assert float(photo.depth[4:].min()) == 1.5
    assert float(photo.depth[:4].max()) == 0


def test_unknown_pixels_of_a_mask(tmp_path):
    image, mask, ignored = (
        np.full((8, 12, 3), 90, np.uint8),
        np.zeros((8, 12), np.uint8),
        np.zeros((8, 12), np.uint8),
    )
    mask[2:6, 2:8], mask[2:6, 8:10], ignored[0] = 255, 128, 255
    for name, values in {"photo": image, "mask": mask, "ignore": ignored}.items():
        Image.fromarray(values).save(tmp_path / f"{name}.png")
    options = {"fov_degrees": 40.0, "mask": tmp_path / "mask.png"}
    photo = load_photo(tmp_path / "photo.png", **options, ignore=tmp_path / "ignore.png")
    assert photo.ignore is not None
    assert float(photo.ignore.sum()) == 8 + 12
    assert bool((photo.ignore[2:6, 8:10] == 1).all())
    assert float(photo.mask.sum()) == 24
    ignored_only = load_photo(tmp_path / "photo.png", fov_degrees=40.0, mask=tmp_path / "ignore.png")
    assert ignored_only.ignore is None
