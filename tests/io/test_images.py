import sys
import tracemalloc
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from unrender.errors import FileFormatError, InputError, ShapeError
from unrender.io import FileAccessError, MissingFileError, load_image, save_image

RGB = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
GREY16 = np.arange(48, dtype=np.uint16).reshape(6, 8) * 1000


def palette(transparent=None):
    image = Image.fromarray(np.arange(48, dtype=np.uint8).reshape(6, 8) % 3, "L").convert("P")
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    if transparent is not None:
        image.info["transparency"] = transparent
    return image


def turned(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


@pytest.mark.parametrize("suffix", ["png", "tif", "tiff", "bmp", "webp", "PNG"])
def test_colors_of_8_bits(tmp_path, suffix):
    options = {"lossless": True} if suffix == "webp" else {}
    Image.fromarray(RGB).save(tmp_path / f"a.{suffix}", **options)
    image = load_image(tmp_path / f"a.{suffix}")
    assert image.dtype == torch.float32
    torch.testing.assert_close(image, torch.from_numpy(RGB) / 255)


def test_jpg_of_one_color(tmp_path):
    Image.new("RGB", (20, 10), (255, 128, 0)).save(tmp_path / "a.jpg", quality=95)
    image = load_image(tmp_path / "a.jpg")
    assert image.shape == (10, 20, 3)
    assert (image - torch.tensor([1.0, 128 / 255, 0.0])).abs().max() < 0.01


GREY = {
    "8 bits.png": (RGB[..., 0], RGB[..., 0] / 255),
    "16 bits.png": (GREY16, GREY16 / 65535),
    "16 bits.tif": (GREY16, GREY16 / 65535),
    "float.tif": ((GREY16 / 65535).astype(np.float32), GREY16 / 65535),
    "one bit.png": (RGB[..., 0] > 99, (RGB[..., 0] > 99) * 1.0),
}


@pytest.mark.parametrize("name", GREY)
def test_gray_has_three_equal_channels(tmp_path, name):
    stored, expected = GREY[name]
    Image.fromarray(stored).save(tmp_path / name)
    image = load_image(tmp_path / name)
    assert image.shape == (6, 8, 3)
    np.testing.assert_allclose(image, np.repeat(expected[..., None], 3, -1), atol=1e-6)


def test_transparency_gives_a_fourth_channel(tmp_path):
    alpha = RGB[..., :1]
    cases = {
        "rgba": Image.fromarray(np.concatenate([RGB, alpha], -1)),
        "grey": Image.fromarray(np.concatenate([RGB[..., 1:2], alpha], -1)),
        "palette": palette(transparent=1),
    }
    images = {}
    for name, picture in cases.items():
        picture.save(tmp_path / f"{name}.png")
        images[name] = load_image(tmp_path / f"{name}.png")
        assert images[name].shape == (6, 8, 4)
    np.testing.assert_allclose(images["rgba"][..., 3:], alpha / 255, atol=1e-6)
    np.testing.assert_allclose(
        images["grey"][..., 2:], np.concatenate([RGB[..., 1:2], alpha], -1) / 255, atol=1e-6
    )
    assert images["palette"][0, :3].tolist() == [[1, 0, 0, 1], [0, 1, 0, 0], [0, 0, 1, 1]]


def test_palette_and_cmyk_become_rgb(tmp_path):
    palette().save(tmp_path / "palette.png")
    assert load_image(tmp_path / "palette.png")[0, :3].tolist() == torch.eye(3).tolist()
    Image.new("CMYK", (4, 4), (0, 255, 255, 0)).save(tmp_path / "ink.tif")
    assert load_image(tmp_path / "ink.tif")[0, 0].tolist() == [1, 0, 0]


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tif"])
@pytest.mark.parametrize(("orientation", "corner"), [(1, (0, 0)), (3, (-1, -1)), (6, (0, -1)), (8, (-1, 0))])
def test_exif_orientation_is_applied(tmp_path, suffix, orientation, corner):
    stored = np.zeros((16, 32, 3), np.uint8)
    stored[:8, :8] = 255
    Image.fromarray(stored).save(tmp_path / f"a.{suffix}", exif=turned(orientation))
    image = load_image(tmp_path / f"a.{suffix}")
    assert image.shape == ((16, 32, 3) if orientation in (1, 3) else (32, 16, 3))
    assert image[corner].min() > 0.9
    assert image.mean() == pytest.approx(64 / 512, abs=0.01)


@pytest.mark.parametrize("suffix", ["webp", "png", "tif"])
def test_first_image_of_several_is_loaded(tmp_path, suffix):
    first, second = Image.new("RGB", (5, 4), "red"), Image.new("RGB", (5, 4), "blue")
    options = {"lossless": True} if suffix == "webp" else {}
    first.save(tmp_path / f"a.{suffix}", save_all=True, append_images=[second], **options)
    assert load_image(tmp_path / f"a.{suffix}")[0, 0].tolist() == [1, 0, 0]


def test_one_pixel(tmp_path):
    save_image(torch.tensor([[0.2]]), tmp_path / "a.png")
    assert load_image(tmp_path / "a.png").tolist() == [[[pytest.approx(0.2)] * 3]]


def test_values_outside_0_to_1_are_rejected(tmp_path):
    for values in (np.float32([[0.5, 1.5]]), np.float32([[-0.1]]), np.float32([[np.nan]])):
        Image.fromarray(values).save(tmp_path / "a.tif")
        with pytest.raises(FileFormatError, match=r"a\.tif: pixel values should be in \[0, 1\]"):
            load_image(tmp_path / "a.tif")
    Image.fromarray(np.int32([[70_000]])).save(tmp_path / "a.tif")
    with pytest.raises(FileFormatError, match=r"a\.tif: pixel values should be in \[0, 65535\], got 70000"):
        load_image(tmp_path / "a.tif")


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "webp", "bmp"])
def test_truncated_files_are_rejected(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 60, 3), dtype=np.uint8)).save(path)
    data = path.read_bytes()
    for length in (1, 20, len(data) // 2):
        path.write_bytes(data[:length])
        with pytest.raises(FileFormatError, match=rf"a\.{suffix}: "):
            load_image(path)


def test_other_files_are_rejected(tmp_path):
    (tmp_path / "a.png").write_bytes(b"hello")
    (tmp_path / "empty.png").touch()
    with pytest.raises(FileFormatError, match=r"a\.png: damaged, or its content does not match its suffix"):
        load_image(tmp_path / "a.png")
    with pytest.raises(FileFormatError, match="the file is empty"):
        load_image(tmp_path / "empty.png")
    (tmp_path / "lfs.png").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    with pytest.raises(
        FileFormatError, match="a pointer of Git LFS, not the file itself; run `git lfs pull`"
    ):
        load_image(tmp_path / "lfs.png")
    with pytest.raises(MissingFileError):
        load_image(tmp_path / "nothing.png")
    with pytest.raises(InputError, match=r"unsupported suffix '\.gif'"):
        load_image(tmp_path / "a.gif")
    (tmp_path / "b.png").mkdir()
    with pytest.raises(FileAccessError, match="folder"):
        load_image(tmp_path / "b.png")


@pytest.mark.parametrize("side", [13_000, 50_000])
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_too_many_pixels_are_rejected_before_decoding(tmp_path, side):
    path = tmp_path / "a.png"
    Image.fromarray(RGB).save(path)
    data = bytearray(path.read_bytes())
    data[16:24] = side.to_bytes(4) * 2
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4)
    path.write_bytes(data)
    tracemalloc.start()
    with pytest.raises(FileFormatError, match=r"a\.png: the image (is too large|has 13000 × 13000 pixels)"):
        load_image(path)
    assert tracemalloc.get_traced_memory()[1] < 10e6
    tracemalloc.stop()


