"""OFF, the Object File Format, with colors of vertices or faces."""

import re
import warnings
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unrender.compat.pytorch3d._names import refuse_unknown
from unrender.compat.pytorch3d.io._polygons import fan_corners
from unrender.compat.pytorch3d.io._sources import Source, read_source, reading_source, writing
from unrender.compat.pytorch3d.io.pluggable_formats import MeshFormatInterpreter, endswith
from unrender.compat.pytorch3d.renderer.mesh.textures import TexturesAtlas, TexturesBase, TexturesVertex
from unrender.compat.pytorch3d.structures.meshes import Meshes
from unrender.errors import FileFormatError
from unrender.io.lines import parse_ragged, parse_rows, split_lines
from unrender.io.off import read_off

Device = torch.device | str


class MeshOffFormat(MeshFormatInterpreter):
    """Meshes in OFF files: colors of vertices are `TexturesVertex`, those of faces `TexturesAtlas` of one texel."""

    def __init__(self) -> None:
        self.known_suffixes = (".off",)

    def read(
        self, path: Source, include_textures: bool, device: Device, path_manager: Any = None, **kwargs: Any
    ) -> Meshes | None:
        """Load a mesh, or return None for a file of another kind."""
        if not endswith(path, self.known_suffixes):
            return None
        data = read_source(path)
        with reading_source(path):
            verts, faces, vertex_colors, face_colors = _parse(data)
        textures: TexturesBase | None = None
        if include_textures and vertex_colors is not None:
            if face_colors is not None:
                warnings.warn("Faces colors ignored because vertex colors provided too.", stacklevel=2)
            textures = TexturesVertex([vertex_colors.to(device)])
        elif include_textures and face_colors is not None:
            textures = TexturesAtlas([face_colors[:, None, None].to(device)])
        return Meshes([verts.to(device)], [faces.to(device)], textures)

    def save(
        self,
        data: Meshes,
        path: Source,
        path_manager: Any = None,
        binary: bool | None = None,
        decimal_places: int | None = None,
        **kwargs: Any,
    ) -> bool:
        """Save the first mesh, or return False for a path of another kind."""
        if not endswith(path, self.known_suffixes):
            return False
        verts, faces = data.get_mesh_verts_faces(0)
        textures = data.textures if kwargs.get("include_textures", True) else None
        rows, triangles = (t.detach().cpu().double() for t in (verts, faces))
        digits = "%.9g" if decimal_places is None else f"%.{decimal_places}f"
        corners = ["3", "%d", "%d", "%d"]
        if isinstance(textures, TexturesVertex):
            rows = torch.cat([rows, textures.verts_features_list()[0].detach().cpu()], 1)
        elif isinstance(textures, TexturesAtlas) and textures.atlas_list()[0].shape[1] == 1:
            colors = textures.atlas_list()[0][:, 0, 0].detach().cpu()
            triangles = torch.cat([triangles, colors], 1)
            corners += ["%f"] * colors.shape[1]
        with writing(path) as file:
            file.write(f"off\n{len(verts)} {len(faces)} 0\n".encode())
            np.savetxt(file, rows.numpy(), digits)
            np.savetxt(file, triangles.numpy(), " ".join(corners))
        return True


def _parse(data: bytes) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
    """Return vertices, faces, and the colors of vertices and of faces."""
    lines = [(i, line.partition("#")[0]) for i, line in enumerate(split_lines(data), 1)]
    lines = [(i, line) for i, line in lines if line.strip()]
    start = re.match(r"\s*(?:off)?(?=\s*(?:\d|$))", lines[0][1], re.IGNORECASE) if lines else None
    if start is None:  # COFF, NOFF, and files of another format
        found = read_off(data)
        triangles = np.empty((0, 3), np.int64) if found.faces is None else found.faces
        arrays = [found.points.astype(np.float32), triangles, found.colors, None]
        return tuple(None if a is None else torch.from_numpy(np.ascontiguousarray(a)) for a in arrays)  # type: ignore[return-value]
    # the keyword may be missing, or on a line of its own
    lines[0] = (lines[0][0], lines[0][1][start.end() :])
    lines = lines if lines[0][1].strip() else lines[1:]
    counts, lines = lines[0][1].split() if lines else [], lines[1:]
    if len(counts) < 3 or not all(word.isdecimal() for word in counts[:2]):
        raise FileFormatError(f"Invalid counts line: {' '.join(counts)[:40]}")
    num_verts, num_faces = int(counts[0]), int(counts[1])
    numbers, texts = [i for i, _ in lines], [line for _, line in lines]
    table = parse_rows(texts[:num_verts], numbers[:num_verts]).astype(np.float32)
    if len(lines) < num_verts:
        raise FileFormatError("Not enough vertex data")
    if num_verts and table.shape[1] not in (3, 6, 7):
        raise FileFormatError(f"Bad vertex data. A vertex has 3, 6 or 7 numbers, got {table.shape[1]}")
    faces, face_colors = _faces(texts[num_verts:][:num_faces], numbers[num_verts:], num_verts)
    if len(lines) < num_verts + num_faces:
        raise FileFormatError(
            f"Not enough face data. Expected {num_faces} faces, got {len(lines) - num_verts}"
        )
    if len(lines) > num_verts + num_faces:
        raise FileFormatError(
            f"line {lines[num_verts + num_faces][0]}: Extra data at end of file: {texts[-1]}"
        )
    whole = num_verts and texts[0].count(".") == 3
    vertex_colors = _colors(table[:, 3:], bool(whole))
    return torch.from_numpy(table[:, :3].reshape(-1, 3).copy()), faces, vertex_colors, face_colors


def _faces(texts: list[str], numbers: list[int], num_verts: int) -> tuple[Tensor, Tensor | None]:
    """Read faces such as `3 0 1 2`, with 0, 3 or 4 numbers of a color behind them."""
    if not texts:
        return torch.empty(0, 3, dtype=torch.int64), None
    flat, widths = parse_ragged(texts, numbers)
    starts = np.cumsum(widths) - widths
    sizes = flat[starts].astype(np.int64)
    channels = widths - 1 - sizes
    for wrong, message in (
        (sizes < 3, "Faces must have at least 3 vertices."),
        (channels < 0, "A line of face data did not have the specified length."),
        ((channels != channels[0]) | ~np.isin(channels, (0, 3, 4)), "Unexpected number of colors."),
    ):
        if wrong.any():
            raise FileFormatError(f"line {numbers[int(wrong.argmax())]}: {message}")
    step = np.arange(sizes.sum()) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    corners = flat[np.repeat(starts + 1, sizes) + step].astype(np.int64)
    if corners.size and not (corners.min() >= 0 and corners.max() < num_verts):
        raise FileFormatError(f"faces index vertices {corners.min()} to {corners.max()} of {num_verts}")
    triangles, owner = fan_corners(sizes), np.repeat(np.arange(len(sizes)), sizes - 2)
    if (sizes == sizes[0]).all():  # the first triangle of every polygon, then the second
        order = np.arange(len(owner)).reshape(len(sizes), -1).T.flatten()
        triangles, owner = triangles[order], owner[order]
    rows = (starts + 1 + sizes)[owner][:, None] + np.arange(channels[0])
    return torch.from_numpy(corners[triangles]), _colors(flat[rows].astype(np.float32), "." not in texts[0])


def _colors(values: Any, whole: bool) -> Tensor | None:
    """Return colors; those without a decimal point are 0 to 255."""
    return torch.from_numpy(values / np.float32(255 if whole else 1)) if values.shape[1] else None


__getattr__ = refuse_unknown(__name__)
