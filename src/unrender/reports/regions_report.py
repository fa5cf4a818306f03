"""The report of `unrender regions`."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unrender.geometry.mesh import Mesh
from unrender.geometry.points import PointCloud
from unrender.kernels.nearest import nearest
from unrender.reports import figures
from unrender.reports.html import Figure, Section, write_report
from unrender.tasks.regions.find_regions import FlatRegions

NUM_VIEWS = 8
"""Images of the turntable."""
GRAY = (0.8, 0.8, 0.8)
"""Color of what is in no region."""
MAX_LISTED = 50
"""Regions and pairs in the tables."""


def colored_surface(surface: Mesh | PointCloud, found: FlatRegions) -> Mesh | PointCloud:
    """Color a surface by its regions; faces of a mesh get vertices of their own."""
    labels = torch.from_numpy(found.labels)
    if isinstance(surface, PointCloud):
        samples = torch.from_numpy(found.points).to(surface.points.dtype)
        ids = nearest(surface.points.cpu(), samples).ids[:, 0]
        return PointCloud(surface.points.cpu(), colors=_colors(labels[ids]))
    mesh = surface.to("cpu")
    of_face = _labels_of_faces(mesh, found)
    vertices = mesh.vertices[mesh.faces.long()].reshape(-1, 3)
    faces = torch.arange(len(vertices)).reshape(-1, 3)
    return Mesh(vertices, faces, vertex_colors=_colors(of_face).repeat_interleave(3, 0))


def _labels_of_faces(mesh: Mesh, found: FlatRegions) -> Tensor:
    """Return the region of most samples of each face; of faces without a sample, that of the nearest one."""
    assert found.face_ids is not None
    count = len(found.regions) + 1
    votes = np.zeros((len(mesh.faces), count), np.int64)
    np.add.at(votes, (found.face_ids, found.labels), 1)  # the last column has those of no region
    of_face = votes.argmax(1)
    of_face[of_face == count - 1] = -1
    empty = np.flatnonzero(votes.sum(1) == 0)
    if len(empty):
        centers = mesh.vertices[mesh.faces[empty].long()].mean(1).double()
        of_face[empty] = found.labels[nearest(centers, torch.from_numpy(found.points)).ids[:, 0].numpy()]
    return torch.from_numpy(of_face)


def _colors(labels: Tensor) -> Tensor:
    """Return a color for each region."""
    from matplotlib import colormaps

    table = torch.tensor([colormaps["tab20"](index)[:3] for index in range(20)])
    return torch.where(labels[:, None] >= 0, table[labels % 20], torch.tensor(GRAY))


def as_json(found: FlatRegions) -> dict[str, Any]:
    """Return regions and pairs as JSON can hold them."""
    regions = [
        {
            "area": region.area,
            "center": region.center.tolist(),
            "normal": region.normal.tolist(),
            "offset": float(region.normal @ region.center),
            "rms_deviation": region.rms_deviation,
            "largest_deviation": region.largest_deviation,
            "disc_center": region.disc_center.tolist(),
            "disc_radius": region.disc_radius,
            "rectangle": region.rectangle.tolist(),
            "rectangle_size": list(region.rectangle_size),
            "boundary": [outline.tolist() for outline in region.boundary],
        }
        for region in found.regions
    ]
    pairs = [
        {
            "regions": [pair.first, pair.second],
            "width": pair.width,
            "angle_degrees": pair.angle_degrees,
            "center": pair.center.tolist(),
            "axis": pair.axis.tolist(),
            "disc_radius": pair.disc_radius,
            "area": pair.area,
        }
        for pair in found.pairs
    ]
    return {"max_deviation": found.max_deviation, "regions": regions, "pairs": pairs}


def write_regions_report(
    path: Path, title: str, colored: Mesh | PointCloud, found: FlatRegions, up: str, how: Section
) -> None:
    """Write the report: a turntable of the colored surface, and tables of regions and pairs."""
    points = colored.vertices if isinstance(colored, Mesh) else colored.points
    images = [
        figures.png(figures.render(colored, camera)) for camera in figures.turntable(points, NUM_VIEWS, up)
    ]
    regions = {
        str(index): [
            region.area,
            _vector(region.normal),
            region.rms_deviation,
            region.largest_deviation,
            region.disc_radius,
            " × ".join(f"{side:.3g}" for side in region.rectangle_size),
        ]
        for index, region in enumerate(found.regions[:MAX_LISTED])
    }
    pairs = {
        f"{pair.first}, {pair.second}": [pair.width, pair.disc_radius, pair.area, _vector(pair.axis)]
        for pair in found.pairs[:MAX_LISTED]
    }
    header = ("region", "area", "normal", "rms deviation", "largest deviation", "disc radius", "rectangle")
    sections = [
        Section("Results", summary(found), [Figure("regions by color; gray: none", images)]),
        Section("Regions", "Lengths are in world units.", table=regions, header=header),
    ]
    if pairs:
        columns = ("regions", "width", "disc radius", "area", "axis")
        sections.append(Section("Pairs", "Opposite, parallel regions.", table=pairs, header=columns))
    write_report(path, title, [*sections, how])


def summary(found: FlatRegions) -> str:
    """Say how many regions and pairs there are."""
    if not found.regions:
        return (
            f"No flat region with an area of at least {found.min_area:.3g} and deviations of at most "
            f"{found.max_deviation:.3g} from a plane."
        )
    best = found.regions[0]
    number = "1 flat region" if len(found.regions) == 1 else f"{len(found.regions)} flat regions"
    text = (
        f"{number}; the first one has an area of {best.area:.4g} and a disc of radius {best.disc_radius:.3g}."
    )
    pairs = "1 pair" if len(found.pairs) == 1 else f"{len(found.pairs)} pairs"
    return text + (f" {pairs} of opposite regions." if found.pairs else "")


def _vector(vector: np.ndarray) -> str:
    return " ".join(f"{value:.3f}" for value in vector + 0.0)
