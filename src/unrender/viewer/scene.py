"""What the browser renders itself: meshes, points, and cameras."""

import math
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from unrender.data.frames import Frame
from unrender.data.scene_bounds import bounds_of_cameras
from unrender.fields.protocol import RenderedField
from unrender.geometry.camera import Camera
from unrender.geometry.camera_paths import stack_cameras, up_direction
from unrender.geometry.mesh import Mesh, vertex_normals
from unrender.geometry.points import PointCloud
from unrender.geometry.rotations import quaternion_from_rotation
from unrender.io.files import is_file
from unrender.io.geometry_data import rgb_from_tensor
from unrender.render.texture import Texture
from unrender.tasks.scene.inspect_scene import inspect_image
from unrender.viewer.renderable import Renderable

if TYPE_CHECKING:
    import trimesh
    import viser

GREY, BLUE, ORANGE = (176, 176, 176), (41, 92, 153), (214, 118, 28)
FRUSTUM, POINT = 0.03, 0.002
"""Sizes of frusta and points, as fractions of the extent of the scene."""
FOV_DEGREES = 40.0
Box = Float[Tensor, "2 3"]


class InitialView(NamedTuple):
    """The initial camera of a page."""

    eye: Float[Tensor, "3"]
    target: Float[Tensor, "3"]
    up: Float[Tensor, "3"]
    fov_degrees: float
    """Vertical field of view."""


def view_around(points: Float[Tensor, "points 3"], up: Float[Tensor, "3"]) -> InitialView:
    """Return a view of all points, or of the box between two corners, from slightly above."""
    center = (points.amin(0) + points.amax(0)) / 2
    radius = float((points - center).norm(dim=-1).max()) or 1.0
    aside = up.roll(1)
    direction = torch.nn.functional.normalize(up.roll(2) + 0.5 * aside + 0.4 * up, dim=0)
    distance = radius / math.sin(math.radians(FOV_DEGREES / 2))
    return InitialView(center + distance * direction, center, up, FOV_DEGREES)


def view_of_first(cameras: Sequence[Camera]) -> InitialView:
    """Return the view of the first camera, with the mean up axis of all."""
    first = cameras[0]
    forward = first.camera_from_world[2, :3]
    depth = float((bounds_of_cameras(cameras).mean(0) - first.position) @ forward)
    target = first.position + (depth if depth > 0 else 1.0) * forward
    return InitialView(
        first.position, target, up_direction(stack_cameras(cameras)), math.degrees(_fov(first))
    )


def view_of_all(cameras: Sequence[Camera]) -> InitialView:
    """Return a view of all cameras."""
    batch = stack_cameras(cameras)
    return view_around(batch.position, up_direction(batch))


def bounds_of(thing: Mesh | PointCloud | Renderable) -> Box:
    """Return the bounding box; [-1, 1]³ for fields of unknown extent."""
    if isinstance(thing, RenderedField):
        return thing.scene_box.bounds.cpu()
    if not isinstance(thing, Mesh | PointCloud):
        return torch.tensor([[-1.0] * 3, [1.0] * 3])
    points = thing.vertices if isinstance(thing, Mesh) else thing.points
    return torch.stack([points.amin(0), points.amax(0)]).detach().float().cpu()


def put_mesh(server: "viser.ViserServer", mesh: Mesh, texture: Texture | None, box: Box | None) -> None:
    """Show a mesh, optionally only the faces inside a box."""
    mesh, texture = mesh.detach().to("cpu"), None if texture is None else texture.detach().to("cpu")
    faces = mesh.faces
    if box is not None:
        inside = ((mesh.vertices >= box[0]) & (mesh.vertices <= box[1])).all(-1)
        chosen = inside[faces].all(-1)
        faces = faces[chosen]
        texture = None if texture is None else texture.replace(faces=texture.faces[chosen])
    if len(faces) == 0:
        server.scene.remove_by_name("/mesh")
    elif texture is None and mesh.vertex_colors is None:
        vertices = mesh.vertices.detach().numpy()
        server.scene.add_mesh_simple("/mesh", vertices, faces.numpy(), color=GREY, side="double")
    else:
        server.scene.add_mesh_trimesh("/mesh", _with_colors(mesh.replace(faces=faces), texture))


