"""Textures of meshes: vertex colors and texture images."""

import copy
import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor
from torch.nn.functional import grid_sample, interpolate, pad

from unrender.compat.pytorch3d._names import refuse_unknown
from unrender.compat.pytorch3d._pickles import register, rows_of
from unrender.compat.pytorch3d.structures._rows import PrivateLayouts
from unrender.compat.pytorch3d.structures.utils import choose, list_to_padded, padded_to_list
from unrender.errors import InputError
from unrender.kernels.rasterize import Fragments as CoreFragments
from unrender.render.fragments import Hits, hits

if TYPE_CHECKING:
    from unrender.compat.pytorch3d.structures.meshes import Meshes

Device = torch.device | str
Members = Tensor | Sequence[Tensor]
Ids = Sequence[Sequence[Tensor]]


class TexturesBase(PrivateLayouts):
    """One texture for each mesh of a batch."""

    _lists: tuple[str, ...] = ()
    """Attributes that have an entry for each mesh."""
    _fitted, _along = "", "faces"
    """The one of them that has an entry for each face, or vertex, of a mesh."""

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take the state of a pickle, of this class or of PyTorch3D's."""
        if self._lists[0] in state:
            self.__dict__.update(state)
        else:
            self._from_theirs(state)

    def _from_theirs(self, state: dict[str, Any]) -> None:
        raise NotImplementedError

    def __len__(self) -> int:
        return len(getattr(self, self._lists[0]))

    @property
    def _N(self) -> int:  # noqa: N802
        return len(self)

    @property
    def valid(self) -> Tensor:
        """Which members have textures: all."""
        return torch.ones(len(self), dtype=torch.bool, device=self.device)

    @property
    def device(self) -> torch.device:
        """Device of the textures."""
        tensors: list[Tensor] = getattr(self, self._lists[0])
        return tensors[0].device if tensors else torch.device("cpu")

    def __getitem__(self, index: int | slice | Sequence[int] | Tensor) -> Self:
        indices = choose(index, len(self))
        return self._with(lambda members: [members[i] for i in indices])

    def extend(self, N: int) -> Self:
        """Repeat each texture N times."""
        if N < 1:
            raise InputError(f"{type(self).__name__}.extend: `N` should be at least 1, got {N}")
        return self[[i for i in range(len(self)) for _ in range(N)]]

    def map(self, function: Callable[[Tensor], Tensor]) -> Self:
        """Apply a function to all tensors."""
        return self._with(lambda members: [function(t) for t in members])

    def clone(self) -> Self:
        """Copy all tensors."""
        return self.map(torch.clone)

    def detach(self) -> Self:
        """Detach all tensors from the autograd graph."""
        return self.map(torch.detach)

    def to(self, device: Device) -> Self:
        """Move to a device."""
        return self.map(lambda tensor: tensor.to(device))

    def _with(self, change: Callable[[list[Tensor]], list[Tensor]]) -> Self:
        other = copy.copy(self)
        for name in self._lists:
            setattr(other, name, change(getattr(self, name)))
        return other

    def join_batch(self, textures: Sequence[Any]) -> Self:
        """Concatenate textures of one kind."""
        other = copy.copy(self)
        for name in self._lists:
            setattr(other, name, [t for one in (self, *textures) for t in getattr(one, name)])
        return other

    def join_scene(self) -> "TexturesBase":
        """Join all textures into one, for the meshes as one mesh."""
        raise NotImplementedError

    def submeshes(self, vertex_ids: Ids, faces_ids: Ids) -> "TexturesBase":
        """Return the textures of parts of the meshes: their vertices, and their faces."""
        raise NotImplementedError

    def isempty(self) -> bool:
        """Return whether there are no textures."""
        return len(self) == 0

    def check(self, meshes: "Meshes") -> None:
        """Raise InputError for meshes that do not match the textures; drop the padding of the textures."""
        self.fit(meshes)

    def fit(self, meshes: "Meshes") -> None:
        """Check the number of entries only, and drop padding: this reads no values, so a GPU need not wait."""
        counts = [len(rows) for rows in getattr(meshes, f"{self._along}_list")()]
        rows = getattr(self, self._fitted)
        sizes = [len(one) for one in rows]
        padded = len(set(sizes)) == 1
        if len(sizes) != len(counts) or any(
            size < n or (size > n and not padded) for size, n in zip(sizes, counts, strict=True)
        ):
            raise InputError(
                f"Meshes: textures for {sizes} {self._along} do not match the dimensions of meshes with {counts}"
            )
        if sizes != counts:
            setattr(self, self._fitted, [one[:n] for one, n in zip(rows, counts, strict=True)])

    def sample_textures(self, fragments: Any, faces_packed: Tensor | None = None) -> Tensor:
        """Return the color of each fragment [N, H, W, K, C], 0 in empty slots."""
        raise NotImplementedError


