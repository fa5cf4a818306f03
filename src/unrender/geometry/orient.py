"""Consistent signs of normals by propagation between neighbors, which also works for open surfaces."""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from unrender._checked import checked
from unrender.kernels.nearest import index_points, nearest

NEIGHBORS = 10


@checked
def propagate_signs(
    points: Float[Tensor, "points 3"], normals: Float[Tensor, "points 3"]
) -> Float[Tensor, "points 3"]:
    """Flip unit normals so that neighbors agree, along a minimum spanning tree of the neighbor graph.

    Edges between points with parallel normals come first. Each connected part points up along the axis of its
    smallest extent, as terrain does. Source: Hoppe et al. 1992, Surface reconstruction from unorganized points, 3.3.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import breadth_first_order, connected_components, minimum_spanning_tree

    count = len(points)
    ids = nearest(points, index_points(points), min(NEIGHBORS + 1, count)).ids[:, 1:].cpu().numpy()
    n = normals.detach().double().cpu().numpy()
    rows, columns = np.repeat(np.arange(count), ids.shape[1]), ids.reshape(-1)
    agreement = (n[rows] * n[columns]).sum(1)
    weights = 1 - np.abs(agreement).clip(max=1) + 1e-6  # zeros would be missing edges
    graph = coo_array((weights, (rows, columns)), (count, count)).tocsr()
    tree = minimum_spanning_tree(graph.maximum(graph.T))
    num_parts, part = connected_components(tree, directed=False)
    signs = np.ones(count)
    for index in range(num_parts):
        members = np.flatnonzero(part == index)
        order, parents = breadth_first_order(tree, members[0], directed=False)
        for child in order[1:]:
            parent = parents[child]
            signs[child] = signs[parent] if n[child] @ n[parent] >= 0 else -signs[parent]
        mean = (n[members] * signs[members, None]).sum(0)
        up = int(np.ptp(points.detach().cpu().numpy()[members], axis=0).argmin())
        signs[members] *= 1 if mean[up] >= 0 else -1
    return normals * torch.as_tensor(signs, dtype=normals.dtype, device=normals.device)[:, None]
