"""Draw the diagrams of the documentation: frames, pixels, depth, coordinates, volume rendering, mesh fitting.

python docs/figures/draw.py [FOLDER] writes *.svg to FOLDER, by default next to this file (make figures). Positions and
curves are computed with the library, so a diagram cannot disagree with the code.
"""

import itertools
import sys
from pathlib import Path

import torch
from drawing import BLUE, GREEN, INK, ORANGE, RED, Drawing
from torch import Tensor

import unrender

AXES = ((RED, "x"), (GREEN, "y"), (BLUE, "z"))


def frames(folder: Path) -> None:
    """Draw the world frame, a camera, and a point with its pixel."""
    drawing = Drawing(440, 300, "A camera in the world, its axes, and the pixel to which a point projects")
    paper = unrender.Camera.look_at([0.4, 1.9, 4.5], [1.3, 0.62, 0.0], view_height=2.3, height=300, width=440)

    def at(point: Tensor) -> list[float]:
        return paper.project(point[None].float())[0, :2].tolist()

    def axes(origin: Tensor, directions: Tensor, name: str) -> None:
        for (color, axis), direction in zip(AXES, directions, strict=True):
            end, beyond = at(origin + 0.55 * direction), at(origin + 0.68 * direction)
            drawing.arrow(at(origin), end, color)
            drawing.word((beyond[0], beyond[1] + 4), axis, color)
        drawing.dot(at(origin))
        lower = -8 if name == "camera" else 20
        drawing.word((at(origin)[0] - 6, at(origin)[1] + lower), name, anchor="end")

    camera = unrender.Camera.look_at([2.35, 1.05, 0.75], [0.55, 0.6, 0.0], fov_degrees=38, height=6, width=8)
    point = torch.tensor([0.8, 0.95, 0.2])
    corners = torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * 3) * 0.5 + point - 0.5
    for a, b in itertools.combinations(corners, 2):
        if int((a != b).sum()) == 1:  # an edge of the cube
            drawing.line(at(a), at(b), width=1.2)
    pixels = torch.cartesian_prod(torch.arange(9.0), torch.arange(7.0)).reshape(9, 7, 2)
    depth = torch.full((9, 7, 1), 1.0)
    sheet = camera.unproject(torch.cat([pixels, depth], -1).reshape(-1, 3)).reshape(9, 7, 3)
    for corner in (sheet[0, 0], sheet[8, 0], sheet[8, 6], sheet[0, 6]):
        drawing.line(at(camera.position), at(corner), width=1, opacity=0.5)
    for line in (*sheet.unbind(0), *sheet.unbind(1)):
        drawing.line(at(line[0]), at(line[-1]), width=1, opacity=0.6)
    drawing.line(at(camera.position), at(point), color=ORANGE, dashes="5 4")
    seen = camera.project(point[None])[0]
    column, row = (int(value) for value in seen[:2])
    cell = [sheet[column + i, row + j] for i, j in ((0, 0), (1, 0), (1, 1), (0, 1))]
    drawing.area(*(at(corner) for corner in cell), color=ORANGE, opacity=0.7)
    drawing.dot(at(point), ORANGE, 5)
    drawing.word((at(point)[0] + 10, at(point)[1] - 8), "point", ORANGE, anchor="start")
    axes(torch.zeros(3), torch.eye(3), "world")
    axes(camera.position, camera.camera_from_world[:3, :3], "camera")
    drawing.write(folder, "frames.svg")