class TexturesVertex(TexturesBase):
    """Colors, or any features, at the vertices: [N, V, D] or a list of [V, D]."""

    _lists = ("_features",)
    _fitted, _along = "_features", "verts"

    def __init__(self, verts_features: Members) -> None:
        self._features = list(verts_features)
        if not _have(self._features, 2):
            raise InputError("TexturesVertex: `verts_features` should be [N, V, D], or a list of [V, D]")

    def _from_theirs(self, state: dict[str, Any]) -> None:
        self.__init__(rows_of(state, "verts_features", state.get("_num_verts_per_mesh")))  # type: ignore[misc]

    def verts_features_list(self) -> list[Tensor]:
        """Return the features of each mesh."""
        return self._features

    def verts_features_packed(self) -> Tensor:
        """Return the features of all vertices in one tensor."""
        return torch.cat(self._features) if self._features else torch.zeros(0, 3)

    def verts_features_padded(self) -> Tensor:
        """Return the features of all meshes, padded with zeros."""
        return list_to_padded(self._features) if self._features else torch.zeros(0, 0, 3)

    def faces_verts_textures_packed(self, faces_packed: Tensor) -> Tensor:
        """Return the features of the corners of all faces [faces, 3, D]."""
        return self.verts_features_packed()[faces_packed]

    def submeshes(self, vertex_ids: Ids, faces_ids: Ids) -> "TexturesVertex":
        """Return the features of parts of the meshes."""
        pairs = zip(self._features, vertex_ids, strict=True)
        return TexturesVertex([rows[ids] for rows, many in pairs for ids in many])

    def join_scene(self) -> "TexturesVertex":
        """Join all textures into one, for the meshes as one mesh."""
        return TexturesVertex([self.verts_features_packed()])

    def sample_textures(self, fragments: Any, faces_packed: Tensor | None = None) -> Tensor:
        """Interpolate the features at each fragment [N, H, W, K, D], 0 in empty slots."""
        if faces_packed is None:
            raise InputError("TexturesVertex.sample_textures: needs `faces_packed`")
        rows = _rows(fragments)
        return rows.scatter(rows.interpolate(faces_packed, self.verts_features_packed()))


