"""Titles, texts and Python code of the tasks of the tour."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unrender.reports.reproduce import Name, call, construct, python_code
from unrender.tour.report import Description


def mesh() -> Description:
    """Describe fitting a mesh to a point cloud."""
    return Description(
        "mesh",
        "Point cloud → mesh",
        "A surface is fitted to the points, coarse to fine, with remeshing. The result is watertight, has the handle "
        "of the object, and is closer to the ground truth than the points themselves, since noise averages out.",
        python_code(
            'cloud = unrender.load_cloud("scan.ply")',
            "for step in unrender.fit_mesh(cloud):",
            "    print(step.index, step.losses)",
            'unrender.save_mesh(step.result, "mesh.ply")',
        ),
    )


def pose(fov_degrees: float, config: Any) -> Description:
    """Describe estimating the pose of an object."""
    inputs = [Name("mesh"), Name("photo"), construct(config)]
    keywords: Mapping[str, Any] = {"texture": Name("texture")}
    return Description(
        "pose",
        "Image → pose",
        "The object is rendered from all directions; the views most similar to the photo are optimized until contour "
        "and shading match. No initial guess and no light direction are given. The same works for a scan of one side: "
        "the mesh is aligned with its points.",
        python_code(
            'mesh, texture = unrender.load_textured_mesh("truth.ply")',
            f'photo = unrender.load_photo("photo.png", fov_degrees={fov_degrees:g})',
            f"*_, last = {call('unrender.find_pose', *inputs, keywords=keywords)}",
            "print(last.result.status, last.result.camera_from_object)",
        ),
    )


def volume(config: Any) -> Description:
    """Describe fitting a voxel volume."""
    return Description(
        "volume",
        "Images → volume",
        "Voxels with density and view-dependent color are optimized until rendered rays match the training images. "
        "Test views are held out to measure the quality of new views.",
        python_code(
            'scene = unrender.load_scene("photos")',
            f"config = {construct(config)}",
            "*_, last = unrender.fit_volume(scene, config)",
            'unrender.save_field(last.result, "volume.safetensors")',
            'unrender.save_image(last.result.render(scene.frames[0].camera).color, "view.png")',
        ),
    )


def field(config: Any) -> Description:
    """Describe training a radiance field."""
    return Description(
        "field",
        "Images → radiance field",
        "A NeRF with a hash grid and two small MLPs, trained on random rays of the training images. The tour trains "
        "for less than a minute; five minutes give sharper results. The field has density and color at every point, so "
        "new views can be rendered from anywhere.",
        python_code(
            'scene = unrender.load_scene("photos")',
            f"for step in {call('unrender.fit_nerf', Name('scene'), construct(config))}:",
            "    print(step.index, step.losses, step.held_out_psnr)",
            'unrender.save_field(step.result, "field.safetensors")',
            'unrender.save_image(step.result.render(scene.frames[0].camera).color, "view.png")',
        ),
    )


def depth(run: Path, spacing: float, voxel_size: float) -> Description:
    """Describe depth maps, point clouds and meshes from a radiance field."""
    return Description(
        "depth",
        "Radiance field → depth → point cloud → mesh",
        "Depth is measured in the field at the training cameras. Points on which several views agree form a cloud; "
        "meshes are fused from the depth maps, or fitted to the points as to any scan. After such a short training the "
        "density is still blurred, so the median depth lies slightly behind the surface.",
        python_code(
            f"field = {call('unrender.load_field', run / 'field.safetensors')}",
            "views = []",
            f"for frame in {call('unrender.load_cameras', run / 'cameras.json')}:",
            "    depth = unrender.measure_depth(field, frame.camera)",
            "    views.append(unrender.DepthView(frame.camera, depth.median_z * depth.valid))",
            f"cloud = unrender.points_from_views(views, spacing={spacing:g})",
            f"mesh = unrender.fuse_depths(views, voxel_size={voxel_size:g})",
        ),
    )