def pixels(folder: Path) -> None:
    """Draw pixel corners and centers."""
    drawing = Drawing(400, 250, "An image of 4 × 3 pixels with the coordinates of its corners and centers")
    left, top, side, width, height = 60, 50, 56, 4, 3

    def at(x: float, y: float) -> tuple[float, float]:
        return left + side * x, top + side * y

    drawing.area(at(0, 0), at(1, 0), at(1, 1), at(0, 1), color=ORANGE, opacity=0.35)
    for x in range(width + 1):
        drawing.line(at(x, 0), at(x, height), width=1, opacity=0.7)
    for y in range(height + 1):
        drawing.line(at(0, y), at(width, y), width=1, opacity=0.7)
    for x, y in itertools.product(range(width), range(height)):
        drawing.dot(at(x + 0.5, y + 0.5), radius=2)
    drawing.arrow(at(0, 0), at(width + 0.6, 0), RED)
    drawing.arrow(at(0, 0), at(0, height + 0.4), GREEN)
    drawing.word((at(width + 0.6, 0)[0] + 10, top + 4), "x", RED)
    drawing.word((left - 12, at(0, height + 0.4)[1]), "y", GREEN)
    drawing.word((left, top - 10), "(0, 0)")
    drawing.word((at(0.5, 0)[0], at(0, 0.5)[1] + 20), "(0.5, 0.5)", size=11)
    drawing.word((at(width, height)[0], at(0, height)[1] + 18), "(4, 3) = (width, height)")
    drawing.dot(at(2, 1.5), BLUE, 5)
    drawing.word((left + 20, at(0, height)[1] + 18), "center (2, 1.5)", BLUE, anchor="start")
    for y in range(height):
        drawing.word((left - 8, at(0, y + 0.5)[1] + 4), f"row {y}", anchor="end", size=11)
    for x in range(width):
        drawing.word((at(x + 0.5, 0)[0], top - 10 if x else top - 26), f"column {x}", size=11)
    drawing.write(folder, "pixels.svg")


def depth(folder: Path) -> None:
    """Draw z and distance of two points on a wall."""
    drawing = Drawing(400, 240, "A camera in front of a wall, from above: one z, two distances")
    eye, wall, scale = (200.0, 205.0), 60.0, 145.0 / 2.0
    camera = unrender.Camera.look_at([0.0, 0, 0], [0.0, 0, 1], fov_degrees=60, height=100, width=180)
    edge = unrender.rays_through(camera, torch.tensor([[172.0, 50.0]])).directions[0]
    z, distance = 2.0, 2.0 / float(edge @ camera.camera_from_world[2, :3])
    across = abs(float(edge @ camera.camera_from_world[0, :3])) * distance
    ahead, aside = (eye[0], wall), (eye[0] + scale * across, wall)
    drawing.area((20, wall - 12), (380, wall - 12), (380, wall), (20, wall), opacity=0.25)
    drawing.line((20, wall), (380, wall))
    drawing.word((30, wall - 20), "wall", anchor="start")
    arc = torch.linspace(-0.9, 0.9, 40)
    around = [(eye[0] + scale * z * float(a.sin()), eye[1] - scale * z * float(a.cos())) for a in arc]
    drawing.line(*around, color=ORANGE, dashes="3 4", width=1.2)
    drawing.word((around[0][0] + 4, around[0][1] + 20), "distance 2", ORANGE, size=11)
    drawing.arrow(eye, ahead, BLUE)
    drawing.word((eye[0] - 8, 165), f"z = distance = {z:g}", BLUE, anchor="end")
    drawing.arrow(eye, aside, ORANGE)
    drawing.line(aside, (aside[0], eye[1]), color=BLUE, dashes="5 4")
    drawing.word((aside[0] + 6, 150), f"z = {z:g}", BLUE, anchor="start")
    drawing.word((eye[0] + 8, 113), f"distance {distance:.2f}", ORANGE, anchor="start", size=12)
    drawing.area((eye[0], eye[1] - 2), (eye[0] - 13, eye[1] + 18), (eye[0] + 13, eye[1] + 18), opacity=0.8)
    drawing.word((eye[0] + 22, eye[1] + 18), "camera", anchor="start")
    drawing.write(folder, "depth.svg")