class TexturesUV(TexturesBase):
    """Texture images [H, W, C] and the uv coordinates of face corners: (0, 0) is lower left, (1, 1) upper right.

    With `align_corners` these are the centers of the outermost texels, else the corners of the image.
    """

    _lists: tuple[str, ...] = ("_maps", "_faces_uvs", "_verts_uvs")
    _fitted = "_faces_uvs"

    def __init__(
        self,
        maps: Members,
        faces_uvs: Members,
        verts_uvs: Members,
        *,
        padding_mode: str = "border",
        align_corners: bool = True,
        sampling_mode: str = "bilinear",
        maps_ids: Members | None = None,
    ) -> None:
        self._maps, self._verts_uvs = list(maps), list(verts_uvs)
        self._faces_uvs = [uvs.long() if isinstance(uvs, Tensor) else uvs for uvs in faces_uvs]
        self._maps_ids = [] if maps_ids is None else [ids.long() for ids in maps_ids]
        if maps_ids is not None:
            self._lists = (*self._lists, "_maps_ids")
        self.padding_mode, self.align_corners, self.sampling_mode = padding_mode, align_corners, sampling_mode
        sizes = {len(getattr(self, name)) for name in self._lists}
        fits = _have(self._faces_uvs, 2, 3) and _have(self._verts_uvs, 2, 2)
        if len(sizes) > 1 or not fits or not _have(self._maps, 3 if maps_ids is None else 4):
            raise InputError(
                "TexturesUV: `maps` should be [N, H, W, C], `faces_uvs` [N, F, 3] and `verts_uvs` [N, V, 2], or lists; "
                "with `maps_ids` [N, F], `maps` should be [N, M, H, W, C]"
            )

    def check(self, meshes: "Meshes") -> None:
        """Raise InputError for meshes with other numbers of faces, and for indices out of range; drop padding."""
        super().check(meshes)
        for i, (corners, uvs) in enumerate(zip(self._faces_uvs, self._verts_uvs, strict=True)):
            if bool(((corners < -len(uvs)) | (corners >= len(uvs))).any()):
                raise InputError(f"TexturesUV: `faces_uvs` of mesh {i} should be 0 to {len(uvs) - 1}")

    def _from_theirs(self, state: dict[str, Any]) -> None:
        counts = state.get("_num_faces_per_mesh")
        maps, uvs = rows_of(state, "maps", None), rows_of(state, "verts_uvs", None)
        names = ("padding_mode", "align_corners", "sampling_mode")
        settings = {name: state[name] for name in names if name in state}
        self.__init__(maps, rows_of(state, "faces_uvs", counts), uvs, **settings)  # type: ignore[misc]

    def maps_ids_list(self) -> list[Tensor] | None:
        """Return the map of each face, where meshes have several maps."""
        return self._maps_ids or None

    def maps_ids_padded(self) -> Tensor | None:
        """Return `maps_ids_list`, padded with zeros."""
        return list_to_padded(self._maps_ids) if self._maps_ids else None

    def maps_list(self) -> list[Tensor]:
        """Return the texture image of each mesh."""
        return self._maps

    def maps_padded(self) -> Tensor:
        """Return the texture images of all meshes, those of other sizes resized to the largest height and width."""
        return torch.stack(self._resized()) if self._maps else torch.zeros(0, 0, 0, 3)

    def _resized(self) -> list[Tensor]:
        """Return the texture images in one size, in which they are sampled too."""
        if len({image.shape[:-1] for image in self._maps}) <= 1 or self._maps_ids:
            return self._maps
        size = [max(image.shape[axis] for image in self._maps) for axis in (0, 1)]
        return [
            interpolate(image.movedim(-1, 0)[None], size, mode="bilinear", align_corners=self.align_corners)[
                0
            ].movedim(0, -1)
            for image in self._maps
        ]

    def num_faces_per_mesh(self) -> list[int]:
        """Return the number of faces of each mesh."""
        return [len(corners) for corners in self._faces_uvs]

    def faces_uvs_list(self) -> list[Tensor]:
        """Return the indices of each mesh's face corners into its uvs."""
        return self._faces_uvs

    def faces_uvs_padded(self) -> Tensor:
        """Return `faces_uvs_list`, padded with zeros."""
        return list_to_padded(self._faces_uvs) if self._faces_uvs else torch.zeros(0, 0, 3)

    def verts_uvs_list(self) -> list[Tensor]:
        """Return the uv coordinates of each mesh."""
        return self._verts_uvs

    def verts_uvs_padded(self) -> Tensor:
        """Return the uv coordinates of all meshes, padded with zeros."""
        return list_to_padded(self._verts_uvs) if self._verts_uvs else torch.zeros(0, 0, 2)

    def join_scene(self) -> "TexturesUV":
        """Pack the texture images vertically, for the meshes as one mesh.

        Each has a border as its padding, so that colors do not bleed: its outermost texels again, or zeros.
        """
        if self.padding_mode not in ("border", "zeros") or self.sampling_mode != "bilinear":
            raise InputError(
                "TexturesUV.join_scene: only textures with 'border' or 'zeros' padding and 'bilinear' sampling can be "
                "joined"
            )
        images = self._resized()
        width = max(image.shape[1] for image in images) + 2
        bordered = [_border(image, width, self.padding_mode) for image in images]
        height, top, uvs, faces, start = sum(len(image) for image in bordered), 0, [], [], 0
        for image, tall, positions, corners in zip(
            images, bordered, self._verts_uvs, self._faces_uvs, strict=True
        ):
            size = positions.new_tensor([image.shape[1], image.shape[0]])
            lost = 1 if self.align_corners else 0
            texel = positions * (size - lost) + lost / 2  # from the lower left corner of the image
            texel = texel.clamp(min=-0.5).minimum(size + 0.5)  # the centers of the border
            texel = texel + positions.new_tensor([1.0, height - top - 1 - image.shape[0]])
            uvs.append(texel / positions.new_tensor([width, height]))
            faces.append(corners.remainder(max(len(positions), 1)) + start)
            start, top = start + len(positions), top + len(tall)
        return TexturesUV([torch.cat(bordered)], [torch.cat(faces)], [torch.cat(uvs)], align_corners=False)

    def sample_textures(self, fragments: Any, faces_packed: Tensor | None = None) -> Tensor:
        """Sample the texture images at each fragment [N, H, W, K, C], 0 in empty slots."""
        rows = _rows(fragments)
        starts = [0, *torch.tensor([len(uvs) for uvs in self._verts_uvs]).cumsum(0).tolist()]
        triples = zip(self._faces_uvs, self._verts_uvs, starts, strict=False)
        corners = torch.cat([ids.remainder(max(len(uvs), 1)) + start for ids, uvs, start in triples])
        uvs = rows.interpolate(corners, torch.cat(self._verts_uvs))
        counts = torch.bincount(rows.image_ids, minlength=len(self)).tolist()
        if self._maps_ids:
            return rows.scatter(self._from_several(uvs, torch.cat(self._maps_ids)[rows.face_ids], counts))
        images = self._resized()
        texels = [self.read(image, part) for image, part in zip(images, uvs.split(counts), strict=True)]
        return rows.scatter(torch.cat(texels))

    def _from_several(self, uvs: Tensor, ids: Tensor, counts: list[int]) -> Tensor:
        """Sample the map of each point's face."""
        texels = []
        for maps, positions, chosen in zip(self._maps, uvs.split(counts), ids.split(counts), strict=True):
            found = torch.stack([self.read(image, positions) for image in maps])
            texels.append(found.gather(0, chosen[None, :, None].expand(1, -1, found.shape[2]))[0])
        return torch.cat(texels)

    def faces_verts_textures_packed(self) -> Tensor:
        """Return the texels at the corners of all faces [faces, 3, C]."""
        sampled = []
        for i, (image, uvs, corners) in enumerate(
            zip(self._resized(), self._verts_uvs, self._faces_uvs, strict=True)
        ):
            positions = uvs[corners.flatten()]
            if self._maps_ids:
                ids = self._maps_ids[i].repeat_interleave(3)
                found = torch.stack([self.read(one, positions) for one in image])
                texels = found[ids, torch.arange(len(ids), device=ids.device)]
            else:
                texels = self.read(image, positions)
            sampled.append(texels.view(-1, 3, texels.shape[-1]))
        return torch.cat(sampled)

    def submeshes(self, vertex_ids: Ids, faces_ids: Ids) -> "TexturesUV":
        """Return the textures of parts of the meshes, which share maps and uvs."""
        if self._maps_ids:
            raise NotImplementedError("TexturesUV.submeshes: not for several maps of one mesh")
        counts = [len(many) for many in faces_ids]
        other = self[[i for i, n in enumerate(counts) for _ in range(n)]]
        pairs = zip(self._faces_uvs, faces_ids, strict=True)
        other._faces_uvs = [uvs[ids] for uvs, many in pairs for ids in many]
        return other

    def centers_for_image(self, index: int) -> Tensor:
        """Return the position [V, 2], x and y in texels, of each uv coordinate in a texture image."""
        height, width = self._resized()[index].shape[-3:-1]
        uvs = self._verts_uvs[index].detach().cpu()
        lost = 1 if self.align_corners else 0
        x = uvs[:, 0] * (width - lost) - (1 - lost) / 2
        y = (1 - uvs[:, 1]) * (height - lost) - (1 - lost) / 2
        return torch.stack([x, y], 1)

    def centroid_textures(self) -> Tensor:
        """Return the texel at the center of each face."""
        triples = zip(self._resized(), self._verts_uvs, self._faces_uvs, strict=True)
        return torch.cat([self.read(image, uvs[corners].mean(1)) for image, uvs, corners in triples])

    def read(self, image: Tensor, uvs: Tensor) -> Tensor:
        """Sample a texture image at uv coordinates [P, 2]."""
        grid = (uvs * 2 - 1) * uvs.new_tensor([1.0, -1.0])
        channels_first = image.movedim(-1, 0)[None].to(uvs)
        found = grid_sample(
            channels_first,
            grid[None, None],
            mode=self.sampling_mode,
            padding_mode=self.padding_mode,
            align_corners=self.align_corners,
        )
        return found[0, :, 0].mT


