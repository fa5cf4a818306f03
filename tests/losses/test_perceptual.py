"""LPIPS is used if it is installed with its weights; nothing is downloaded."""

import sys
from types import SimpleNamespace

import pytest
import torch

from unrender import InputError
from unrender.losses.perceptual import load_lpips


class Network:
    """Replaces lpips.LPIPS with the mean difference."""

    def __init__(self, *, net: str, verbose: bool) -> None:
        assert (net, verbose) == ("vgg", False)

    def eval(self):
        return self

    def __call__(self, image, truth, *, normalize: bool):
        assert normalize
        assert image.shape == truth.shape == (1, 3, 20, 30)
        return (image - truth).abs().mean()[None, None]


@pytest.fixture
def installed(tmp_path, monkeypatch):
    weights = SimpleNamespace(IMAGENET1K_V1=SimpleNamespace(url="https://somewhere/vgg16-1234.pth"))
    monkeypatch.setitem(sys.modules, "lpips", SimpleNamespace(LPIPS=Network))
    monkeypatch.setitem(sys.modules, "torchvision", SimpleNamespace())
    monkeypatch.setitem(sys.modules, "torchvision.models", SimpleNamespace(VGG16_Weights=weights))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    (tmp_path / "checkpoints").mkdir()
    return tmp_path / "checkpoints" / "vgg16-1234.pth"


def test_images_are_compared_if_lpips_is_installed(installed) -> None:
    installed.touch()
    image = torch.rand(20, 30, 3)
    assert load_lpips()(image, image) == 0
    assert load_lpips()(image, image + 0.25) == pytest.approx(0.25)


def test_missing_weights_are_reported(installed) -> None:
    with pytest.raises(InputError, match=r"download https://somewhere/vgg16-1234.pth to .*1234.pth"):
        load_lpips()


def test_missing_package_is_reported(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "lpips", None)
    with pytest.raises(InputError, match="pip install lpips"):
        load_lpips()
