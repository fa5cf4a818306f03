"""Images and rays of a scene on one device, from which a training step draws by itself."""

from jaxtyping import Bool, Float, Int
from torch import Tensor

from unrender._struct import TensorStruct


class DevicePixels(TensorStruct):
    """All pixels of all frames in one row, and how their rays run."""

    colors: Int[Tensor, " pixels"]
    """int32: red, green, blue and alpha, 8 bits each, red lowest."""
    valid: Bool[Tensor, " valid"]
    """Of each pixel whether to use it; empty if all are to be used."""
    starts: Int[Tensor, " ends"]
    """Where the pixels of each frame begin, by rows, and where the last ones end."""
    map_starts: Int[Tensor, " frames"]
    """Where the directions of each frame's pixels begin; frames with the same intrinsics share theirs."""
    directions_camera: Float[Tensor, "directions 3"]
    """Unit directions in the camera frame; nan where the lens sees nothing."""
    world_from_camera: Float[Tensor, "frames 3 4"]
    has_alpha: bool

    @property
    def nbytes(self) -> int:
        """Memory they take."""
        tensors = (self.colors, self.valid, self.starts, self.directions_camera)
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