class TexturesAtlas(TexturesBase):
    """A small square texture of each face: [N, F, R, R, D] or a list of [F, R, R, D]."""

    _lists = ("_atlas",)
    _fitted = "_atlas"

    def __init__(self, atlas: Members) -> None:
        self._atlas = list(atlas)
        if not _have(self._atlas, 4) or any(one.shape[1] != one.shape[2] for one in self._atlas):
            raise InputError("TexturesAtlas: `atlas` should be [N, F, R, R, D], or a list of [F, R, R, D]")

    def _from_theirs(self, state: dict[str, Any]) -> None:
        self.__init__(rows_of(state, "atlas", state.get("_num_faces_per_mesh")))  # type: ignore[misc]

    def num_faces_per_mesh(self) -> list[int]:
        """Return the number of faces of each mesh."""
        return [len(one) for one in self._atlas]

    def atlas_list(self) -> list[Tensor]:
        """Return the atlas of each mesh."""
        return self._atlas

    def atlas_packed(self) -> Tensor:
        """Return the textures of all faces in one tensor."""
        return torch.cat(self._atlas) if self._atlas else torch.zeros(0, 0, 0, 3)

    def atlas_padded(self) -> Tensor:
        """Return the atlas of all meshes, padded with zeros."""
        return list_to_padded(self._atlas) if self._atlas else torch.zeros(0, 0, 0, 0, 3)

    def faces_verts_textures_packed(self) -> Tensor:
        """Return the texels at the corners of all faces [faces, 3, D]."""
        atlas = self.atlas_packed()
        return torch.stack([atlas[:, 0, -1], atlas[:, -1, 0], atlas[:, 0, 0]], 1)

    def join_scene(self) -> "TexturesAtlas":
        """Join all textures into one, for the meshes as one mesh."""
        return TexturesAtlas([self.atlas_packed()])

    def submeshes(self, vertex_ids: Ids, faces_ids: Ids) -> "TexturesAtlas":
        """Return the textures of parts of the meshes."""
        return TexturesAtlas(
            [one[ids] for one, many in zip(self._atlas, faces_ids, strict=True) for ids in many]
        )

    def sample_textures(self, fragments: Any, faces_packed: Tensor | None = None) -> Tensor:
        """Return the nearest texel at each fragment [N, H, W, K, D], 0 in empty slots."""
        atlas, ids = self.atlas_packed(), fragments.pix_to_face
        size = atlas.shape[1]
        scaled = fragments.bary_coords.detach()[..., :2] * size
        cell = scaled.long().clamp(0, size - 1)
        upright = (scaled - cell).sum(-1, keepdim=True) <= 1
        cell = torch.where(upright, cell, size - 1 - cell)
        texels: Tensor = atlas[ids.clamp(min=0), cell[..., 1], cell[..., 0]]
        return torch.where((ids >= 0)[..., None], texels, 0)


