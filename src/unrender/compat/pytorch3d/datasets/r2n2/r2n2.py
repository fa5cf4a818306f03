"""R2N2: renderings and voxels of models of ShapeNetCore."""

import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unrender.compat.pytorch3d._names import refuse_unknown
from unrender.compat.pytorch3d.datasets import _categories
from unrender.compat.pytorch3d.datasets.r2n2.utils import (
    BlenderCamera,
    align_bbox,
    compute_extrinsic_matrix,
    read_binvox_coords,
    voxelize,
)
from unrender.compat.pytorch3d.datasets.shapenet_base import ShapeNetBase
from unrender.compat.pytorch3d.renderer import HardPhongShader
from unrender.io.images import load_image

MAX_CAMERA_DISTANCE = 1.75
VOXEL_SIZE = 128
BLENDER_INTRINSIC = torch.tensor(
    [[2.1875, 0, 0, 0], [0, 2.1875, 0, 0], [0, 0, -1.002002, -0.2002002], [0, 0, -1, 0]]
)


class R2N2(ShapeNetBase):
    """The models of a split, with their renderings, cameras and voxels if the folders are there."""

    def __init__(
        self,
        split: str,
        shapenet_dir: Any,
        r2n2_dir: Any,
        splits_file: Any,
        return_all_views: bool = True,
        return_voxels: bool = False,
        views_rel_path: str = "ShapeNetRendering",
        voxels_rel_path: str = "ShapeNetVoxels",
        load_textures: bool = True,
        texture_resolution: int = 4,
    ) -> None:
        super().__init__()
        if split not in ("train", "val", "test"):
            raise ValueError("split has to be one of (train, val, test).")
        self.shapenet_dir, self.r2n2_dir = shapenet_dir, r2n2_dir
        self.views_rel_path, self.voxels_rel_path = views_rel_path, voxels_rel_path
        self.load_textures, self.texture_resolution = load_textures, texture_resolution
        self.synset_dict = dict(_categories.R2N2)
        self.return_images = self._has(views_rel_path)
        self.return_voxels = return_voxels and self._has(voxels_rel_path)
        self.views_per_model_list: list[list[int]] = []
        chosen = json.loads(Path(splits_file).read_text())[split]
        for synset, models in chosen.items():
            if synset in self.synset_dict and (Path(shapenet_dir) / synset).is_dir():
                self._add(synset, models, return_all_views)
                self.synset_inv[self.synset_dict[synset]] = synset
            else:
                warnings.warn(
                    f"Synset category {synset} from the splits file is either not present in {shapenet_dir} or not "
                    "part of the standard R2N2 dataset.",
                    stacklevel=2,
                )

    def _has(self, folder: str) -> bool:
        found = (Path(self.r2n2_dir) / folder).is_dir()
        if not found:
            warnings.warn(f"{folder} not found in {self.r2n2_dir}: it is skipped", stacklevel=3)
        return found

    def _add(self, synset: str, models: dict[str, list[int]], return_all_views: bool) -> None:
        """Add the models of a category, with all views or one at random."""
        self.synset_start_idxs[synset] = len(self.synset_ids)
        for model, views in models.items():
            if not (Path(self.shapenet_dir) / synset / model).is_dir():
                warnings.warn(f"Model {model} from category {synset} is not present.", stacklevel=3)
                continue
            self.synset_ids.append(synset)
            self.model_ids.append(model)
            one = views if return_all_views else [views[int(torch.randint(len(views), ()))]]
            self.views_per_model_list.append(one)
        self.synset_num_models[synset] = len(self.synset_ids) - self.synset_start_idxs[synset]

    def __getitem__(self, model_idx: Any, view_idxs: Any = None) -> dict[str, Any]:
        """Return a model with images, R, T, K and voxels of some views, or of all in the split."""
        if isinstance(model_idx, tuple):
            model_idx, view_idxs = model_idx
        views = self._views(model_idx, view_idxs)
        item = self._model(model_idx)
        item["images"] = None
        names = (item["synset_id"], item["model_id"])
        extrinsics: list[Tensor] = []
        if self.return_images:
            folder = Path(self.r2n2_dir).joinpath(self.views_rel_path, *names, "rendering")
            lines = (folder / "rendering_metadata.txt").read_text().splitlines()
            for view in views:
                azimuth, elevation, _, ratio, _ = (float(word) for word in lines[view].split())
                extrinsics.append(compute_extrinsic_matrix(azimuth, elevation, ratio * MAX_CAMERA_DISTANCE))
            item["images"] = torch.stack([load_image(folder / f"{view:02d}.png")[..., :3] for view in views])
            calibration = [self._compute_camera_calibration(RT) for RT in extrinsics]
            item["R"], item["T"] = (torch.stack(parts) for parts in zip(*calibration, strict=True))
            intrinsics = BLENDER_INTRINSIC.clone()
            intrinsics[3, 2] = 1
            item["K"] = intrinsics.expand(len(views), 4, 4)
        if self.return_voxels:
            path = Path(self.r2n2_dir).joinpath(self.voxels_rel_path, *names, "model.binvox")
            if not path.is_file():
                raise FileNotFoundError(
                    f"Voxel file not found for model {names[1]} from category {names[0]}."
                )
            with path.open("rb") as file:
                coords = align_bbox(read_binvox_coords(file), item["verts"])
            item["voxels"] = torch.stack(
                [voxelize(coords, BLENDER_INTRINSIC @ RT, VOXEL_SIZE) for RT in extrinsics]
            )
        return item

    def _views(self, model_idx: int, view_idxs: Any) -> list[int]:
        loaded = self.views_per_model_list[model_idx]
        if view_idxs is None:
            return loaded
        if isinstance(view_idxs, int):
            view_idxs = [view_idxs]
        if not isinstance(view_idxs, list | Tensor):
            raise TypeError(f"view_idxs is of type {type(view_idxs)} but it needs to be a list.")
        wanted = [int(view) for view in view_idxs]
        if set(wanted) <= set(loaded):
            return wanted
        warnings.warn(
            "At least one of the indices in view_idxs is not available: all views are returned", stacklevel=3
        )
        return loaded

    def _compute_camera_calibration(self, RT: Tensor) -> tuple[Tensor, Tensor]:
        """Return rotation and translation for rows, with +x left and +z forward."""
        matrix = RT.mT * torch.tensor([-1.0, 1, -1, 1])
        return matrix[:3, :3], matrix[3, :3]

    def render(  # type: ignore[override]
        self,
        model_ids: list[str] | None = None,
        categories: list[str] | None = None,
        sample_nums: list[int] | None = None,
        idxs: list[int] | None = None,
        view_idxs: Sequence[int] | None = None,
        shader_type: Any = HardPhongShader,
        device: Any = "cpu",
        **kwargs: Any,
    ) -> Tensor:
        """Render models from the cameras of their views, or from given ones."""
        chosen = self._handle_render_inputs(model_ids, categories, sample_nums, idxs)
        if "cameras" not in kwargs:
            items = [self[i, view_idxs] for i in chosen]
            R, T, K = (
                kwargs.get(name, torch.cat([item[name] for item in items])) for name in ("R", "T", "K")
            )
            kwargs["cameras"] = BlenderCamera(R=R, T=T, K=K, device=device)
        return super().render(idxs=chosen, shader_type=shader_type, device=device, **kwargs)


__getattr__ = refuse_unknown(__name__)
