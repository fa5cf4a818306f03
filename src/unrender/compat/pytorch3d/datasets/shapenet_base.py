"""Loading and rendering of ShapeNet models."""

import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from unrender.compat.pytorch3d._names import refuse_unknown
from unrender.compat.pytorch3d.datasets.utils import collate_batched_meshes
from unrender.compat.pytorch3d.io import load_obj
from unrender.compat.pytorch3d.renderer import (
    FoVPerspectiveCameras,
    HardPhongShader,
    MeshRasterizer,
    MeshRenderer,
    PointLights,
    RasterizationSettings,
    TexturesVertex,
)


class ShapeNetBase(Dataset[dict[str, Any]]):
    """Models by category: `synset_ids` and `model_ids` name them, in the order of the categories."""

    def __init__(self) -> None:
        self.synset_ids: list[str] = []
        self.model_ids: list[str] = []
        self.synset_dict: dict[str, str] = {}
        self.synset_inv: dict[str, str] = {}
        self.synset_start_idxs: dict[str, int] = {}
        self.synset_num_models: dict[str, int] = {}
        self.shapenet_dir: Any = ""
        self.model_dir = "model.obj"
        self.load_textures = True
        self.texture_resolution = 4

    def __len__(self) -> int:
        return len(self.model_ids)

    def __getitem__(self, idx: Any) -> dict[str, Any]:
        raise NotImplementedError("__getitem__ should be implemented in the child class of ShapeNetBase")

    def _get_item_ids(self, idx: int) -> dict[str, Any]:
        return {"synset_id": self.synset_ids[idx], "model_id": self.model_ids[idx]}

    def _model(self, idx: int) -> dict[str, Any]:
        """Load vertices, faces and atlas of a model, with its category."""
        item = self._get_item_ids(idx)
        path = Path(self.shapenet_dir) / item["synset_id"] / item["model_id"] / self.model_dir
        verts, faces, textures = self._load_mesh(path)
        label = self.synset_dict[item["synset_id"]]
        return item | {"verts": verts, "faces": faces, "textures": textures, "label": label}

    def _load_mesh(self, model_path: Any) -> tuple[Tensor, Tensor, Tensor | None]:
        verts, faces, aux = load_obj(
            model_path, self.load_textures, self.load_textures, self.texture_resolution
        )
        textures = aux.texture_atlas
        if self.load_textures and textures is None:  # white
            size = self.texture_resolution
            textures = verts.new_ones(len(faces.verts_idx), size, size, 3)
        return verts, faces.verts_idx, textures

    def render(
        self,
        model_ids: list[str] | None = None,
        categories: list[str] | None = None,
        sample_nums: list[int] | None = None,
        idxs: list[int] | None = None,
        shader_type: Any = HardPhongShader,
        device: Any = "cpu",
        **kwargs: Any,
    ) -> Tensor:
        """Render models by name, by index, or drawn at random from categories or from all; [N, H, W, 4]."""
        chosen = self._handle_render_inputs(model_ids, categories, sample_nums, idxs)
        collated = collate_batched_meshes([self[i] for i in chosen])
        assert collated is not None
        meshes = collated["mesh"]
        if meshes.textures is None:
            meshes.textures = TexturesVertex([torch.ones_like(v) for v in meshes.verts_list()])
        meshes = meshes.to(device)
        cameras = kwargs.get("cameras", FoVPerspectiveCameras()).to(device)
        if len(cameras) != 1 and len(cameras) % len(meshes) != 0:
            raise ValueError("Mismatch between batch dims of cameras and meshes.")
        if len(cameras) > 1:
            meshes = meshes.extend(len(cameras) // len(meshes))
        rasterizer = MeshRasterizer(cameras, kwargs.get("raster_settings", RasterizationSettings()))
        lights = kwargs.get("lights", PointLights()).to(device)
        shader = shader_type(device=device, cameras=cameras, lights=lights)
        images: Tensor = MeshRenderer(rasterizer, shader)(meshes)
        return images

    def _handle_render_inputs(
        self,
        model_ids: list[str] | None = None,
        categories: list[str] | None = None,
        sample_nums: list[int] | None = None,
        idxs: list[int] | None = None,
    ) -> list[int]:
        """Return the indices of models."""
        if model_ids:
            for name in model_ids:
                if name not in self.model_ids:
                    raise ValueError(f"model_id {name} not found in the loaded dataset.")
            return [self.model_ids.index(name) for name in model_ids]
        numbers = [1] if sample_nums is None else sample_nums
        if categories:
            if len(numbers) not in (1, len(categories)):
                raise ValueError(
                    "categories and sample_nums needs to be of the same length or sample_nums of length 1."
                )
            found = [self.synset_inv.get(name, name) for name in categories]
            for name, synset in zip(categories, found, strict=True):
                if synset not in self.synset_inv.values():
                    raise ValueError(f"Category {name} is not in the loaded dataset.")
            counts = numbers * len(found) if len(numbers) == 1 else numbers
            drawn = [
                self._sample_idxs_from_category(n, synset) for n, synset in zip(counts, found, strict=True)
            ]
            return [int(i) for part in drawn for i in part]
        if idxs:
            if any(not 0 <= i < len(self) for i in idxs):
                raise IndexError(f"Indices need to be between 0 and {len(self) - 1}, got {idxs}")
            return idxs
        if len(numbers) > 1:
            warnings.warn(
                f"More than one sample sizes specified, now sampling {numbers[0]} models", stacklevel=3
            )
        return [int(i) for i in self._sample_idxs_from_category(numbers[0])]

    def _sample_idxs_from_category(self, sample_num: int = 1, category: str | None = None) -> Tensor:
        """Draw models, with replacement if there are too few."""
        start = 0 if category is None else self.synset_start_idxs[category]
        count = len(self) if category is None else self.synset_num_models[category]
        replaced = sample_num > count
        if replaced:
            warnings.warn(
                f"Sample size {sample_num} is larger than the number of objects, {count}", stacklevel=4
            )
        return torch.ones(count).multinomial(sample_num, replacement=replaced) + start


__getattr__ = refuse_unknown(__name__)
