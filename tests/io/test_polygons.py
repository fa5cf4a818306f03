import numpy as np
import pytest

from unrender.errors import FileFormatError
from unrender.io.polygons import MAX_FOLDED_CORNERS, triangulate


def star(corners, seed):
    """A polygon around the origin of a tilted plane, with dents; its normal."""
    rng = np.random.default_rng(seed)
    angle, radius = np.sort(rng.uniform(0, 2 * np.pi, corners)), rng.uniform(0.2, 1, corners)
    axes, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1) @ axes[:2] + 7, np.cross(
        axes[0], axes[1]
    )


@pytest.mark.parametrize("corners", [3, 4, 5, 8, 40])
@pytest.mark.parametrize("seed", range(5))
def test_triangles_of_a_concave_polygon_keep_its_area_and_winding(corners, seed):
    points, normal = star(corners, seed)
    triangles = triangulate(np.arange(corners), np.array([corners]), points)
    a, b, c = np.moveaxis(points[triangles], 1, 0)
    areas = np.cross(b - a, c - a) @ normal / 2
    whole = np.cross(points, np.roll(points, -1, axis=0)).sum(axis=0) @ normal / 2
    assert len(triangles) == corners - 2
    assert areas.min() > -1e-12
    assert areas.sum() == pytest.approx(whole)


def test_mixed_sizes_keep_their_order():
    points = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0], [0.9, 0.1, 0]], dtype=float)
    corners, sizes = np.array([0, 1, 2, 0, 1, 2, 4, 3, 0, 1, 2, 3]), np.array([3, 5, 4])
    triangles = triangulate(corners, sizes, points)
    assert triangles[0].tolist() == [0, 1, 2]
    assert triangles[-2:].tolist() == [[0, 1, 2], [0, 2, 3]]
    assert sorted(np.unique(triangles[1:4])) == [0, 1, 2, 3, 4]


def test_concave_quad_is_split_along_the_other_diagonal():
    points = np.array([[0, 0, 0], [2, 0, 0], [0.5, 0.5, 0], [0, 2, 0]], dtype=float)
    for start in range(4):
        triangles = triangulate(np.roll(np.arange(4), start), np.array([4]), points)
        assert all({0, 2} <= set(triangle) for triangle in triangles.tolist())


DEGENERATE = {
    "one point": np.zeros((6, 3)),
    "a line": np.arange(18.0).reshape(6, 3),
    "crossing itself": np.random.default_rng(0).normal(size=(6, 3)),
    "not numbers": np.full((6, 3), np.nan),
}


@pytest.mark.parametrize("points", DEGENERATE.values(), ids=DEGENERATE)
def test_degenerate_polygon_still_gives_triangles(points):
    assert triangulate(np.arange(6), np.array([6]), points).shape == (4, 3)


def test_huge_concave_polygons_are_rejected():
    points, _ = star(MAX_FOLDED_CORNERS + 1, 0)
    with pytest.raises(FileFormatError, match="face 1 is not convex and has 5001 corners"):
        triangulate(np.arange(len(points)), np.array([len(points)]), points)
