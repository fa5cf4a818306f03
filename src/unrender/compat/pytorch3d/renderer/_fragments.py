"""`Fragments`: the faces visible at each pixel."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Fragments:
    """Faces at each pixel, front to back; empty slots hold −1.

    Faces are numbered through the batch (`faces_packed`). Squared distances are in NDC², negative inside a face.
    """

    pix_to_face: Tensor
    zbuf: Tensor
    bary_coords: Tensor
    dists: Tensor | None

    def detach(self) -> "Fragments":
        """Detach all tensors from the autograd graph."""
        dists = None if self.dists is None else self.dists.detach()
        return Fragments(self.pix_to_face, self.zbuf.detach(), self.bary_coords.detach(), dists)
