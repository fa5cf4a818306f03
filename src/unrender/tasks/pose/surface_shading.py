"""Shading of a tracked object under the lighting of the frame, which is estimated: its surface is aligned to that.

A matte surface under distant lighting is a quadratic function of the normal, to within 1 % (Ramamoorthi and Hanrahan
2001, eq. 11). Its nine coefficients are solved for by robust least squares.
"""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import normalize

from unrender.geometry.mesh import face_normals, vertex_normals
from unrender.tasks.pose.color_regions import Array
from unrender.tasks.pose.object_model import Model, albedo
from unrender.tasks.pose.tracking_window import LUMINANCE, FrameWindow, ModelView

MIN_SAMPLES, MAX_SAMPLES = 60, 1200
"""Number of pixels from which the lighting is estimated."""
ROUNDS = 3
OUTLIER = 0.06
"""Residuals of the brightness beyond this, or twice the median, have little weight: occluders and highlights."""
CREASE_COSINE = 0.77
"""Faces that are turned by more from the smooth surface are flat: creases are sharp."""
REGULARIZATION = np.array([0.1, 1, 1, 1, 3, 3, 3, 3, 3])


class SurfaceNormals(NamedTuple):
    """Unit normals of a mesh."""

    vertices: torch.Tensor
    faces: torch.Tensor


def normals_of(model: Model) -> SurfaceNormals:
    """Compute the normals of a model, once for all frames."""
    vertices, faces = vertex_normals(model.mesh), face_normals(model.mesh)
    return SurfaceNormals(normalize(vertices, dim=-1), normalize(faces, dim=-1))


def shade(
    model: Model,
    normals: SurfaceNormals,
    view: ModelView,
    window: FrameWindow,
    probability: Array,
    pose: NDArray[np.float64],
) -> Array | None:
    """Shade the model under the lighting that fits the frame best: [height, width] luminance, 0 outside.

    `probability` is that of the object by its colors: occluders do not count. None if too little is visible.
    """
    rows = view.fragments
    slots = rows.slot_ids.numpy()
    if len(slots) < MIN_SAMPLES:
        return None
    normal = _normals_in_view(model, normals, view) @ pose[:3, :3].T.astype(np.float32)
    normal = np.where(normal[:, 2:] > 0, -normal, normal)  # back faces
    surface = albedo(model, rows).numpy() @ LUMINANCE
    basis = _harmonics(normal) * surface[:, None]
    every = max(1, len(slots) // MAX_SAMPLES)
    gray, trust = (image.ravel()[slots[::every]] for image in (window.gray, probability))
    light = _fit_light(basis[::every].astype(np.float64), gray.astype(np.float64), trust.astype(np.float64))
    image = np.zeros(view.mask.size, np.float32)
    image[slots] = basis @ light.astype(np.float32)
    return image.reshape(view.mask.shape)


def _normals_in_view(model: Model, normals: SurfaceNormals, view: ModelView) -> Array:
    """Return the normals of all pixels, in the model's frame: smooth, except at creases."""
    smooth = normalize(view.fragments.interpolate(model.mesh.faces, normals.vertices), dim=-1).numpy()
    flat = normals.faces[view.fragments.face_ids].numpy()
    is_smooth = (smooth * flat).sum(1, keepdims=True) > CREASE_COSINE
    chosen: Array = np.where(is_smooth, smooth, flat)
    return chosen


def _harmonics(normals: Array) -> Array:
    x, y, z = normals.T
    terms = [np.ones_like(x), x, y, z, x * y, y * z, z * x, x * x - y * y, 3 * z * z - 1]
    return np.stack(terms, 1)


def _fit_light(
    basis: NDArray[np.float64], gray: NDArray[np.float64], trust: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Solve for the lighting by iteratively reweighted least squares."""
    weight = trust
    prior = 1e-3 * REGULARIZATION * float((basis[:, 0] ** 2).sum()) + 1e-9
    for _ in range(ROUNDS):
        weighted = basis * weight[:, None]
        solution = np.linalg.solve(weighted.T @ basis + np.diag(prior), weighted.T @ gray)
        light = np.asarray(solution, np.float64)
        residual = np.abs(gray - basis @ light)
        scale = max(OUTLIER, 2 * float(np.median(residual)))
        weight = trust / (1 + (residual / scale) ** 2) ** 2
    return light
