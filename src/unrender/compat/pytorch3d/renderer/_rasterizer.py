"""What the rasterizers of meshes and of points have in common."""

from typing import Any, Self

from torch import nn


class Rasterizer(nn.Module):
    """A module with cameras and settings, neither of which are parameters."""

    cameras: Any

    def __init__(self, cameras: Any, raster_settings: Any) -> None:
        super().__init__()
        self.cameras = cameras
        self.raster_settings = raster_settings

    def __setattr__(self, name: str, value: Any) -> None:
        """Store cameras as a setting, not as a submodule with parameters."""
        if name == "cameras":
            object.__setattr__(self, name, value)
        else:
            super().__setattr__(name, value)

    def to(self, device: Any, *_: Any, **__: Any) -> Self:  # type: ignore[override]
        """Move the cameras to a device."""
        if self.cameras is not None:
            self.cameras = self.cameras.to(device)
        return self
