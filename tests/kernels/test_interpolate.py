import pytest
import torch

from check_kernel import check_kernel
from unrender.kernels.interpolate import interpolate_attributes


@pytest.mark.parametrize("images", [1, 3])
@pytest.mark.parametrize("channels", [1, 4])
def test_kernel_agrees_with_the_reference(images, channels):
    generator = torch.Generator().manual_seed(0)
    barycentric = torch.rand(50, 3, generator=generator)
    values = torch.randn(images, 9, channels, generator=generator)
    faces = torch.randint(9, (12, 3), generator=generator)
    face_ids = torch.randint(12, (30,), generator=generator, dtype=torch.int32)
    places = torch.randperm(50, generator=generator)[:30]
    image_ids = torch.randint(images, (30,), generator=generator)
    check_kernel(
        lambda b, v: interpolate_attributes(b, v, faces, face_ids, places, image_ids), [barycentric, values]
    )
