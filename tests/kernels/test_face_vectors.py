import pytest
import torch

from check_kernel import check_kernel
from unrender.kernels.face_vectors import face_vectors


@pytest.mark.parametrize("batch", [(), (2, 3)])
def test_kernel_agrees_with_the_reference(batch):
    generator = torch.Generator().manual_seed(0)
    columns = torch.randn(*batch, 3, 9, generator=generator)
    faces = torch.randint(9, (30, 3), generator=generator)  # some with the same corner twice
    check_kernel(lambda c: face_vectors(c, faces.to(c.device)), [columns])