def transforms(folder: Path) -> None:
    """Draw a rigid motion for column vectors and for row vectors."""
    drawing = Drawing(400, 330, "A rigid matrix for column vectors, and the same for row vectors")
    cell = 30

    def matrix(left: float, top: float, rows: list[list[str]]) -> None:
        for i, row in enumerate(rows):
            for j, text in enumerate(row):
                x, y = left + j * cell, top + i * cell
                color = {"R": BLUE, "t": ORANGE}.get(text[0])
                box = ((x, y), (x + cell, y), (x + cell, y + cell), (x, y + cell))
                if color:
                    drawing.area(*box, color=color, opacity=0.25)
                drawing.line(*box, closed=True, width=1, opacity=0.5)
                drawing.word((x + cell / 2, y + 20), text, color or INK, size=12)

    turn = [[f"R{i}{j}" for j in "xyz"] for i in "xyz"]
    shift = ["tx", "ty", "tz"]
    drawing.word((10, 20), "unrender: columns", anchor="start")
    matrix(10, 34, [*([*row, t] for row, t in zip(turn, shift, strict=True)), ["0", "0", "0", "1"]])
    drawing.word((145, 100), "·")
    matrix(158, 34, [["x"], ["y"], ["z"], ["1"]])
    drawing.word((210, 100), "=  camera_from_world @ p", anchor="start", size=12)
    drawing.word((10, 190), "PyTorch3D: rows", anchor="start")
    matrix(10, 204, [["x", "y", "z", "1"]])
    drawing.word((145, 224), "·")
    transposed = [[*(row[j] for row in turn), "0"] for j in range(3)]
    matrix(158, 204, [*transposed, [*shift, "1"]])
    drawing.word((290, 270), "=  p @ matrix", anchor="start", size=12)
    drawing.write(folder, "transforms.svg")


def voxels(folder: Path) -> None:
    """Draw one row of voxels in all coordinate systems."""
    drawing = Drawing(420, 290, "A row of four voxels in four coordinate systems")
    left, side, count = 60.0, 75.0, 4
    drawing.word((left, 22), "voxel [k, j, 0]", anchor="start", size=12)
    drawing.word((left + count * side, 22), "voxel [k, j, 3]", anchor="end", size=12)
    for i in range(count):
        x = left + i * side
        drawing.area((x, 32), (x + side, 32), (x + side, 72), (x, 72), color=BLUE, opacity=0.12 + 0.12 * i)
        drawing.line((x, 32), (x + side, 32), (x + side, 72), (x, 72), closed=True, width=1)
        drawing.dot((x + side / 2, 52))
    rulers = [
        ("volume frame: a voxel has size 1", 0.0, 4.0),
        ("world: in_box(low = −1, high = 3)", -1.0, 3.0),
        ("unit cube: hash_grid, normalize", 0.0, 1.0),
        ("[−1, 1]: NeRF and its frequencies", -1.0, 1.0),
    ]
    for number, (name, low, high) in enumerate(rulers):
        y = 112.0 + 46 * number
        drawing.line((left, y), (left + count * side, y), color=ORANGE)
        drawing.word((left, y - 10), name, anchor="start", size=12)
        for half in range(2 * count + 1):
            x, value = left + half * side / 2, low + (high - low) * half / (2 * count)
            edge = half % 2 == 0
            drawing.line((x, y - (5 if edge else 2)), (x, y + (5 if edge else 2)), color=ORANGE)
            drawing.word((x, y + 18), f"{value:g}".replace("-", "−"), size=11 if edge else 9)
    drawing.write(folder, "voxels.svg")


def contraction(folder: Path) -> None:
    """Draw how contraction maps squares around the center."""
    drawing = Drawing(400, 230, "Squares in the world, and the same squares in contracted space")
    box = unrender.SceneBox.cube(torch.zeros(3), 1.0, contracted=True)
    for radius in (1.0, 2.0, 4.0, 8.0, float("inf")):
        if radius < float("inf"):
            contracted = 2 * float(box.normalize(torch.tensor([[radius, 0.0, 0.0]]))[0, 0]) - 1
        else:
            contracted = 1.0
        color = ORANGE if radius == 1 else INK
        for center, half in ((95.0, 10.0 * radius), (300.0, 84.0 * contracted)):
            if half > 85:
                continue
            corners = [(center + half * i, 105 + half * j) for i, j in ((-1, -1), (1, -1), (1, 1), (-1, 1))]
            drawing.line(*corners, closed=True, color=color, width=1.3)
            if 1 < radius < 4 or center == 95.0:
                drawing.word((center + half - 3, 105 + half - 3), f"{radius:g}", anchor="end", size=10)
    drawing.word((300 + 42 - 3, 105 + 42 - 3), "1", ORANGE, anchor="end", size=10)
    drawing.word((300, 14), "4, 8, … and infinity at the border", size=11)
    drawing.word((95, 212), "world, in half extents", size=12)
    drawing.word((300, 212), "the cube [0, 1]³", size=12)
    drawing.write(folder, "contraction.svg")


