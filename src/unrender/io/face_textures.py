"""`Painting`: what a file says about the pictures on its faces, before it is a texture."""

from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from unrender.io.contents import Floats, Indices

Outside = Literal["repeat", "mirror", "clamp"]
"""What stands beyond the border of a picture."""


class Paint(NamedTuple):
    """A picture, multiplied by a color; or the color alone."""

    color: tuple[float, float, float] = (1.0, 1.0, 1.0)
    picture: Path | bytes | None = None
    """A file, or what stands in one."""
    named_in: str = ""
    """Where the picture is named, for messages."""
    outside: tuple[Outside, Outside] = ("repeat", "repeat")
    """To the sides, and above and below."""
    scale: tuple[float, float] = (1.0, 1.0)
    offset: tuple[float, float] = (0.0, 0.0)
    """The picture is read at scale · uv + offset."""


class Painting(NamedTuple):
    """Which paint is on which face, and where its corners lie on the picture."""

    uvs: Floats
    """u to the right, v upwards, from the lower left corner."""
    corners: Indices
    """Which uvs the corners of the faces have; anything where a face has none."""
    paint_ids: Indices
    paints: list[Paint]

    def has_pictures(self) -> bool:
        """Tell whether a picture lies on any face."""
        return any(self.paints[i].picture is not None for i in np.unique(self.paint_ids))
