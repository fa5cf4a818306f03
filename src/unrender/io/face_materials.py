"""`FaceMaterials`: the materials and UV coordinates of a mesh file before they become one texture."""

from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from unrender.io.geometry_data import Floats, Indices

WrapMode = Literal["repeat", "mirror", "clamp"]
"""How an image continues beyond its border."""


class BaseColor(NamedTuple):
    """The base color of a material: an image times a color, or the color alone."""

    color: tuple[float, float, float] = (1.0, 1.0, 1.0)
    image: Path | bytes | None = None
    """An image file, or its content."""
    source: str = ""
    """Where the image is referenced, for messages."""
    wrap: tuple[WrapMode, WrapMode] = ("repeat", "repeat")
    """Wrap modes along u and v."""
    scale: tuple[float, float] = (1.0, 1.0)
    offset: tuple[float, float] = (0.0, 0.0)
    """The image is sampled at scale · uv + offset."""


class FaceMaterials(NamedTuple):
    """The material of each face, and the UV coordinates of its corners."""

    uvs: Floats
    """UV coordinates: u to the right, v upwards, from the lower left corner."""
    uv_ids: Indices
    """Indices into `uvs` for the corners of the faces; arbitrary for faces without image."""
    material_ids: Indices
    base_colors: list[BaseColor]
    """Base color of each material."""

    def has_images(self) -> bool:
        """Return whether any face has an image."""
        return any(self.base_colors[i].image is not None for i in np.unique(self.material_ids))