def Textures(  # noqa: N802
    maps: Members | None = None,
    faces_uvs: Members | None = None,
    verts_uvs: Members | None = None,
    verts_rgb: Members | None = None,
) -> TexturesBase:
    """Make `TexturesUV` or `TexturesVertex`: an earlier name of both."""
    warnings.warn(
        "Textures is deprecated: use TexturesUV, TexturesVertex or TexturesAtlas", FutureWarning, stacklevel=2
    )
    if maps is not None and faces_uvs is not None and verts_uvs is not None:
        return TexturesUV(maps, faces_uvs, verts_uvs)
    if verts_rgb is not None:
        return TexturesVertex(verts_rgb)
    raise InputError("Textures: takes maps, faces_uvs and verts_uvs, or verts_rgb")


def _have(members: Sequence[Any], axes: int, columns: int | None = None) -> bool:
    """Return whether all members are tensors with a number of axes, and of columns."""
    tensors = all(isinstance(t, Tensor) and t.dim() == axes for t in members)
    return tensors and (columns is None or all(t.shape[-1] == columns for t in members))


_list_to_padded_wrapper = list_to_padded
_padded_to_list_wrapper = padded_to_list


def _border(image: Tensor, width: int, padding_mode: str) -> Tensor:
    """Repeat the outermost texels, or zeros, once on all sides and to the right up to a width."""
    if padding_mode == "zeros":
        return pad(image, (0, 0, 1, width - 1 - image.shape[1], 1, 1))
    rows = torch.cat([image[:1], image, image[-1:]])
    last = rows[:, -1:].expand(-1, width - 1 - image.shape[1], -1)
    return torch.cat([rows[:, :1], rows, last], 1)


def _rows(fragments: Any) -> Hits:
    ids, weights = fragments.pix_to_face, fragments.bary_coords
    return hits(CoreFragments(ids, weights, weights[..., 0], weights[..., 0]))


register(__name__)


def __getattr__(name: str) -> Any:
    """Return functions that are defined in `utils`, which needs this module."""
    if name in ("pack_rectangles", "pack_unique_rectangles", "Rectangle"):
        from unrender.compat.pytorch3d.renderer.mesh import utils

        return getattr(utils, name)
    return refuse_unknown(__name__)(name)
