"""`Meshes`: a batch of meshes in three layouts: list, padded and packed."""

import copy
import itertools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor

from unrender.compat.pytorch3d._names import refuse_unknown
from unrender.compat.pytorch3d._pickles import register, rows_of
from unrender.compat.pytorch3d.structures._rows import PrivateLayouts, Rows
from unrender.compat.pytorch3d.structures.utils import choose, first_rows, list_to_padded, member_of_rows
from unrender.errors import InputError
from unrender.geometry.mesh import Mesh, face_areas, face_normals, vertex_normals
from unrender.geometry.topology import topology
from unrender.kernels._incidence import record_copy

if TYPE_CHECKING:
    from unrender.compat.pytorch3d.renderer.mesh.textures import TexturesBase

Device = torch.device | str


class Meshes(PrivateLayouts):
    """Meshes of different topologies; each is a `Mesh` of unrender (`core`).

    Stored as lists; padded and packed tensors are built on demand.
    """

    def __init__(
        self,
        verts: Sequence[Tensor] | Tensor,
        faces: Sequence[Tensor] | Tensor,
        textures: "TexturesBase | None" = None,
        *,
        verts_normals: Sequence[Tensor] | Tensor | None = None,
    ) -> None:
        for name, given in (("verts", verts), ("faces", faces)):
            fits = given.dim() == 3 if isinstance(given, Tensor) else isinstance(given, list | tuple)
            if not fits or any(t.dim() != 2 and t.numel() for t in given):
                raise InputError(f"Meshes: `{name}` should be [N, rows, 3] or a list of [rows, 3]")
        self._verts = Rows(verts)
        self._faces = _without_padding(faces) if isinstance(faces, Tensor) else [_triangles(f) for f in faces]
        if len(self) != len(self._faces):
            raise InputError(f"Meshes: {len(self)} sets of vertices, but {len(self._faces)} of faces")
        self._normals = None if verts_normals is None else _normals(verts_normals, self._verts.counts)
        self.textures = textures
        if textures is not None:
            textures.check(self)

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take the state of a pickle, of this class or of PyTorch3D's."""
        if "_verts" in state:
            self.__dict__.update(state)
            return
        verts = rows_of(state, "verts", state.get("_num_verts_per_mesh"))
        faces = rows_of(state, "faces", state.get("_num_faces_per_mesh"))
        self.__init__(verts, faces, state.get("textures"))  # type: ignore[misc]

    @property
    def device(self) -> torch.device:
        """Device of the vertices."""
        return self._verts.device

    @property
    def _N(self) -> int:  # noqa: N802
        return len(self)

    @property
    def _V(self) -> int:  # noqa: N802
        return max(self._verts.counts, default=0)

    @property
    def _F(self) -> int:  # noqa: N802
        return max((len(f) for f in self._faces), default=0)

    @property
    def equisized(self) -> bool:
        """Whether all meshes have the same numbers of vertices and faces."""
        return len({(n, len(f)) for n, f in zip(self._verts.counts, self._faces, strict=True)}) <= 1

    @property
    def valid(self) -> Tensor:
        """Which meshes have vertices and faces."""
        pairs = zip(self._verts.counts, self._faces, strict=True)
        return torch.tensor([n > 0 and len(f) > 0 for n, f in pairs], dtype=torch.bool, device=self.device)

    def core(self) -> list[Mesh]:
        """Return the meshes as `Mesh`, without colors."""
        return [Mesh(v, f) for v, f in zip(self._verts.list(), self._faces, strict=True)]

    def __len__(self) -> int:
        return len(self._verts.counts)

    def __getitem__(self, index: int | slice | Sequence[int] | Tensor) -> "Meshes":
        members = choose(index, len(self))
        textures = None if self.textures is None else self.textures[members]
        normals = None if self._normals is None else [self._normals.list()[i] for i in members]
        verts = self._verts.list()
        return Meshes(
            [verts[i] for i in members],
            [self._faces[i] for i in members],
            textures,
            verts_normals=normals,
        )

    def isempty(self) -> bool:
        """Return whether no mesh has vertices and faces."""
        return not any(n and len(f) for n, f in zip(self._verts.counts, self._faces, strict=True))

    # three layouts

    def verts_list(self) -> list[Tensor]:
        """Return the vertices of each mesh."""
        return self._verts.list()

    def faces_list(self) -> list[Tensor]:
        """Return the faces of each mesh."""
        return self._faces

    def verts_packed(self) -> Tensor:
        """Return all vertices in one tensor."""
        return self._verts.packed()

    def faces_packed(self) -> Tensor:
        """Return all faces in one tensor; they index `verts_packed`."""
        starts = itertools.accumulate(self._verts.counts, initial=0)
        faces = [f + start if start else f for f, start in zip(self._faces, starts, strict=False)]
        return _packed(faces, 3, torch.int64, self.device)

    def verts_padded(self) -> Tensor:
        """Return the vertices of all meshes, padded with zeros."""
        return self._verts.padded()

    def faces_padded(self) -> Tensor:
        """Return the faces of all meshes, padded with −1."""
        return _padded(self._faces, -1)

    def num_verts_per_mesh(self) -> Tensor:
        """Count the vertices of each mesh."""
        return torch.tensor(self._verts.counts, dtype=torch.int64, device=self.device)

    def num_faces_per_mesh(self) -> Tensor:
        """Count the faces of each mesh."""
        return _counts(self._faces, self.device)

    def mesh_to_verts_packed_first_idx(self) -> Tensor:
        """Return the index of each mesh's first vertex in `verts_packed`."""
        return first_rows(self.num_verts_per_mesh())

    def mesh_to_faces_packed_first_idx(self) -> Tensor:
        """Return the index of each mesh's first face in `faces_packed`."""
        return first_rows(self.num_faces_per_mesh())

    def verts_packed_to_mesh_idx(self) -> Tensor:
        """Return the mesh index of each row of `verts_packed`."""
        return member_of_rows(self.num_verts_per_mesh())

    def faces_packed_to_mesh_idx(self) -> Tensor:
        """Return the mesh index of each row of `faces_packed`."""
        return member_of_rows(self.num_faces_per_mesh())

    def verts_padded_to_packed_idx(self) -> Tensor:
        """Return the indices of the rows of `verts_packed` in flattened `verts_padded`."""
        counts, longest = self.num_verts_per_mesh(), max(self._verts.counts, default=0)
        shift = torch.arange(len(self), device=self.device) * longest - first_rows(counts)
        return torch.arange(int(counts.sum()), device=self.device) + shift.repeat_interleave(counts)

    def get_mesh_verts_faces(self, index: int) -> tuple[Tensor, Tensor]:
        """Return vertices and faces of one mesh."""
        if not isinstance(index, int):
            raise InputError("Meshes.get_mesh_verts_faces: `index` should be a number")
        if not 0 <= index < len(self):
            raise InputError(f"Meshes.get_mesh_verts_faces: there are {len(self)} meshes, got {index}")
        return self._verts.list()[index], self._faces[index]

    def split(self, split_sizes: Sequence[int]) -> list["Meshes"]:
        """Split the batch into batches of the given sizes."""
        if not all(isinstance(size, int) for size in split_sizes):
            raise InputError("Meshes.split: sizes should be whole numbers")
        if sum(split_sizes) > len(self):
            raise InputError(f"Meshes.split: {sum(split_sizes)} meshes requested, but there are {len(self)}")
        ends = torch.tensor(list(split_sizes)).cumsum(0).tolist()
        return [self[end - size : end] for end, size in zip(ends, split_sizes, strict=True)]

    # edges

    def edges_packed(self) -> Tensor:
        """Return the unique edges, as indices into `verts_packed`."""
        starts = self.mesh_to_verts_packed_first_idx()
        edges = [topology(f).edges + start for f, start in zip(self._faces, starts, strict=True)]
        return _packed(edges, 2, torch.int64, self.device).contiguous()

    def num_edges_per_mesh(self) -> Tensor:
        """Count the edges of each mesh."""
        return _counts([topology(f).edges for f in self._faces], self.device).int()

    def edges_packed_to_mesh_idx(self) -> Tensor:
        """Return the mesh index of each row of `edges_packed`."""
        return member_of_rows(self.num_edges_per_mesh())

    def mesh_to_edges_packed_first_idx(self) -> Tensor:
        """Return the index of each mesh's first edge in `edges_packed`."""
        return first_rows(self.num_edges_per_mesh())

    def faces_packed_to_edges_packed(self) -> Tensor:
        """Return the edges of each face, the first opposite to its first corner."""
        starts = self.mesh_to_edges_packed_first_idx()
        of_faces = [
            topology(f).face_edges[:, [1, 2, 0]] + start for f, start in zip(self._faces, starts, strict=True)
        ]
        return _packed(of_faces, 3, torch.int64, self.device)

    # normals and areas

    def has_verts_normals(self) -> bool:
        """Return whether normals were given, not computed from the faces."""
        return self._normals is not None

    def verts_normals_list(self) -> list[Tensor]:
        """Return unit normals at the vertices: as given, or the area-weighted mean of face normals."""
        if self._normals is None:
            return [vertex_normals(mesh) for mesh in self.core()]
        return self._normals.list()

    def verts_normals_packed(self) -> Tensor:
        """Return the normals at all vertices in one tensor."""
        return _packed(self.verts_normals_list(), 3, torch.float32, self.device)

    def verts_normals_padded(self) -> Tensor:
        """Return the normals at all vertices, padded with zeros."""
        return _padded(self.verts_normals_list(), 0.0)

    def faces_normals_list(self) -> list[Tensor]:
        """Return the unit normals of the faces of each mesh."""
        return [face_normals(mesh) for mesh in self.core()]

    def faces_normals_packed(self) -> Tensor:
        """Return the unit normals of all faces in one tensor."""
        return _packed(self.faces_normals_list(), 3, torch.float32, self.device)

    def faces_normals_padded(self) -> Tensor:
        """Return the unit normals of all faces, padded with zeros."""
        return _padded(self.faces_normals_list(), 0.0)

    def faces_areas_packed(self) -> Tensor:
        """Return the areas of all faces in one tensor."""
        areas = [face_areas(mesh) for mesh in self.core()]
        return torch.cat(areas) if areas else torch.zeros(0)

    def get_bounding_boxes(self) -> Tensor:
        """Return lowest and highest coordinates [N, 3, 2]."""
        return torch.stack([torch.stack([v.amin(0), v.amax(0)], -1) for v in self.verts_list()])

    def laplacian_packed(self) -> Tensor:
        """Return the uniform Laplacian of `verts_packed` as a sparse matrix: 1 / degree at neighbors, −1 at itself."""
        from unrender.compat.pytorch3d.ops.laplacian_matrices import laplacian

        matrix: Tensor = laplacian(self.verts_packed(), self.edges_packed())
        return matrix

    def submeshes(self, face_indices: Sequence[Sequence[Tensor]]) -> "Meshes":
        """Cut parts out of each mesh: for mesh i, one for each tensor of face indices in `face_indices[i]`."""
        if len(face_indices) != len(self):
            raise InputError(
                "Meshes.submeshes: You must specify exactly one set of submeshes for each mesh: there are "
                f"{len(self)} meshes, got {len(face_indices)} sets"
            )
        verts, faces, used = [], [], []
        for vertices, triangles, many in zip(self.verts_list(), self._faces, face_indices, strict=True):
            used.append([torch.unique(triangles[ids]) for ids in many])
            for ids, kept in zip(many, used[-1], strict=True):
                verts.append(vertices[kept])
                faces.append(torch.searchsorted(kept, triangles[ids]))
        textures = None if self.textures is None else self.textures.submeshes(used, face_indices)
        return Meshes(verts, faces, textures)

    # modifications

    def offset_verts_(self, vert_offsets_packed: Tensor) -> Self:
        """Move all vertices, by offsets in the layout of `verts_packed`, or one [3] for all, in place."""
        rows = vert_offsets_packed
        if rows.shape not in ((3,), (sum(self._verts.counts), 3)):
            raise InputError(
                f"Meshes.offset_verts: takes [3], or a row for each vertex, got {list(rows.shape)}"
            )
        each = [rows] * len(self) if rows.dim() == 1 else rows.split(self._verts.counts)
        self._verts = Rows([v + offset for v, offset in zip(self._verts.list(), each, strict=True)])
        self._normals = self._normals if rows.dim() == 1 else None  # the shape changed: computed again
        return self

    def offset_verts(self, vert_offsets_packed: Tensor) -> "Meshes":
        """Move all vertices, by offsets in the layout of `verts_packed`, or one [3] for all."""
        return self._shallow().offset_verts_(vert_offsets_packed)

    def scale_verts_(self, scale: float | Tensor) -> Self:
        """Scale all vertices, by one factor or one for each mesh, in place."""
        factors = list(scale) if isinstance(scale, Tensor) and scale.dim() else [scale] * len(self)
        if len(factors) != len(self):
            raise InputError(f"Meshes.scale_verts: takes 1 factor or {len(self)}, got {len(factors)}")
        self._verts = Rows([v * factor for v, factor in zip(self._verts.list(), factors, strict=True)])
        return self

    def scale_verts(self, scale: float | Tensor) -> "Meshes":
        """Scale all vertices, by one factor or one for each mesh."""
        return self._shallow().scale_verts_(scale)

    def update_padded(self, new_verts_padded: Tensor) -> "Meshes":
        """Return meshes with the same faces and other vertices, given as `verts_padded`."""
        other = self._shallow()
        expected = (len(self), max(self._verts.counts, default=0), 3)
        if tuple(new_verts_padded.shape) != expected:
            raise InputError(
                f"Meshes.update_padded: takes {list(expected)}, got {list(new_verts_padded.shape)}"
            )
        other._verts = Rows(new_verts_padded, self._verts.counts)
        other._normals = None
        return other

    def extend(self, N: int) -> "Meshes":
        """Repeat each mesh N times, as copies that share faces and textures."""
        if N < 1:
            raise InputError(f"Meshes.extend: `N` should be at least 1, got {N}")
        normals = None if self._normals is None else self._normals.list()
        return Meshes(
            [v.clone() for v in self._verts.list() for _ in range(N)],
            [f for f in self._faces for _ in range(N)],
            None if self.textures is None else self.textures.extend(N),
            verts_normals=None if normals is None else [t.clone() for t in normals for _ in range(N)],
        )

    def clone(self) -> "Meshes":
        """Copy all tensors."""
        return self._map(_clone)

    def detach(self) -> "Meshes":
        """Detach all tensors from the autograd graph."""
        return self._map(torch.detach)

    def to(self, device: Device, copy: bool = False) -> "Meshes":
        """Move to a device."""
        if not copy and torch.device(device) == self.device:
            return self
        return self._map(lambda tensor: tensor.to(device))

    def cpu(self) -> "Meshes":
        """Move to the CPU."""
        return self.to("cpu")

    def cuda(self) -> "Meshes":
        """Move to the GPU."""
        return self.to("cuda")

    def sample_textures(self, fragments: Any) -> Tensor:
        """Return the color of each fragment [N, H, W, K, C]."""
        if self.textures is None:
            raise InputError("Meshes.sample_textures: these meshes have no textures")
        self.textures.fit(self)
        return self.textures.sample_textures(fragments, faces_packed=self.faces_packed())

    def _shallow(self) -> "Meshes":
        return copy.copy(self)

    def _map(self, function: Callable[[Tensor], Tensor]) -> "Meshes":
        other = self._shallow()
        kept: dict[int, Tensor] = {}  # repeated meshes stay the same tensors
        other._verts = self._verts.map(function)
        other._faces = [kept.setdefault(id(t), function(t)) for t in self._faces]
        other._normals = None if self._normals is None else self._normals.map(function)
        other.textures = None if self.textures is None else self.textures.map(function)
        return other


