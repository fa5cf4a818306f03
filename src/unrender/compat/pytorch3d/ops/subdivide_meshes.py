"""Subdivision of meshes."""

import torch
from torch import Tensor, nn

from unrender.compat.pytorch3d._names import refuse_unknown
from unrender.compat.pytorch3d.structures.meshes import Meshes
from unrender.geometry import subdivide as core
from unrender.geometry.mesh import Mesh


def subdivide(mesh: Mesh) -> Mesh:
    """Split every face into four, in PyTorch3D's order: those at all first corners come first, the inner ones last."""
    finer = core.subdivide(mesh)
    first, second, third, inner = finer.faces.view(-1, 4, 3).unbind(1)
    return finer.replace(faces=torch.cat([first, second, third, inner.roll(-1, 1)]))


class SubdivideMeshes(nn.Module):
    """Split every face into four; existing vertices come first. Edges are cached by the mesh itself."""

    def __init__(self, meshes: Meshes | None = None) -> None:
        super().__init__()

    def forward(self, meshes: Meshes, feats: Tensor | None = None) -> Meshes | tuple[Meshes, Tensor]:
        """Return subdivided meshes and, for features `[vertices, D]` packed or `[N, V, D]`, those of their vertices."""
        if feats is None:
            finer = [subdivide(mesh) for mesh in meshes.core()]
            return _gather(finer)
        rows = feats.reshape(-1, feats.shape[-1]).split(meshes.num_verts_per_mesh().tolist())
        pairs = zip(meshes.core(), rows, strict=True)
        finer = [subdivide(Mesh(mesh.vertices, mesh.faces, values)) for mesh, values in pairs]
        finer_feats = [mesh.vertex_colors for mesh in finer if mesh.vertex_colors is not None]
        return _gather(finer), torch.stack(finer_feats) if feats.dim() == 3 else torch.cat(finer_feats)


def _gather(meshes: list[Mesh]) -> Meshes:
    return Meshes([mesh.vertices for mesh in meshes], [mesh.faces for mesh in meshes])


__getattr__ = refuse_unknown(__name__)
