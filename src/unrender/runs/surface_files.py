"""The files of a fitted surface: mesh with texture, levels of detail, collision mesh, turntable."""

import dataclasses
import importlib.util
import logging
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from unrender.errors import InputError, UnrenderError
from unrender.geometry.camera import Camera
from unrender.geometry.camera_paths import stack_cameras, up_direction
from unrender.geometry.export_frame import Units, UpAxis, transform_for_export
from unrender.geometry.mesh import Mesh
from unrender.geometry.uv_atlas import MAX_TEXTURE_SIZE, MIN_TEXTURE_SIZE, UVAtlas, unwrap
from unrender.geometry.world_origin import ZERO, WorldOrigin, to_world
from unrender.io.mesh_parts import save_mesh_parts
from unrender.io.textured_meshes import save_textured_mesh
from unrender.render.texture import Texture
from unrender.tasks.surface.bake_texture import BakedTexture, BakeTextureStep, bake_texture_steps
from unrender.tasks.surface.convex_parts import convex_parts
from unrender.tasks.surface.levels_of_detail import MIN_FACES, iterate_levels
from unrender.tasks.surface.photo_views import PhotoView
from unrender.tasks.surface.turntable import save_turntable

log = logging.getLogger("unrender")

MAX_LEVELS = 8
PADDING = 4
FAILURES = (UnrenderError, OSError, RuntimeError, MemoryError)
"""What fails without harm to the other files: full disks, meshes that cannot be decomposed or unwrapped, encoders."""


@dataclasses.dataclass(frozen=True)
class SurfaceFiles:
    """What is written."""

    format: tuple[Literal["glb", "obj", "ply"], ...] = ("glb",)
    """File formats of the mesh."""
    colors: Literal["texture", "vertex"] = "texture"
    """texture: a texture baked from the photos; vertex: a color for each vertex, without a texture."""
    texture_size: int = 2048
    """Side of the texture in texels."""
    texture_steps: int = 300
    """Steps in which the texture is refined against one photo each, as far as the time suffices; 0 keeps the projected
    colors."""
    lods: int = 0
    """Number of simplified levels of detail, each with a quarter of the faces of the one before."""
    collision: bool = False
    """Write a collision mesh of convex parts."""
    up: UpAxis = "scene"
    """Axis that points up in the files: y (glTF, Unity), z (Blender, ROS), or scene to keep the axes."""
    units: Units = "m"
    """Unit of the files, for a scene in meters."""
    turntable: bool = False
    """Write a turntable video."""

    def check(self) -> None:
        """Raise InputError for values out of range."""
        if not self.format:
            raise InputError("--format: give at least one of glb, obj and ply")
        if not MIN_TEXTURE_SIZE <= self.texture_size <= MAX_TEXTURE_SIZE:
            raise InputError(
                f"--texture-size {self.texture_size}: must be {MIN_TEXTURE_SIZE} to {MAX_TEXTURE_SIZE}"
            )
        if self.texture_steps < 0:
            raise InputError(f"--texture-steps {self.texture_steps}: must be at least 0")
        if not 0 <= self.lods <= MAX_LEVELS:
            raise InputError(f"--lods {self.lods}: must be 0 to {MAX_LEVELS}")
        self._require_packages()

    def _require_packages(self) -> None:
        """Raise InputError for packages that would be missed only after the surface was fitted."""
        needed = {"fast_simplification": True, "xatlas": self.colors == "texture", "coacd": self.collision}
        for module, is_needed in needed.items():
            if is_needed and importlib.util.find_spec(module) is None:
                instead = "; or give --colors vertex" if module == "xatlas" else ""
                raise InputError(
                    f"{module.replace('_', '-')} is not installed: pip install 'unrender[surface]'{instead}"
                )


@dataclasses.dataclass(frozen=True)
class TextureStep:
    """A step of the computation of a texture."""

    index: int
    last_index: int
    stage: Literal["unwrapping", "projected", "refined"]
    atlas: UVAtlas | None = None
    baking: BakeTextureStep | None = None

    @property
    def baked(self) -> BakedTexture | None:
        """The texture so far; None before the photos are projected."""
        return None if self.baking is None else self.baking.result


