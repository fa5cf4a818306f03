"""What the tour says of its jobs, and the lines of Python that do them."""

from unrender.tour.report import Words


def mesh() -> Words:
    """From points to a mesh."""
    return Words(
        "mesh",
        "Cloud → mesh",
        "A surface is moved onto the points, coarse to fine, and remeshed on the way. It comes out closed, with the "
        "handle that the object has, and lies nearer to the truth than the points themselves: noise averages out.",
        _lines(
            'cloud = unrender.load_cloud("scan.ply")',
            "for step in unrender.fit_mesh(cloud):",
            "    print(step.index, step.losses)",
            'unrender.save_mesh(step.result, "mesh.ply")',
        ),
    )


def pose(fov_degrees: float, config: str) -> Words:
    """From a photo to where its camera stood."""
    settings = f"unrender.FindPose({config}), " if config else ""
    return Words(
        "pose",
        "Picture → pose",
        "Where did the camera stand? The object is drawn from all around; what looks most like the photo descends "
        "until outline and shading agree. No first guess is given, nor where the sun stood. A scan of one side does as "
        "well: then the mesh is laid among the points.",
        _lines(
            'mesh, texture = unrender.load_textured_mesh("truth.ply")',
            f'photo = unrender.load_photo("photo.png", fov_degrees={fov_degrees:g})',
            f"*_, last = unrender.find_pose(mesh, photo, {settings}texture=texture)",
            "print(last.result.verdict, last.result.camera_from_object)",
        ),
    )


def volume(config: str) -> Words:
    """From photos to voxels."""
    return Words(
        "volume",
        "Images → volume",
        "Voxels with a density and a color that depends on where one stands, so that rays through them look like the "
        "photos. Some photos are held out: they tell how new views look.",
        _lines(
            'scene = unrender.load_scene("photos")',
            f"config = unrender.FitVolume({config})",
            "*_, last = unrender.fit_volume(scene, config)",
            'unrender.save_field(last.result, "volume.safetensors")',
            'unrender.save_image(last.result.render(scene.frames[0].camera).color, "view.png")',
        ),
    )


def field(config: str) -> Words:
    """From photos to a radiance field."""
    return Words(
        "field",
        "Images → radiance field",
        "A NeRF: features in a hash table and two small perceptrons, learned from random rays of the photos. The tour "
        "gives it less than a minute; five make it sharper. It knows density and color everywhere, so that "
        "new views can be rendered from anywhere.",
        _lines(
            'scene = unrender.load_scene("photos")',
            f"for step in unrender.fit_nerf(scene, unrender.FitNerf({config})):",
            "    print(step.index, step.losses, step.held_out_psnr)",
            'unrender.save_field(step.result, "field.safetensors")',
            'unrender.save_image(step.result.render(scene.frames[0].camera).color, "view.png")',
        ),
    )


def depth(spacing: float, voxel_size: float) -> Words:
    """From a radiance field to depth, points and a mesh."""
    return Words(
        "depth",
        "Radiance field → depth → cloud → mesh",
        "The field knows how far away everything is. Depth is measured where the photos stood; points stay on which "
        "several views agree; meshes are fused from the depths, or fitted to the points as to any scan. Density is "
        "still blurred after so short a time, and the median of where light ends lies somewhat behind the surface.",
        _lines(
            'field = unrender.load_field("radiance-field/field.safetensors")',
            "views = []",
            'for frame in unrender.load_cameras("radiance-field/cameras.json"):',
            "    depth = unrender.measure_depth(field, frame.camera)",
            "    views.append(unrender.DepthView(frame.camera, depth.median_z * depth.valid))",
            f"cloud = unrender.points_from_views(views, spacing={spacing:g})",
            f"mesh = unrender.fuse_depths(views, voxel_size={voxel_size:g})",
        ),
    )


def _lines(*lines: str) -> str:
    return "\n".join(["import unrender", "", *lines])
