"""What the browser draws itself: meshes, points, and the cameras of photos."""

import math
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from unrender.data.frames import Frame
from unrender.data.scene_bounds import bounds_of_cameras
from unrender.fields.voxels import SparseVoxels
from unrender.geometry.camera import Camera
from unrender.geometry.camera_paths import up_direction
from unrender.geometry.mesh import Mesh, vertex_normals
from unrender.geometry.points import PointCloud
from unrender.geometry.rotations import quaternion_from_rotation
from unrender.io.contents import rgb_from_tensor
from unrender.render.texture import Texture
from unrender.tasks.scene.inspect_scene import inspect_picture
from unrender.viewer.drawable import Drawable

if TYPE_CHECKING:
    import trimesh
    import viser

GREY, BLUE, ORANGE = (176, 176, 176), (41, 92, 153), (214, 118, 28)
FRUSTUM, POINT = 0.03, 0.002
"""Sizes, as shares of what is shown."""
FOV_DEGREES = 40.0
Box = Float[Tensor, "2 3"]


class Home(NamedTuple):
    """Where one begins to look."""

    eye: Float[Tensor, "3"]
    target: Float[Tensor, "3"]
    up: Float[Tensor, "3"]
    fov_degrees: float
    """From top to bottom."""


def home_around(points: Float[Tensor, "points 3"], up: Float[Tensor, "3"]) -> Home:
    """See all points, or the box between two of them, somewhat from above."""
    middle = (points.amin(0) + points.amax(0)) / 2
    radius = float((points - middle).norm(dim=-1).max()) or 1.0
    aside = up.roll(1)
    direction = torch.nn.functional.normalize(up.roll(2) + 0.5 * aside + 0.4 * up, dim=0)
    distance = radius / math.sin(math.radians(FOV_DEGREES / 2))
    return Home(middle + distance * direction, middle, up, FOV_DEGREES)


def home_of(cameras: Sequence[Camera]) -> Home:
    """Look as the first camera does; what is up for all is up."""
    first = cameras[0]
    forward = first.camera_from_world[2, :3]
    ahead = float((bounds_of_cameras(cameras).mean(0) - first.position) @ forward)
    target = first.position + (ahead if ahead > 0 else 1.0) * forward
    return Home(first.position, target, up_direction(_together(cameras)), math.degrees(_fov(first)))


def home_beside(cameras: Sequence[Camera]) -> Home:
    """See all cameras."""
    many = _together(cameras)
    return home_around(many.position, up_direction(many))


def _together(cameras: Sequence[Camera]) -> Camera:
    """Join the poses of cameras, with the intrinsics of the first."""
    first, poses = cameras[0], torch.stack([camera.camera_from_world for camera in cameras])
    focal, center = (t.expand(len(poses), 2) for t in (first.focal, first.center))
    return first.replace(focal=focal, center=center, camera_from_world=poses, lens=None)


def bounds_of(thing: Mesh | PointCloud | Drawable) -> Box:
    """Return the corners of the box that holds all of it; of a field that does not tell, [-1, 1]³."""
    if isinstance(thing, SparseVoxels):
        size = thing.middle.new_tensor(thing.table.shape) * thing.unit
        low, high = (-thing.unit, thing.unit) if thing.contracted else (0, size)
        return torch.stack([thing.middle + low, thing.middle + high])
    if not isinstance(thing, Mesh | PointCloud):
        return torch.tensor([[-1.0] * 3, [1.0] * 3])
    points = thing.vertices if isinstance(thing, Mesh) else thing.points
    return torch.stack([points.amin(0), points.amax(0)]).detach().float()


def put_mesh(server: "viser.ViserServer", mesh: Mesh, texture: Texture | None, box: Box | None) -> None:
    """Show a mesh, of which only faces within a box, if there is one."""
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
        server.scene.add_mesh_trimesh("/mesh", _painted(mesh.replace(faces=faces), texture))


def _painted(mesh: Mesh, texture: Texture | None) -> "trimesh.Trimesh":
    """Give a mesh its picture, corner by corner, or the colors of its vertices."""
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
    """Show points as discs of a size, of which only those within a box, if there is one."""
    points, colors = cloud.points.detach().float(), cloud.colors
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


class PhotoCameras:
    """Cameras as frusta, blue where they train and orange where they test; a click goes where one stands."""

    def __init__(self, server: "viser.ViserServer", frames: Sequence[Frame], visible: bool) -> None:
        positions = torch.stack([frame.camera.position for frame in frames])
        size = FRUSTUM * float((positions.amax(0) - positions.amin(0)).norm()) or 0.1
        self._without_photo = deque(
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
        """Show or hide them."""
        self._folder.visible = visible

    def load_photo(self) -> bool:
        """Read the next photo, while they are visible; say whether there was one."""
        if not self._folder.visible or not self._without_photo:
            return False
        frame, handle = self._without_photo.popleft()
        if frame.image_path.is_file():  # a run does not need its photos
            handle.image = inspect_picture(frame).thumbnail
        return True


def put_camera(
    server: "viser.ViserServer", name: str, camera: Camera, size: float, color: tuple[int, int, int]
) -> "viser.CameraFrustumHandle":
    """Show a camera as a frustum; a click goes there."""
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
