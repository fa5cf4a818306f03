"""The report of `unrender find-pose`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unrender.data.photos import Photo
from unrender.geometry.camera import Camera, transform
from unrender.geometry.mesh import Mesh
from unrender.geometry.points import PointCloud
from unrender.io.files import atomic_write
from unrender.render.texture import Texture
from unrender.reports import figures, pose_images
from unrender.reports.html import Figure, Section, write_report
from unrender.tasks.pose.find_pose import MAX_ROTATION_STD_DEGREES, FindPoseStep, PoseEstimate

MAX_FRAMES = 24
"""Frames of the optimization video, at most."""
NUM_VIEWS = 8
"""Images of a turntable."""
PHOTO_SIZE, CLOSE_UP_SIZE = 720, 360
"""Longer side of the photo and of the close-ups, in pixels."""
CONVENTION = (
    "4 × 4, mesh units; camera frame +x right, +y down, +z forward; point clouds: the frame of the cloud"
)


def write_pose_report(
    path: Path,
    title: str,
    steps: Sequence[FindPoseStep],
    metrics: Mapping[str, Any],
    sections: Sequence[Section],
) -> None:
    """Write the report: results, pose, metrics, cost curve; the last of `sections` comes last."""
    matrix = steps[-1].result.camera_from_object.tolist()
    rows = [" ".join(f"{round(x, 5) + 0.0:8.5f}" for x in row) for row in matrix]
    stages = {step.stage: step.index + 1 for step in reversed(steps)}
    *results, how = sections
    text = "Costs are comparable within a stage only: finer images contain more detail."
    write_report(
        path,
        title,
        [
            *results,
            Section("Pose (camera from object)", CONVENTION + ".", code=["\n".join(rows)]),
            Section("Metrics", table=metrics),
            Section("Optimization", text, svg=figures.curves(series(steps), stages)),
            how,
        ],
    )


def series(steps: Sequence[FindPoseStep]) -> dict[str, list[float]]:
    """Return the curve of the cost."""
    return {"cost of the best pose": [step.cost for step in steps]}


def transformed(mesh: Mesh, pose: Tensor) -> Mesh:
    """Transform a mesh by a pose, in float64."""
    return mesh.replace(vertices=transform(pose, mesh.vertices.double()))


def photo_results(
    mesh: Mesh, texture: Texture | None, photo: Photo, steps: Sequence[FindPoseStep], folder: Path
) -> list[Section]:
    """Show the mesh over the photo, in the best pose and in the other candidates; write overlay.png."""
    estimate = steps[-1].result
    texture = None if texture is None else texture.to(torch.float32)
    photo = photo.to(torch.float32)
    whole, near = pose_images.whole(photo, PHOTO_SIZE), pose_images.close_up(photo, CLOSE_UP_SIZE)
    pose = estimate.camera_from_object
    best = figures.png(pose_images.overlay(whole, mesh, texture, pose))
    with atomic_write(folder / "overlay.png") as file:
        file.write(best)
    contours = [figures.png(pose_images.contours(near, mesh, step)) for step in _trajectory(steps)]
    result = Section(
        "Results",
        summary(estimate),
        [
            Figure("photo", [figures.png(whole.image)]),
            Figure("estimated pose", [best]),
            Figure("close-up", [figures.png(pose_images.overlay(near, mesh, texture, pose))]),
            Figure("contours: mask blue, object orange", contours[-1:]),
            Figure("optimization (video)", contours, is_video=True),
        ],
    )
    candidates = zip(estimate.candidates, estimate.scores.tolist(), estimate.agreements.tolist(), strict=True)
    others = [
        Figure(
            f"score {score:.2f}, overlap {agreement:.3f}",
            [figures.png(pose_images.overlay(near, mesh, texture, candidate))],
        )
        for candidate, score, agreement in candidates
    ]
    text = "Poses that explain the photo almost equally well, best first."
    return [result, *([Section("Other candidates", text, others)] if len(others) > 1 else [])]


def cloud_results(mesh: Mesh, cloud: PointCloud, steps: Sequence[FindPoseStep]) -> list[Section]:
    """Show the mesh among the points; both are centered on the mesh, where float32 is precise enough."""
    estimate = steps[-1].result
    placed = transformed(mesh, estimate.camera_from_object)
    low, high = placed.vertices.aminmax(dim=0)
    center, size = (low + high) / 2, float((high - low).norm())

    def local(points: Tensor) -> Tensor:
        return ((points.double() - center) / size).float()

    points = cloud.replace(
        points=local(cloud.points[cloud.points.isfinite().all(-1)]), colors=None, normals=None
    )
    placed = placed.replace(vertices=local(placed.vertices))
    cameras = _from_the_observed_side(placed.vertices, points.points)
    moves = [mesh.replace(vertices=local(transformed(mesh, pose).vertices)) for pose in _trajectory(steps)]
    in_cloud = [figures.png(pose_images.mesh_in_cloud(placed, points, camera)) for camera in cameras]
    video = [figures.png(pose_images.mesh_in_cloud(shape, points, cameras[0])) for shape in moves]
    only_points = [figures.png(figures.render(points, camera)) for camera in cameras]
    return [
        Section(
            "Results",
            summary(estimate),
            [
                Figure(f"point cloud, {len(points.points):,} points", only_points),
                Figure("mesh in the estimated pose", in_cloud),
                Figure("optimization (video)", video, is_video=True),
            ],
        )
    ]


def _trajectory(steps: Sequence[FindPoseStep]) -> list[Tensor]:
    """Choose poses of the optimization, ending with the last one."""
    chosen = [*steps[:: 1 + len(steps) // MAX_FRAMES], steps[-1]]
    return [step.result.camera_from_object for step in chosen]


def _from_the_observed_side(vertices: Tensor, points: Tensor) -> list[Camera]:
    """Return a turntable around the object that starts on the side where the points are."""
    cameras = figures.turntable(vertices, NUM_VIEWS)
    side = points.mean(0) - vertices.mean(0)
    first = max(range(NUM_VIEWS), key=lambda i: float(cameras[i].position @ side))
    return cameras[first:] + cameras[:first]


def summary(estimate: PoseEstimate) -> str:
    """Summarize an estimate in a sentence or two."""
    agreement = f"{100 * estimate.agreement:.1f} % agreement"
    uncertainty = (
        f"uncertainty {estimate.rotation_std_degrees:.2g}° and {estimate.translation_std:.2g} units "
        "(one standard deviation)"
    )
    if estimate.status == "failed":
        return (
            f"Failed: the best pose has {agreement} only. Check that the mesh is of this object, that the mask covers "
            "the object alone, and the intrinsics."
        )
    if estimate.status == "ambiguous" and estimate.message:
        return (
            f"Ambiguous: {estimate.message}, or the object differs from the mesh; the distance is uncertain. "
            f"{agreement[0].upper()}{agreement[1:]}; {uncertainty}."
        )
    if estimate.status == "ambiguous" and len(estimate.candidates) > 1:
        return (
            f"Ambiguous: {len(estimate.candidates)} poses fit almost equally well; the object may be symmetric, or "
            f"too little of it visible. Best pose: {uncertainty}."
        )
    if estimate.status == "ambiguous" and estimate.rotation_std_degrees > MAX_ROTATION_STD_DEGREES:
        return f"Ambiguous: the rotation is not determined, as for a rotationally symmetric object; {uncertainty}."
    if estimate.status == "ambiguous":
        return (
            f"Ambiguous: the best pose has {agreement} only; the object may be occluded, differ from the mesh, or have "
            "another pose."
        )
    return f"Converged: {agreement}; {uncertainty}, assuming a correct mesh and, for photos, mask and intrinsics."
