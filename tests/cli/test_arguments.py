"""Options of commands: their names in help texts and messages."""

import pytest

import unrender
from unrender.cli import fit_mesh
from unrender.cli.arguments import with_option_names
from unrender.cli.main import main


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--table-log2", "3"], "unrender fit-nerf: --table-log2 should be 10 to 24, got 3\n"),
        (["--minutes", "1", "--steps", "2"], "unrender fit-nerf: give --minutes or --steps, not both\n"),
    ],
)
def test_messages_name_options_instead_of_parameters(options, message, tmp_path, capsys) -> None:
    unrender.save_demo_scene(tmp_path / "scene", size=16, num_train=2, num_test=1)
    assert main(["fit-nerf", str(tmp_path / "scene"), *options]) == 2
    assert capsys.readouterr().err == message


def test_parameters_that_are_no_options_keep_their_names() -> None:
    message = "fit_mesh: `cloud` should have at least 10 points, got 3"
    assert with_option_names(message, fit_mesh.command) == message
    assert with_option_names("fit_mesh: `holdout` is 2", fit_mesh.command) == "--holdout is 2"


@pytest.mark.parametrize(
    ("command", "text"),
    [("view", "--window LOW HIGH"), ("fit-mesh", "--intrinsics FX FY CX CY"), ("fit-nerf", "--views N|all")],
)
def test_values_of_an_option_have_names(command, text, capsys) -> None:
    with pytest.raises(SystemExit):
        main([command, "--help"])
    assert text in capsys.readouterr().out


def test_a_wrong_number_of_values_is_said_without_markup(capsys) -> None:
    with pytest.raises(SystemExit):
        main(["track-pose", "cup.obj", "video.mp4", "--intrinsics", "500", "500", "320"])
    error = capsys.readouterr().err
    assert "Expected 4 values" in error
    assert "[bold]" not in error
