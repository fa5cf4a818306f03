"""LPIPS: used where it is installed with its weights, never fetched."""

import sys
from types import SimpleNamespace

import pytest
import torch

from unrender import InputError
from unrender.losses.perceptual import load_lpips


class Network:
    """Stands in for lpips.LPIPS: the mean difference."""

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


def test_pictures_are_compared_where_all_is_there(installed) -> None:
    installed.touch()
    image = torch.rand(20, 30, 3)
    assert load_lpips()(image, image) == 0
    assert load_lpips()(image, image + 0.25) == pytest.approx(0.25)


def test_absent_weights_are_named(installed) -> None:
    with pytest.raises(InputError, match=r"needs the weights https://somewhere/vgg16-1234.pth as .*1234.pth"):
        load_lpips()


def test_an_absent_package_is_named(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "lpips", None)
    with pytest.raises(InputError, match="pip install lpips"):
        load_lpips()