def texture_steps(
    mesh: Mesh,
    views: Sequence[PhotoView],
    files: SurfaceFiles,
    *,
    exposure: bool = False,
    seconds: float | None = None,
) -> Iterator[TextureStep]:
    """Unwrap a mesh and bake its texture; a budget in `seconds` ends the refinement early."""
    last, start = files.texture_steps + 1, time.perf_counter()
    yield TextureStep(0, last, "unwrapping")
    padding = min(PADDING, files.texture_size // 16)
    atlas = unwrap(mesh, texture_size=files.texture_size, padding=padding)
    left = None if seconds is None else start + seconds - time.perf_counter()
    steps = bake_texture_steps(
        mesh, atlas, views, refine_steps=files.texture_steps, exposure=exposure, seconds=left
    )
    for step in steps:
        yield TextureStep(step.index + 1, last, "refined" if step.index else "projected", atlas, step)


class Extras(NamedTuple):
    """Files beside the mesh, and what could not be written."""

    paths: list[Path]
    failures: list[str]
    """An option and what went wrong, in a sentence each."""


@dataclasses.dataclass(frozen=True)
class SurfaceWriter:
    """Writes the files of a surface to a folder."""

    folder: Path
    mesh: Mesh
    texture: Texture | None
    files: SurfaceFiles
    cameras: Sequence[Camera]
    """Of the photos: they define the scene's up direction and the path of the turntable."""
    orbit: bool = True
    """Path of the turntable, see `save_turntable`."""
    origin: WorldOrigin = ZERO

    def save_mesh(self) -> list[Path]:
        """Write the mesh in all formats; return the files."""
        return self._save("mesh", self.mesh, self.texture)

    def save_extras(self) -> Extras:
        """Write levels of detail, collision mesh and turntable, as far as they are requested; one may fail."""
        wanted = {
            "--lods": (self._levels, self.files.lods > 0),
            "--collision": (self._collision, self.files.collision),
            "--turntable": (self._turntable, self.files.turntable),
        }
        extras = Extras([], [])
        for option, (write, is_wanted) in wanted.items():
            try:
                extras.paths.extend(write() if is_wanted else ())
            except FAILURES as error:
                extras.failures.append(f"{option} failed: {error}")
                log.warning("%s", extras.failures[-1])
        return extras

    def _levels(self) -> Iterator[Path]:
        number = 0
        for detail in iterate_levels(self.mesh, self.texture, levels=self.files.lods):
            number += 1
            yield from self._save(f"mesh_lod{number}", detail.mesh, detail.texture)
        if number < self.files.lods:
            log.warning(
                "--lods %d: %d written; further ones would have less than %d faces",
                self.files.lods,
                number,
                MIN_FACES,
            )

    def _collision(self) -> Iterator[Path]:
        path = self.folder / "collision.obj"
        save_mesh_parts([self._place(part) for part in convex_parts(self.mesh)], path)
        yield path

    def _turntable(self) -> Iterator[Path]:
        path = self.folder / "turntable.mp4"
        save_turntable(self.mesh, self.texture, self.cameras, path, orbit=self.orbit)
        yield path

    def _place(self, shape: Mesh) -> Mesh:
        """Move a mesh to world coordinates, with the axes and units of the files."""
        up, units = self.files.up, self.files.units
        scene_up = up_direction(stack_cameras(self.cameras)) if up != "scene" else None
        return transform_for_export(to_world(shape, self.origin), up=up, scene_up=scene_up, units=units)

    def _save(self, name: str, shape: Mesh, colors: Texture | None) -> list[Path]:
        written = [
            save_textured_mesh(self._place(shape), colors, self.folder / f"{name}.{kind}")
            for kind in self.files.format
        ]
        return list(dict.fromkeys(path for paths in written for path in paths))  # obj and ply share a png


def texture_metrics(atlas: UVAtlas, baked: BakedTexture) -> dict[str, Any]:
    """Return the size of a texture, its charts, and the fraction of its texels that no photo shows."""
    return {
        "texture_size": atlas.texture_size,
        "num_charts": atlas.num_charts,
        "unobserved_texture": baked.num_unobserved / max(1, baked.num_texels),
    }
