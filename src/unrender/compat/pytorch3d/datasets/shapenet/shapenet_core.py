"""ShapeNetCore."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from unrender.compat.pytorch3d._names import refuse_unknown
from unrender.compat.pytorch3d.datasets._categories import VERSION_1, VERSION_2
from unrender.compat.pytorch3d.datasets.shapenet_base import ShapeNetBase


class ShapeNetCore(ShapeNetBase):
    """A folder with ShapeNetCore, version 1 or 2: all categories, or some, by offset or label."""

    def __init__(
        self,
        data_dir: Any,
        synsets: Sequence[str] | None = None,
        version: int = 1,
        load_textures: bool = True,
        texture_resolution: int = 4,
    ) -> None:
        super().__init__()
        if version not in (1, 2):
            raise ValueError("Version number must be either 1 or 2.")
        self.shapenet_dir, self.load_textures = data_dir, load_textures
        self.texture_resolution = texture_resolution
        self.model_dir = "model.obj" if version == 1 else "models/model_normalized.obj"
        self.synset_dict = dict(VERSION_1 if version == 1 else VERSION_2)
        offsets = {label: offset for offset, label in self.synset_dict.items()}
        folder, present = Path(data_dir), []
        for name in sorted(p.name for p in folder.iterdir()) if synsets is None else synsets:
            offset = offsets.get(name, name)
            if offset in self.synset_dict and (folder / offset).is_dir():
                present.append(offset)
            elif synsets is not None:
                warnings.warn(
                    f"Synset category {name} either not part of ShapeNetCore dataset or cannot be found in {data_dir}.",
                    stacklevel=2,
                )
        missing = [offset for offset in self.synset_dict if offset not in present]
        if missing:
            warnings.warn(
                f"The following categories are included in ShapeNetCore ver.{version}'s official mapping but not found "
                f"in the dataset location {data_dir}: {', '.join(missing)}",
                stacklevel=2,
            )
        self.synset_inv = {label: offset for label, offset in offsets.items() if offset in present}
        for offset in dict.fromkeys(present):
            self._add(folder, offset)

    def _add(self, folder: Path, offset: str) -> None:
        """Add the models of a category that have an object file."""
        self.synset_start_idxs[offset] = len(self.synset_ids)
        for model in sorted(p.name for p in (folder / offset).iterdir()):
            if (folder / offset / model / self.model_dir).exists():
                self.synset_ids.append(offset)
                self.model_ids.append(model)
            else:
                warnings.warn(
                    f"Object file not found in the model directory {model} under synset directory {offset}.",
                    stacklevel=3,
                )
        self.synset_num_models[offset] = len(self.synset_ids) - self.synset_start_idxs[offset]

    def __getitem__(self, idx: Any) -> dict[str, Any]:
        """Return vertices, faces, textures and the names of a model."""
        return self._model(idx)


__getattr__ = refuse_unknown(__name__)
