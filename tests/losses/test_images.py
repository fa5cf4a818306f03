"""Image quality metrics."""

import math

import pytest
import torch

from unrender.errors import InputError
from unrender.losses.images import match_exposure, psnr, ssim


def test_psnr_is_the_mean_squared_error_in_decibels() -> None:
    grey = torch.full((5, 7, 3), 0.5)
    assert psnr(grey + 0.1, grey) == pytest.approx(20, abs=1e-4)
    assert psnr(grey, grey) == math.inf


def test_ssim_of_equal_images_is_1() -> None:
    picture = torch.rand(16, 16, 3, generator=torch.Generator().manual_seed(0))
    assert ssim(picture, picture) == pytest.approx(1)
    assert ssim(1 - picture, picture) < 0


def test_ssim_of_constant_images_matches_the_formula() -> None:
    first, second = torch.full((16, 16, 3), 0.5), torch.full((16, 16, 3), 0.6)
    expected = (2 * 0.5 * 0.6 + 1e-4) / (0.5**2 + 0.6**2 + 1e-4)
    assert ssim(first, second) == pytest.approx(expected, abs=1e-5)


def test_ssim_rejects_images_smaller_than_the_window() -> None:
    with pytest.raises(InputError, match="11 × 11"):
        ssim(torch.zeros(8, 16, 3), torch.zeros(8, 16, 3))


def test_match_exposure() -> None:
    truth = torch.rand(5, 6, 3, generator=torch.Generator().manual_seed(0))
    darker = truth * torch.tensor([0.5, 0.7, 0.9])
    torch.testing.assert_close(match_exposure(darker, truth), truth)
    mask = torch.zeros(5, 6, dtype=torch.bool)
    mask[2] = True
    spoiled = torch.where(mask[..., None], darker, 7.0)
    torch.testing.assert_close(match_exposure(spoiled, truth, mask)[2], truth[2])
    assert bool((match_exposure(0 * truth, truth) == 0).all())
