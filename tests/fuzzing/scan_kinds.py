"""Files of scanners and RGB-D cameras."""

import json
from pathlib import Path

import numpy as np

from fuzzing import layouts
from fuzzing.geometry_kinds import _glb, _textured
from fuzzing.kinds import Kind, Make
from fuzzing.layouts import Layout
from fuzzing.scene_kinds import _read_scene
from scene_files import HEIGHT, WIDTH, pixels, write_image
from unrender import load_cloud

POINTS = np.random.default_rng(0).random((40, 3))


def _cloud(name: str, file: str, save: Make, layout: Layout = layouts.BINARY) -> Kind:
    return Kind(
        f"cloud-{name}",
        file,
        lambda folder: save(folder / file),
        lambda folder: load_cloud(folder / file),
        layout,
    )


def _las(path: Path) -> None:
    import laspy

    las = laspy.LasData(laspy.LasHeader(point_format=2, version="1.2"))
    las.x, las.y, las.z = POINTS.T
    las.red = las.green = las.blue = np.arange(len(POINTS)) * 1000
    las.write(str(path))


def _e57(path: Path) -> None:
    import pye57

    file = pye57.E57(str(path), mode="w")
    file.write_scan_raw(dict(zip(("cartesianX", "cartesianY", "cartesianZ"), POINTS.T, strict=True)))
    file.close()


def _kitti(path: Path) -> None:
    path.write_bytes(np.hstack([POINTS, POINTS[:, :1]]).astype("<f4").tobytes())


def _ptx(path: Path) -> None:
    pose = "0 0 0\n1 0 0\n0 1 0\n0 0 1\n1 0 0 0\n0 1 0 0\n0 0 1 0\n0 0 0 1\n"
    rows = "\n".join(f"{x:.4f} {y:.4f} {z:.4f} 0.5 255 0 10" for x, y, z in POINTS)
    path.write_text(f"8\n5\n{pose}{rows}\n")


def _esri(path: Path) -> None:
    rows = "\n".join("1.5 2.5 -9999 3.25" for _ in range(3))
    header = "ncols 4\nnrows 3\nxllcorner 100\nyllcorner 200\ncellsize 2\nNODATA_value -9999\n"
    path.write_text(header + rows + "\n")


def _write_gltf(folder: Path) -> None:
    """Write the parts of a GLB file as files of their own."""
    text, body = (part.data for part in layouts.GLB.open(_glb("t.png")))
    header = json.loads(text)
    header["buffers"][0] |= {"uri": "m.bin", "byteLength": len(body)}
    (folder / "m.gltf").write_text(json.dumps(header))
    (folder / "m.bin").write_bytes(body)
    write_image(folder / "t.png", pixels(0))


def _write_tum(folder: Path) -> None:
    for i in range(3):
        write_image(folder / "rgb" / f"{i}.png", pixels(i, 3, (480, 640)))
        write_image(folder / "depth" / f"{i}.png", np.full((480, 640), 5000, np.uint16))
    for name in ("rgb", "depth"):
        (folder / f"{name}.txt").write_text(
            "# t file\n" + "".join(f"{i}.0 {name}/{i}.png\n" for i in range(3))
        )
    rows = "".join(f"{i}.0 {i}.0 0 1 0 0 0 1\n" for i in range(3))
    (folder / "groundtruth.txt").write_text("# t tx ty tz qx qy qz qw\n" + rows)


def _write_bop(folder: Path) -> None:
    k = [20.0, 0.0, WIDTH / 2, 0.0, 20.0, HEIGHT / 2, 0.0, 0.0, 1.0]
    cameras, poses = {}, {}
    for i in range(3):
        write_image(folder / "rgb" / f"{i:06d}.png", pixels(i))
        write_image(folder / "depth" / f"{i:06d}.png", np.full((HEIGHT, WIDTH), 900, np.uint16))
        pose = {"cam_R_w2c": np.eye(3).ravel().tolist(), "cam_t_w2c": [100.0 * i, 0.0, 500.0]}
        cameras[str(i)] = {"cam_K": k, "depth_scale": 1.0, **pose}
        poses[str(i)] = [
            {"cam_R_m2c": np.eye(3).ravel().tolist(), "cam_t_m2c": [100.0 * i, 0.0, 500.0], "obj_id": 1}
        ]
    (folder / "scene_camera.json").write_text(json.dumps(cameras))
    (folder / "scene_gt.json").write_text(json.dumps(poses))


KINDS = [
    _cloud("las", "c.las", _las),
    _cloud("laz", "c.laz", _las),
    _cloud("e57", "c.e57", _e57),
    _cloud("kitti", "c.bin", _kitti),
    _cloud("ptx", "c.ptx", _ptx, layouts.TEXT),
    _cloud("esri", "c.asc", _esri, layouts.TEXT),
    Kind("mesh-gltf", "m.gltf", _write_gltf, lambda folder: _textured(folder / "m.gltf"), layouts.JSON),
    Kind(
        "mesh-gltf-buffer", "m.bin", _write_gltf, lambda folder: _textured(folder / "m.gltf"), layouts.BINARY
    ),
    Kind("scene-tum", "groundtruth.txt", _write_tum, _read_scene, layouts.TEXT),
    Kind("scene-tum-list", "depth.txt", _write_tum, _read_scene, layouts.TEXT),
    Kind("scene-bop", "scene_camera.json", _write_bop, _read_scene, layouts.JSON),
]
