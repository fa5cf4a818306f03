"""Flat regions of parts with known faces."""

import math

import numpy as np
import pytest
import torch

import unrender
from unrender import FindRegions, InputError, Mesh, PointCloud, find_regions
from unrender.geometry.sample import sample_points_from_mesh

SIZE = (1.0, 2.0, 3.0)
FEW = 8000


def box() -> Mesh:
    """A box of 1 × 2 × 3, with two triangles on each side."""
    cube = unrender.cube()
    low, high = cube.vertices.amin(0), cube.vertices.amax(0)
    return cube.replace(vertices=(cube.vertices - low) / (high - low) * torch.tensor(SIZE))


def bracket() -> Mesh:
    """A plate of 3 × 2 × 0.5 without one corner, with a rectangular hole of 1 × 0.4."""
    xs, ys, height = [0, 1, 1.5, 2.5, 3], [0, 0.3, 0.7, 1, 2], 0.5
    filled = {(i, j) for i in range(4) for j in range(4) if (ys[j] < 1 or xs[i] < 1) and (i, j) != (2, 1)}
    corners: list[tuple[float, float, float]] = []

    def quad(*points: tuple[float, float, float]) -> None:
        corners.extend(points[index] for index in (0, 1, 2, 0, 2, 3))

    for i, j in filled:
        x, y, X, Y = xs[i], ys[j], xs[i + 1], ys[j + 1]
        quad((x, y, height), (X, y, height), (X, Y, height), (x, Y, height))
        quad((x, y, 0), (x, Y, 0), (X, Y, 0), (X, y, 0))
        sides = {
            (i - 1, j): ((x, y), (x, Y)),
            (i + 1, j): ((X, Y), (X, y)),
            (i, j - 1): ((X, y), (x, y)),
            (i, j + 1): ((x, Y), (X, Y)),
        }
        for neighbor, (a, b) in sides.items():
            if neighbor not in filled:
                quad((*b, 0), (*a, 0), (*a, height), (*b, height))
    vertices = torch.tensor(corners, dtype=torch.float64)
    return Mesh(vertices, torch.arange(len(vertices)).reshape(-1, 3))


def scan(mesh: Mesh, noise: float, count: int = FEW, *, normals: bool = True) -> PointCloud:
    """Sample a surface, with noise as a fraction of the diagonal."""
    generator = torch.Generator().manual_seed(0)
    samples = sample_points_from_mesh(mesh, count, generator=generator)
    diagonal = float((mesh.vertices.amax(0) - mesh.vertices.amin(0)).norm())
    offsets = torch.randn(samples.points.shape, generator=generator, dtype=torch.float64)
    given = unrender.face_normals(mesh)[samples.face_ids] if normals else None
    return PointCloud(samples.points + noise * diagonal * offsets.to(samples.points), given)


@pytest.mark.parametrize("kind", ["mesh", "noisy points", "points without normals"])
def test_the_sides_of_a_box(kind: str) -> None:
    surface = {
        "mesh": box(),
        "noisy points": scan(box(), 0.003),
        "points without normals": scan(box(), 0.0, normals=False),
    }[kind]
    found = find_regions(surface, FindRegions(max_points=FEW, pairs=2.5))
    assert len(found.regions) == 6
    assert [round(region.area) for region in found.regions] == [6, 6, 3, 3, 2, 2]
    for region in found.regions:
        axis = int(np.abs(region.normal).argmax())
        assert region.normal[axis] * np.sign(region.center[axis] - SIZE[axis] / 2) > math.cos(0.035)
        sides = sorted(side for index, side in enumerate(SIZE) if index != axis)
        assert region.area == pytest.approx(math.prod(sides), rel=0.05)
        assert region.disc_radius == pytest.approx(sides[0] / 2, rel=0.1)
        assert region.rectangle_size == pytest.approx((sides[1], sides[0]), rel=0.15)
        inner = [side / 2 for index, side in enumerate(SIZE) if index != axis]
        assert np.delete(region.disc_center, axis)[np.argmin(inner)] == pytest.approx(min(inner), abs=0.1)
        assert np.abs(region.rectangle @ region.normal - region.center @ region.normal).max() < 1e-9
    assert [pair.width for pair in found.pairs] == pytest.approx([1, 2], rel=0.02)
    assert all({*np.abs(pair.axis).round(2)} == {0, 1} for pair in found.pairs)
    assert np.allclose(found.pairs[0].center[0], 0.5, atol=0.05)