@pytest.mark.parametrize("shape", [(5, 4), (5, 4, 1), (5, 4, 2), (5, 4, 3), (5, 4, 4)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16])
def test_round_trip(tmp_path, shape, dtype):
    image = torch.rand(shape, generator=torch.Generator().manual_seed(0)).to(dtype)
    save_image(image.requires_grad_(), tmp_path / "a.png")
    loaded = load_image(tmp_path / "a.png")
    colors = image.detach().float().reshape(5, 4, -1)
    if colors.shape[-1] < 3:
        colors = torch.cat([colors[..., :1].expand(5, 4, 3), colors[..., 1:]], -1)
    torch.testing.assert_close(loaded, colors, atol=0.5 / 255 + 1e-6, rtol=0)


def test_rounding_errors_are_tolerated(tmp_path):
    save_image(torch.tensor([[-5e-5, 1 + 5e-5]]), tmp_path / "a.jpeg")
    assert load_image(tmp_path / "a.jpeg").shape == (1, 2, 3)


@pytest.mark.parametrize("wrong", [1.01, -0.01, torch.nan, torch.inf])
def test_saving_values_outside_0_to_1_is_rejected(tmp_path, wrong):
    with pytest.raises(InputError, match=r"save_image: `image` should have values in \[0, 1\], got"):
        save_image(torch.tensor([[0.5, wrong]]), tmp_path / "a.png")
    assert list(tmp_path.iterdir()) == []


def test_saving_other_shapes_is_rejected(tmp_path):
    with pytest.raises(InputError, match=r"cannot save float32.* as a JPEG image"):
        save_image(torch.zeros(3, 3, 4), tmp_path / "a.jpg")
    for shape in ((3, 3, 5), (0, 3)):
        with pytest.raises(InputError, match=r"cannot save float32.* as a PNG image"):
            save_image(torch.zeros(shape), tmp_path / "a.png")
    with pytest.raises(ShapeError, match="save_image: `image` should be"):
        save_image(torch.zeros(3), tmp_path / "a.png")
    with pytest.raises(ShapeError):
        save_image(torch.zeros(3, 3, dtype=torch.uint8), tmp_path / "a.png")
    with pytest.raises(InputError, match=r"unsupported suffix '\.webp'"):
        save_image(torch.zeros(3, 3), tmp_path / "a.webp")
    with pytest.raises(FileAccessError, match="create the folder"):
        save_image(torch.zeros(3, 3), tmp_path / "none" / "a.png")


def test_heic_photos_that_cannot_be_read_say_what_to_do(tmp_path, monkeypatch):
    path = tmp_path / "IMG_0001.HEIC"
    path.write_bytes(b"\0\0\0\x24ftypheic" + bytes(200))
    with pytest.raises(FileFormatError, match="the HEIC photo cannot be decoded; save it as JPEG"):
        load_image(path)
    monkeypatch.setitem(sys.modules, "pi_heif", None)
    with pytest.raises(FileFormatError, match=r"pip install 'unrender\[photos\]', or save the photo as JPEG"):
        load_image(path)
