"""Folders of other programs that are not read, and how to convert them."""

from pathlib import Path

from unrender.io.images import IMAGE_SUFFIXES

NERFSTUDIO = "convert it with nerfstudio: `ns-process-data {kind} --data {path} --output-dir scene`"


def describe_unread(path: Path) -> str | None:
    """Return what a path without a scene holds, and the command that makes a scene of it; None if unknown."""
    if path.is_file():
        kinds = {".r3d": "record3d", ".zip": "polycam"}
        kind = kinds.get(path.suffix.lower())
        return None if kind is None else f"an export of {kind.title()}; {_nerfstudio(kind, path)}"
    if (path / "keyframes" / "images").is_dir():
        return f"a raw export of Polycam; {_nerfstudio('polycam', path)}"
    if (path / "rgbd").is_dir() or ((path / "metadata.json").is_file() and (path / "rgb").is_dir()):
        return f"an export of Record3D; {_nerfstudio('record3d', path)}"
    if any(path.glob("*.sens")):
        return (
            "a ScanNet scan; extract it with ScanNet's SensReader, and write a transforms.json of its poses"
        )
    if (path / "velodyne").is_dir() or (path / "velodyne_points").is_dir():
        return "a KITTI sequence; its scans (.bin) are point clouds for `unrender fit-mesh`"
    num_images = sum(file.suffix.lower() in IMAGE_SUFFIXES for file in path.iterdir())
    if num_images or (path / "images").is_dir():
        photos = path if num_images else path / "images"
        return f"images without cameras; estimate them with `unrender import {photos} --output scene`"
    return None


def _nerfstudio(kind: str, path: Path) -> str:
    return NERFSTUDIO.format(kind=kind, path=path)