def _triangles(faces: Tensor) -> Tensor:
    return faces.long() if faces.dim() == 2 else faces.long().reshape(0, 3)


def _normals(given: Sequence[Tensor] | Tensor, counts: list[int]) -> Rows:
    rows = Rows(given, counts) if isinstance(given, Tensor) else Rows(given)
    if [len(t) for t in rows.list()] != counts:
        raise InputError("Meshes: `verts_normals` should have a row for each vertex")
    return rows


def _clone(tensor: Tensor) -> Tensor:
    """Copy a tensor; faces share what is computed from them."""
    copied = tensor.clone()
    if not tensor.is_floating_point():
        record_copy(tensor, copied)
    return copied


def _without_padding(faces: Tensor) -> list[Tensor]:
    """Remove the rows of −1 that pad faces."""
    kept = (faces >= 0).all(-1)
    if bool((kept[:, 1:] & ~kept[:, :-1]).any()):
        raise InputError("Meshes: Padding of faces: rows of −1 may stand only behind all `faces` of a mesh")
    return [rows[:count].long() for rows, count in zip(faces, kept.sum(1).tolist(), strict=True)]


def _packed(tensors: Sequence[Tensor], columns: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    if len(tensors) == 1:
        return tensors[0]
    return torch.cat(list(tensors)) if tensors else torch.zeros(0, columns, dtype=dtype, device=device)


def _padded(tensors: Sequence[Tensor], value: float) -> Tensor:
    return list_to_padded(tensors, pad_value=value) if tensors else torch.zeros(0, 0, 3)


def _counts(tensors: Sequence[Tensor], device: torch.device) -> Tensor:
    return torch.tensor([len(t) for t in tensors], dtype=torch.int64, device=device)


register(__name__)


def __getattr__(name: str) -> Any:
    """Return functions that are defined in `join`, which needs this module."""
    if name in ("join_meshes_as_batch", "join_meshes_as_scene"):
        from unrender.compat.pytorch3d.structures import join

        return getattr(join, name)
    return refuse_unknown(__name__)(name)
