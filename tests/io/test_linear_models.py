"""Files of linear shape models and of landmarks."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from known_shapes import lopsided_model
from unrender import FileFormatError, load_landmarks, load_linear_model, save_linear_model


def arrays() -> dict[str, np.ndarray]:
    return {
        "mean": np.eye(4, 3),
        "faces": np.array([[0, 1, 2], [1, 2, 3]]),
        "identity": np.zeros((2, 4, 3), np.float16),
        "expression": np.ones((1, 4, 3)),
        "identity_std": np.ones(2),
        "expression_names": np.array(["smile"]),
    }


def test_a_saved_model_is_loaded(tmp_path: Path):
    path, model = tmp_path / "model.npz", lopsided_model()
    save_linear_model(model, path)
    loaded = load_linear_model(path)
    for field in dataclasses.fields(model):
        value, other = getattr(model, field.name), getattr(loaded, field.name)
        assert torch.equal(value, other) if isinstance(value, torch.Tensor) else value == other


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mean": None}, "no array 'mean'"),
        ({"faces": None}, "no array 'faces'"),
        ({"faces": np.array([[0, 1, 9]])}, "index vertices 0 to 3"),
        ({"faces": np.zeros((2, 4), int)}, r"'faces' should have the shape \[faces, 3\]"),
        ({"faces": np.zeros((0, 3), int)}, "'faces' should have the shape"),
        ({"faces": np.zeros((2, 3))}, "'faces' should hold integers"),
        ({"mean": np.zeros(3)}, "'mean' should have the shape"),
        ({"identity": np.zeros((2, 5, 3))}, r"'identity' should have the shape \[2, 4, 3\], got \[2, 5, 3\]"),
        ({"identity_std": np.ones(3)}, r"'identity_std' should have the shape \[2\]"),
        ({"identity_std": -np.ones(2)}, "`identity_std` should be positive"),
        ({"expression": np.full((1, 4, 3), np.nan)}, "'expression' has values that are NaN"),
        ({"expression_names": np.array(["a", "b"])}, "should have 1 names"),
        ({"expression_names": np.array([1])}, "'expression_names': expected text"),
        (
            {
                "expression": np.ones((2, 4, 3)),
                "expression_std": None,
                "expression_names": np.array(["a", "a"]),
            },
            "different names",
        ),
        ({"mean": np.array(["a", "b"])}, "'mean': expected real numbers"),
        ({"identity": None, "expression": None, "identity_std": None, "expression_names": None}, "neither"),
    ],
)
def test_arrays_that_do_not_fit(tmp_path: Path, changes: dict[str, np.ndarray | None], message: str):
    found = {name: array for name, array in (arrays() | changes).items() if array is not None}
    np.savez(tmp_path / "model.npz", **found)
    with pytest.raises(FileFormatError, match=message):
        load_linear_model(tmp_path / "model.npz")


def test_optional_arrays(tmp_path: Path):
    np.savez(tmp_path / "model.npz", **{name: arrays()[name] for name in ("mean", "faces", "expression")})
    model = load_linear_model(tmp_path / "model.npz")
    assert model.identity.shape == (0, 4, 3)
    assert model.expression_names == ()


def test_damaged_files(tmp_path: Path):
    path = tmp_path / "model.npz"
    for content in (b"PK\x03\x04 not an archive", b"x" * 100):
        path.write_bytes(content)
        with pytest.raises(FileFormatError, match=r"model\.npz"):
            load_linear_model(path)


def test_landmarks(tmp_path: Path):
    path = tmp_path / "marks.txt"
    path.write_text("# vertex x y z\n3 1 2 3.5\n7, 4, 5, 6  # nose\n\n")
    marks = load_landmarks(path)
    assert marks.vertex_ids.tolist() == [3, 7]
    assert marks.points.tolist() == [[1, 2, 3.5], [4, 5, 6]]
    for text, message in (
        ("3 1 2\n", "line 1"),
        ("1 2 3 4\nx 1 2 3\n", "line 2"),
        ("# none\n", "no landmarks"),
    ):
        path.write_text(text)
        with pytest.raises(FileFormatError, match=message):
            load_landmarks(path)
