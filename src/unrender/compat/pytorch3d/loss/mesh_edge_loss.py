"""Edge-length regularization."""

from torch import Tensor

from unrender.compat.pytorch3d._names import refuse_unknown
from unrender.compat.pytorch3d.loss._batches import mean_over_meshes
from unrender.compat.pytorch3d.structures.meshes import Meshes
from unrender.losses import regularize


def mesh_edge_loss(meshes: Meshes, target_length: float = 0.0) -> Tensor:
    """Average (length − `target_length`)² over the edges of each mesh, and over the meshes."""
    return mean_over_meshes(meshes, lambda mesh: regularize.mesh_edge_loss(mesh, target_length))


__getattr__ = refuse_unknown(__name__)
