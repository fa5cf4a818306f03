"""Images, depth images, masks, photos, videos and volumes."""

import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from fuzzing import layouts
from fuzzing.kinds import Kind, Make, Read
from fuzzing.layouts import Layout
from unrender import (
    Camera,
    Volume,
    load_depth,
    load_image,
    load_photo,
    load_volume,
    render_volume,
    save_image,
    save_video,
    save_volume,
    window_transfer,
)
from unrender.io.exr import write_exr
from unrender.io.images import load_mask
from unrender.io.video_frames import save_sharpest_frames

SHAPE = (10, 12)
CAMERA = Camera.look_at([0.0, 1.0, 20.0], fov_degrees=50.0, height=8, width=8)
EXIF_FOCAL_35MM, EXIF_CAMERA = 0xA405, 0x8769


def _pixels(channels: int = 3) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (*SHAPE, channels), np.uint8)


def _depth() -> np.ndarray:
    rows, columns = np.mgrid[: SHAPE[0], : SHAPE[1]]
    return 800 + 2 * rows + columns


def _disc() -> np.ndarray:
    rows, columns = np.mgrid[: SHAPE[0], : SHAPE[1]]
    return ((rows - 5) ** 2 + (columns - 6) ** 2 < 14).astype(np.uint8) * 255


def _saving(values: np.ndarray, **options: object) -> Callable[[Path], None]:
    return lambda path: Image.fromarray(values).save(path, **options)


def _kind(name: str, file: str, save: Make, read: Read, layout: Layout = layouts.BINARY) -> Kind:
    return Kind(name, file, lambda folder: save(folder / file), lambda folder: read(folder / file), layout)


def _palette(path: Path) -> None:
    Image.fromarray(_pixels()).convert("P").save(path)


def _photo_jpeg(path: Path) -> None:
    image = Image.fromarray(_pixels())
    exif = image.getexif()
    exif.get_ifd(EXIF_CAMERA)[EXIF_FOCAL_35MM] = 28
    exif[0x0112] = 6
    image.save(path, exif=exif)


def _write_photo(folder: Path) -> None:
    _saving(_pixels())(folder / "p.png")
    _saving(_disc())(folder / "mask.png")
    np.save(folder / "depth.npy", _depth().astype(np.float32))


def _read_photo(folder: Path) -> object:
    return load_photo(
        folder / "p.png", fov_degrees=40.0, mask=folder / "mask.png", depth=folder / "depth.npy"
    )


def _photo(name: str, file: str, layout: Layout) -> Kind:
    return Kind(name, file, _write_photo, _read_photo, layout)


def _read_exif_photo(path: Path) -> object:
    mask = path.with_name("mask.png")
    _saving(np.ascontiguousarray(_disc().T))(mask)
    return load_photo(path, mask=mask)


def _video(path: Path) -> None:
    frames = torch.from_numpy(np.random.default_rng(0).random((6, 16, 16, 3), np.float32))
    save_video(list(frames), path)


def _read_video(path: Path) -> object:
    out = path.with_name("out")
    out.mkdir(exist_ok=True)
    return [load_image(saved) for saved in save_sharpest_frames(path, out, 3)]


def _volume(path: Path) -> None:
    density = torch.rand(4, 5, 6, generator=torch.Generator().manual_seed(0))
    matrix = torch.tensor(
        [[0.0, 1.0, 0.0, -3.0], [1.0, 0.0, 0.0, 2.0], [0.0, 0.0, 2.0, 1.0], [0.0, 0.0, 0.0, 1.0]]
    )
    save_volume(Volume(density, matrix), path)


def _read_volume(path: Path) -> object:
    volume = load_volume(path).to(torch.float32)
    output = render_volume(volume, window_transfer(volume), CAMERA)
    return volume.density, volume.world_from_volume, volume.volume_from_world, output.color, output.opacity


