"""Kernels compile for a GPU, which needs none: NVRTC comes with Warp."""

import pytest
import torch

from check_kernel import HAS_WARP

if not HAS_WARP:
    pytest.skip("NVIDIA Warp is not installed: pip install unrender[gpu]", allow_module_level=True)

import warp as wp

from unrender.kernels import _fixed_point, _warp_screen, _warp_tree
from unrender.kernels.align.gpu import align_kernels
from unrender.kernels.closest_on_mesh.gpu import closest_kernels
from unrender.kernels.interpolate.gpu import interpolate_kernels
from unrender.kernels.nearest.gpu import nearest_kernels
from unrender.kernels.rasterize.gpu import rasterize_kernels
from unrender.kernels.scatter_sum.gpu import scatter_kernels
from unrender.kernels.silhouette.gpu import silhouette_kernels

MODULES = {
    "align": lambda: align_kernels(torch.float32),
    "closest_on_mesh": lambda: closest_kernels(torch.float32),
    "fixed_point": lambda: _fixed_point._kernels(torch.float32),
    "interpolate": lambda: interpolate_kernels(torch.float32),
    "nearest": lambda: nearest_kernels(torch.float32, 3),
    "rasterize": lambda: rasterize_kernels(torch.float32),
    "scatter_sum": lambda: scatter_kernels(torch.float32),
    "screen": lambda: _warp_screen.screen_kernels(torch.float32),
    "silhouette": lambda: silhouette_kernels(torch.float32),
    "tree": lambda: _warp_tree.tree_kernels(torch.float32, 3),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", MODULES)
def test_kernels_compile_for_a_gpu(name, tmp_path):
    kernel = next(iter(vars(MODULES[name]()).values()))
    wp.compile_aot_module(kernel.module, arch=75, module_dir=tmp_path)
    assert [path for path in tmp_path.iterdir() if path.suffix in {".ptx", ".cubin"}]
