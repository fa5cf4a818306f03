import sys

import pytest
import torch

from unrender.compat.pytorch3d.renderer import (
    FoVPerspectiveCameras,
    NDCMultinomialRaysampler,
    TexturesUV,
    TexturesVertex,
    look_at_view_transform,
)
from unrender.compat.pytorch3d.structures import Meshes, Pointclouds
from unrender.compat.pytorch3d.utils import ico_sphere
from unrender.compat.pytorch3d.vis import plotly_vis
from unrender.errors import InputError, UnrenderError

SETTINGS = {
    "scale": 0.3,
    "max_points": 10,
    "marker_size": 1,
    "max_rays": 4,
    "max_points_per_ray": 3,
    "ray_marker_size": 1,
    "ray_width": 1,
    "lighting": plotly_vis.Lighting(),
    "opacity": 1.0,
}


@pytest.fixture
def cameras():
    R, T = look_at_view_transform(3.0, 30.0, [10.0, 40.0])
    return FoVPerspectiveCameras(R=R, T=T)


def test_what_plotly_is_told(cameras):
    ball = ico_sphere(1)
    ball.textures = TexturesVertex([torch.ones(42, 3)])
    (mesh,) = plotly_vis.traces("ball", ball, SETTINGS)
    assert (mesh["type"], len(mesh["x"]), len(mesh["i"])) == ("mesh3d", 42, 80)
    assert mesh["vertexcolor"][0] == "rgb(255,255,255)"
    picture = TexturesUV([torch.zeros(4, 4, 3)], [ball.faces_list()[0]], [torch.rand(42, 2)])
    (mesh,) = plotly_vis.traces("ball", Meshes(ball.verts_list(), ball.faces_list(), picture), SETTINGS)
    assert mesh["facecolor"] == ["rgb(0,0,0)"] * 80
    cloud = Pointclouds([torch.rand(50, 3)], features=[torch.rand(50, 3)])
    (points,) = plotly_vis.traces("cloud", cloud, SETTINGS)
    assert len(points["x"]) == len(points["marker"]["color"]) == 10
    (lines,) = plotly_vis.traces("cameras", cameras, SETTINGS)
    assert len(lines["x"]) == 2 * 10 * 3
    wires = plotly_vis.camera_wireframe(cameras, 0.3)
    assert wires[4, 0].tolist() == pytest.approx(cameras.get_camera_center()[0].tolist(), abs=1e-5)
    rays = NDCMultinomialRaysampler(
        image_width=6, image_height=4, n_pts_per_ray=5, min_depth=1.0, max_depth=2.0
    )
    lines, marks = plotly_vis.traces("rays", rays(cameras), SETTINGS)
    assert (len(lines["x"]), len(marks["x"])) == (4 * 3, 4 * 3)
    with pytest.raises(InputError, match="takes Meshes, Pointclouds"):
        plotly_vis.traces("number", 3, SETTINGS)


def test_says_that_plotly_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "plotly.subplots", None)
    with pytest.raises(UnrenderError, match="pip install plotly"):
        plotly_vis.plot_scene({"one": {"ball": ico_sphere(0)}})
    with pytest.raises(InputError, match="unknown arguments colour"):
        plotly_vis.plot_scene({"one": {}}, colour="red")


def test_figure(cameras):
    pytest.importorskip("plotly")
    figure = plotly_vis.plot_scene(
        {
            "one": {"ball": ico_sphere(1), "cameras": cameras},
            "two": {"cloud": Pointclouds([torch.rand(9, 3)])},
        },
        viewpoint_cameras=cameras,
        ncols=2,
    )
    assert len(figure.data) == 3
    assert plotly_vis.plot_batch_individually(ico_sphere(1).extend(3)).data[2].name == "trace3-1"