def _with_colors(mesh: Mesh, texture: Texture | None) -> "trimesh.Trimesh":
    """Convert a mesh to trimesh, with its texture or its vertex colors."""
    import trimesh
    from trimesh.visual import ColorVisuals, TextureVisuals
    from trimesh.visual.material import PBRMaterial

    vertices, faces = mesh.vertices.detach().numpy(), mesh.faces.numpy()
    if texture is None:
        colors = ColorVisuals(vertex_colors=rgb_from_tensor(mesh.vertex_colors))
        return trimesh.Trimesh(vertices, faces, visual=colors, process=False)
    from PIL import Image

    pixels = (texture.image[..., :3].clamp(0, 1) * 255).round().to(torch.uint8).numpy()
    options: dict[str, Any] = {"metallicFactor": 0.0, "roughnessFactor": 1.0, "doubleSided": True}
    material: Any = PBRMaterial(baseColorTexture=Image.fromarray(pixels), **options)  # type: ignore[no-untyped-call]
    uvs = texture.uvs[texture.faces].flatten(0, 1).numpy()
    visual = TextureVisuals(uv=uvs, material=material)  # type: ignore[no-untyped-call]
    corners = torch.arange(faces.size).reshape(-1, 3).numpy()
    normals = vertex_normals(mesh).detach().numpy()[faces].reshape(-1, 3)
    shape = {"vertices": vertices[faces].reshape(-1, 3), "faces": corners, "vertex_normals": normals}
    return trimesh.Trimesh(**shape, visual=visual, process=False)


def put_cloud(server: "viser.ViserServer", cloud: PointCloud, size: float, box: Box | None) -> None:
    """Show points as discs, optionally only those inside a box."""
    cloud = cloud.detach().to("cpu")
    points, colors = cloud.points.float(), cloud.colors
    if box is not None:
        inside = ((points >= box[0]) & (points <= box[1])).all(-1)
        points, colors = points[inside], None if colors is None else colors[inside]
    rgb = rgb_from_tensor(colors)
    server.scene.add_point_cloud(
        "/cloud",
        points.numpy(),
        BLUE if rgb is None else rgb,
        point_size=size,
        point_shape="circle",
        precision="float32",
    )


class CameraFrusta:
    """Cameras as frusta, blue for training and orange for test views; a click moves the view to a camera."""

    def __init__(self, server: "viser.ViserServer", frames: Sequence[Frame], visible: bool) -> None:
        positions = torch.stack([frame.camera.position for frame in frames])
        size = FRUSTUM * float((positions.amax(0) - positions.amin(0)).norm()) or 0.1
        self._pending = deque(
            (
                frame,
                put_camera(
                    server,
                    f"/cameras/{index}",
                    frame.camera,
                    size,
                    BLUE if frame.split == "train" else ORANGE,
                ),
            )
            for index, frame in enumerate(frames)
        )
        self._folder = server.scene.add_frame("/cameras", show_axes=False, visible=visible)

    def set_visible(self, visible: bool) -> None:
        """Show or hide the cameras."""
        self._folder.visible = visible

    def load_image(self) -> bool:
        """Load the next image if the frusta are visible; return whether there was one."""
        if not self._folder.visible or not self._pending:
            return False
        frame, handle = self._pending.popleft()
        if is_file(frame.image_path):  # runs do not need the images
            handle.image = inspect_image(frame).thumbnail
        return True


def put_camera(
    server: "viser.ViserServer", name: str, camera: Camera, size: float, color: tuple[int, int, int]
) -> "viser.CameraFrustumHandle":
    """Show a camera as a frustum; a click moves the view to it."""
    handle = server.scene.add_camera_frustum(
        name,
        _fov(camera),
        float(camera.width / camera.height),
        scale=size,
        thickness=1.5,
        thickness_units="screen",
        color=color,
        wxyz=quaternion_from_rotation(camera.world_from_camera[:3, :3]).numpy(),
        position=camera.position.numpy(),
    )

    @handle.on_click
    def _(event: "viser.SceneNodePointerEvent[viser.CameraFrustumHandle]") -> None:
        if event.client is not None:
            with event.client.atomic():
                event.client.camera.wxyz = handle.wxyz
                event.client.camera.position = handle.position

    return handle


def _fov(camera: Camera) -> float:
    return 2 * math.atan(camera.height / 2 / float(camera.focal[1]))