def _nifti2(path: Path) -> None:
    import nibabel

    nibabel.Nifti2Image(
        np.arange(24, dtype=np.int16).reshape(2, 3, 4), np.diag([1.0, 2.0, 3.0, 1.0])
    ).to_filename(path)


def _raw_nrrd(path: Path) -> None:
    import nrrd

    header = {"spacings": [1.0, 2.0, 3.0], "encoding": "raw"}
    nrrd.write(str(path), np.arange(24, dtype=np.uint8).reshape(2, 3, 4), header)


def _read_depth(path: Path) -> object:
    return load_depth(path, 20.0)


def _exr(path: Path) -> None:
    with path.open("wb") as file:
        write_exr(file, _depth().astype(np.float32))


def _packed_exr(path: Path, compression: str) -> None:
    import OpenEXR

    header = {"type": OpenEXR.scanlineimage, "compression": getattr(OpenEXR, f"{compression}_COMPRESSION")}
    with OpenEXR.File(header, {"R": _depth().astype(np.float16), "Z": _depth().astype(np.float32)}) as file:
        file.write(str(path))


KINDS = [
    _kind(
        "image-png", "i.png", lambda path: save_image(torch.rand(*SHAPE, 3), path), load_image, layouts.PNG
    ),
    _kind("image-png-alpha", "i.png", _saving(_pixels(4)), load_image, layouts.PNG),
    _kind("image-png-gray16", "i.png", _saving(_depth().astype(np.uint16)), load_image, layouts.PNG),
    _kind("image-png-palette", "i.png", _palette, load_image, layouts.PNG),
    _kind("image-jpg", "i.jpg", lambda path: save_image(torch.rand(*SHAPE, 3), path), load_image),
    _kind("image-tiff", "i.tif", _saving(_pixels()), load_image),
    _kind("image-tiff-float", "i.tif", _saving(_pixels(1)[..., 0].astype(np.float32) / 255), load_image),
    _kind("image-tiff-packed", "i.tif", _saving(_pixels(), compression="tiff_lzw"), load_image),
    _kind("image-webp", "i.webp", _saving(_pixels(4)), load_image),
    _kind("image-bmp", "i.bmp", _saving(_pixels()), load_image),
    _kind("mask-png", "m.png", _saving(_disc()), lambda path: load_mask(path, SHAPE), layouts.PNG),
    _kind("depth-png", "d.png", _saving(_depth().astype(np.uint16)), _read_depth, layouts.PNG),
    _kind("depth-tiff", "d.tif", _saving(_depth().astype(np.float32)), _read_depth),
    _kind(
        "depth-npy",
        "d.npy",
        lambda path: np.save(path, _depth().astype(np.float32)),
        _read_depth,
        layouts.NPY,
    ),
    _kind("depth-exr", "d.exr", _exr, _read_depth),
    _kind("depth-exr-zip", "d.exr", functools.partial(_packed_exr, compression="ZIP"), _read_depth),
    _kind("depth-exr-piz", "d.exr", functools.partial(_packed_exr, compression="PIZ"), _read_depth),
    _kind("photo-exif", "p.jpg", _photo_jpeg, _read_exif_photo),
    _photo("photo-image", "p.png", layouts.PNG),
    _photo("photo-mask", "mask.png", layouts.PNG),
    _photo("photo-depth", "depth.npy", layouts.NPY),
    _kind("video-mp4", "v.mp4", _video, _read_video),
    _kind("volume-npy", "v.npy", _volume, _read_volume, layouts.NPY),
    _kind("volume-nrrd", "v.nrrd", _volume, _read_volume, layouts.NRRD),
    _kind("volume-nrrd-raw", "v.nrrd", _raw_nrrd, _read_volume, layouts.NRRD),
    _kind("volume-nifti", "v.nii", _volume, _read_volume),
    _kind("volume-nifti-gzip", "v.nii.gz", _volume, _read_volume, layouts.GZIP),
    _kind("volume-nifti2", "v.nii", _nifti2, _read_volume),
]