def light(folder: Path) -> None:
    """Draw density, transmittance and weights along a ray through fog and a wall."""
    drawing = Drawing(420, 300, "Density, transmittance and weights along a ray through fog and a wall")
    distances = (torch.arange(60) + 0.5) / 60 * 6
    density = 0.5 * torch.exp(-((distances - 1.8) / 0.5).square()) + 6 * torch.sigmoid(12 * (distances - 4.2))
    lengths = torch.full((60,), 0.1)
    rendered = unrender.composite(density[None], lengths[None])
    weights = rendered.weights[0]
    transmittance = torch.cat([torch.ones(1), 1 - weights.cumsum(0)[:-1]])
    left, width = 20.0, 390.0
    rows = [
        ("density σ", density / density.max(), BLUE),
        ("transmittance T = exp(−Σ σ δ)", transmittance, GREEN),
        ("weight w = T (1 − exp(−σ δ))", weights / weights.max(), ORANGE),
    ]
    for number, (name, values, color) in enumerate(rows):
        floor, tall = 78.0 + 96 * number, 52.0
        x = left + (distances / 6 * width)
        curve = [(float(a), floor - tall * float(v)) for a, v in zip(x, values, strict=True)]
        drawing.area((curve[0][0], floor), *curve, (curve[-1][0], floor), color=color, opacity=0.3)
        drawing.line(*curve, color=color)
        drawing.line((left, floor), (left + width, floor), width=1)
        drawing.word((left, floor - tall - 9), name, color, anchor="start", size=12)
    cumulative = weights.cumsum(0)
    kinds = {
        "mean": float((weights * distances).sum() / weights.sum()),
        "median": float(distances[int((cumulative >= 0.5 * cumulative[-1]).nonzero()[0])]),
    }
    for name, value in kinds.items():
        x = left + value / 6 * width
        drawing.line((x, 275), (x, 212), dashes="3 3", width=1.2)
        drawing.word((x, 290), name, size=12)
    drawing.word((left, 290), "camera", anchor="start", size=12)
    drawing.write(folder, "light.svg")


def fit(folder: Path) -> None:
    """Draw the terms of the mesh fit: distances to the surface, and dihedral angles."""
    drawing = Drawing(400, 200, "Points, their closest points on a curve, and a dihedral angle")
    corners = torch.tensor([[20.0, 150], [95, 95], [180, 60], [270, 90], [330, 150], [385, 165]])
    generator = torch.Generator().manual_seed(3)
    along = torch.linspace(0.08, 0.95, 17) * (len(corners) - 1)
    low = along.long().clamp(max=len(corners) - 2)
    on = torch.lerp(corners[low], corners[low + 1], (along - low)[:, None])
    points = on + 24 * torch.randn(on.shape, generator=generator)
    steps = corners[1:] - corners[:-1]
    for point in points:
        fraction = (((point - corners[:-1]) * steps).sum(-1) / steps.square().sum(-1)).clamp(0, 1)
        near = corners[:-1] + fraction[:, None] * steps
        closest = near[(near - point).norm(dim=-1).argmin()].tolist()
        drawing.line(point.tolist(), closest, color=ORANGE, width=1.5)
        drawing.dot(point.tolist(), ORANGE, 3)
    drawing.line(*corners.tolist(), width=2.5)
    for corner in corners.tolist():
        drawing.dot(corner, radius=4)
    for i in (2, 3):
        middle = (corners[i] + corners[i + 1]) / 2 if i == 3 else (corners[i - 1] + corners[i]) / 2
        step = steps[i] if i == 3 else steps[i - 1]
        normal = torch.stack([step[1], -step[0]]) / step.norm()
        drawing.arrow(middle.tolist(), (middle + 42 * normal).tolist(), BLUE)
    drawing.word((24, 184), "pᵢ and its cᵢ on the surface", ORANGE, anchor="start")
    drawing.word((376, 24), "θ: between normals", BLUE, anchor="end")
    drawing.write(folder, "fit.svg")


DRAWINGS = (frames, pixels, depth, transforms, voxels, contraction, light, fit)


def main(folder: Path) -> None:
    """Make all drawings."""
    for draw in DRAWINGS:
        draw(folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