def test_holes_and_inner_sides_of_a_bracket() -> None:
    found = find_regions(bracket(), FindRegions(max_points=20_000, pairs=1.2, min_area=0.15))
    areas = [3.6, 3.6, 1.5, 1, 1, 0.5, 0.5, 0.5, 0.5, 0.5, 0.2, 0.2]
    assert [region.area for region in found.regions] == pytest.approx(areas, rel=0.05)
    top = found.regions[0]
    assert len(top.boundary) == 2
    assert np.ptp(top.boundary[1], axis=0) == pytest.approx([1, 0.4, 0], abs=0.1)
    for pair in found.pairs:  # none across the hole
        outward = found.regions[pair.first].center - found.regions[pair.second].center
        assert outward @ found.regions[pair.first].normal > 0
    assert found.pairs[0].width == pytest.approx(0.5, rel=0.02)
    assert found.pairs[0].area == pytest.approx(3.6, rel=0.08)


def test_a_cup_must_fit() -> None:
    found = find_regions(box(), FindRegions(max_points=FEW, cup_radius=0.7))
    assert len(found.regions) == 2
    assert all(region.disc_radius >= 0.7 for region in found.regions)


def test_thin_plates_have_two_sides() -> None:
    plate = box().replace(vertices=box().vertices * torch.tensor([0.004, 1, 1]))
    found = find_regions(plate, FindRegions(max_points=FEW, pairs=0.1))
    assert [region.area for region in found.regions] == pytest.approx([6, 6], rel=0.02)
    assert found.regions[0].normal @ found.regions[1].normal == pytest.approx(-1)
    assert found.pairs[0].width == pytest.approx(0.004, rel=0.01)


@pytest.mark.parametrize("noise", [0.0, 1e-3])
def test_an_open_sheet_without_normals_is_one_region(noise: float) -> None:
    generator = torch.Generator().manual_seed(0)
    points = torch.rand(4000, 3, generator=generator, dtype=torch.float64)
    points[:, 2] = noise * torch.randn(4000, generator=generator, dtype=torch.float64)
    (region,) = find_regions(PointCloud(points)).regions
    assert region.area == pytest.approx(1, rel=0.05)
    assert region.disc_radius == pytest.approx(0.5, rel=0.06)


@pytest.mark.parametrize("distance", [10.0, 1e9])
def test_outliers_change_nothing(distance: float) -> None:
    cloud = scan(box(), 0.0)
    cloud.points[:3] = distance * torch.tensor([[1.0], [-1.0], [1.0]])
    found = find_regions(cloud)
    assert [region.area for region in found.regions] == pytest.approx([6, 6, 3, 3, 2, 2], rel=0.05)


def test_a_mesh_that_is_inside_out_is_turned() -> None:
    inside_out = box().replace(faces=box().faces.flip(-1))
    found = find_regions(inside_out, FindRegions(max_points=FEW, pairs=1.5))
    assert [pair.width for pair in found.pairs] == pytest.approx([1], rel=0.02)


def test_order_and_flatness() -> None:
    found = find_regions(scan(box(), 0.003), FindRegions(max_points=FEW, sort_by="flatness"))
    flatness = [region.rms_deviation for region in found.regions]
    assert flatness == sorted(flatness)
    assert flatness[0] == pytest.approx(0.003 * math.hypot(*SIZE), rel=0.1)
    assert all(region.largest_deviation <= found.max_deviation * 1.01 for region in found.regions)
    found = find_regions(box(), FindRegions(max_points=FEW, sort_by="cup_radius"))
    radii = [region.disc_radius for region in found.regions]
    assert radii == sorted(radii, reverse=True)


def test_a_sphere_has_none_and_far_coordinates_change_nothing() -> None:
    assert (
        find_regions(unrender.ico_sphere(3), FindRegions(max_points=FEW, max_deviation=0.003)).regions == ()
    )
    far = box().replace(vertices=box().vertices.double() + 1e6)
    found = find_regions(far, FindRegions(max_points=FEW))
    assert [region.area for region in found.regions] == pytest.approx([6, 6, 3, 3, 2, 2], rel=0.02)


@pytest.mark.parametrize(
    ("surface", "options", "message"),
    [
        (box(), {"min_area": 0.0}, "`min_area` should be positive and finite, got 0.0"),
        (box(), {"cup_radius": math.nan}, "`cup_radius` should be 0 or more, got nan"),
        (box(), {"max_points": 3}, "`max_points` should be 1,000 to 1,000,000, got 3"),
        (box(), {"seed": 2.5}, "`seed` should be a whole number from 0 on, got 2.5"),
        (box(), {"sort_by": "color"}, "`sort_by` should be one of area, flatness, cup_radius, got 'color'"),
        (PointCloud(torch.zeros(100, 3)), {}, "at least 50 different points, got 1"),
        (PointCloud(torch.full((100, 3), torch.nan)), {}, "NaN or infinite points"),
        (Mesh(torch.zeros(3, 3), torch.tensor([[0, 1, 2]])), {}, "the mesh has no surface area"),
        (Mesh(torch.zeros(3, 3) / 0, torch.tensor([[0, 1, 2]])), {}, "NaN or infinite vertices"),
    ],
)
def test_what_cannot_be_used_is_refused(surface, options, message) -> None:
    with pytest.raises(InputError, match=message):
        find_regions(surface, FindRegions(**options))
