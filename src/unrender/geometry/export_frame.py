"""Axes and units of exported meshes."""

from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from unrender._checked import checked
from unrender.errors import InputError
from unrender.geometry.camera_paths import least_axis
from unrender.geometry.mesh import Mesh

UpAxis = Literal["scene", "y", "z"]
Units = Literal["m", "cm", "mm", "in", "ft"]
PER_METER: dict[str, float] = {"m": 1.0, "cm": 100.0, "mm": 1000.0, "in": 1 / 0.0254, "ft": 1 / 0.3048}
SNAP_COSINE = 0.985
"""Cosine of 10 degrees: an estimated up direction nearer to an axis of the scene is taken for that axis."""


@checked
def transform_for_export(
    mesh: Mesh, *, up: UpAxis = "scene", scene_up: Float[Tensor, "3"] | None = None, units: Units = "m"
) -> Mesh:
    """Rotate and scale a mesh to the axes and units of the program that will open it.

    up: `scene` keeps the axes; `y` (glTF, Unity, Maya) and `z` (Blender, ROS, CAD) rotate `scene_up`, the direction of
    the scene that points up, to that axis by the smallest angle. A direction within 10 degrees of an axis of the scene
    is taken for that axis, so that the rotation only exchanges axes. units: of the result; the scene is in meters.
    Normals are computed from the rotated mesh. Differentiable in: vertices.

    Example: `transform_for_export(mesh, up="z", scene_up=up_direction(cameras), units="mm")`.
    """
    if up not in get_args(UpAxis) or units not in PER_METER:
        raise InputError(
            f"transform_for_export: `up` should be one of {', '.join(get_args(UpAxis))} and `units` one of "
            f"{', '.join(PER_METER)}, got {up!r} and {units!r}"
        )
    vertices = mesh.vertices
    if up != "scene":
        if scene_up is None or not float(scene_up.norm()) > 0:
            raise InputError(
                f"transform_for_export: `up` {up!r} needs `scene_up`, a direction other than zero"
            )
        target = torch.eye(3, dtype=torch.float64)["xyz".index(up)]
        rotation = _rotation_between(_snap(scene_up.detach().cpu().double()), target)
        vertices = (vertices.double() @ rotation.T.to(vertices.device)).to(vertices.dtype)
    return mesh.replace(vertices=vertices if units == "m" else vertices * PER_METER[units])


def _snap(direction: Tensor) -> Tensor:
    """Return the unit direction, or the axis that it is close to."""
    unit: Tensor = direction / direction.norm()
    axis = int(unit.abs().argmax())
    if float(unit[axis].abs()) < SNAP_COSINE:
        return unit
    snapped = torch.zeros_like(unit)
    snapped[axis] = unit[axis].sign()
    return snapped


def _rotation_between(start: Tensor, end: Tensor) -> Tensor:
    """Return the smallest rotation of a unit vector to another one; half a turn if they are opposite."""
    cosine = start @ end
    if float(cosine) < -1 + 1e-12:
        across = torch.linalg.cross(start, least_axis(start))
        axis: Tensor = across / across.norm()
        half_turn: Tensor = 2 * axis[:, None] * axis - torch.eye(3).to(axis)
        return half_turn
    x, y, z = torch.linalg.cross(start, end).tolist()
    turn = start.new_tensor([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    rotation: Tensor = torch.eye(3).to(turn) + turn + turn @ turn / (1 + cosine)
    return rotation
