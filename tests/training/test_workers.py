"""Workers: the same bits for any number of them, and a clear end when one of them fails."""

import math
import os
import signal
import socket
import sys
from pathlib import Path

import distributed_fit
import pytest
import torch

import launched
import unrender
from unrender.cli.main import main
from unrender.data.pixels import PixelSource
from unrender.errors import InputError
from unrender.tasks.nerf.fit_nerf import default_samples
from unrender.training.reduction import GradientSums
from unrender.training.shards import load_shards
from unrender.workers import ALONE, Workers

SCRIPT = str(Path(__file__).with_name("distributed_fit.py"))


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scene")
    unrender.save_demo_scene(folder, size=40, num_train=8, num_test=1)
    return folder


def alone(name: str, scene: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> str:
    distributed_fit.main(name, scene, folder, stop_at=0)
    return capsys.readouterr().out


def together(jobs: list[str], count: int, scene: Path, folder: Path) -> list[str]:
    """Let workers run jobs of distributed_fit.py; return the lines that the first one prints."""
    workers = launched.outputs(launched.fork([SCRIPT, str(scene), str(folder), *jobs], count))
    for rank, (status, out, err) in enumerate(workers):
        assert status == 0, err
        assert rank == 0 or out == ""
    return workers[0][1].splitlines(keepends=True)


@pytest.fixture(scope="module")
def two_workers(scene: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """Where two workers left the checkpoints of each job, and what they printed: starting workers takes longest."""
    folder, jobs = tmp_path_factory.mktemp("two_workers"), ["fit_nerf", "fit_volume", "fit_nerf@4"]
    return folder, dict(zip(jobs, together(jobs, 2, scene, folder), strict=True))


@pytest.mark.parametrize("name", ["fit_nerf", "fit_volume"])
def test_two_workers_give_the_bits_of_one(name, two_workers, scene, tmp_path, capsys) -> None:
    assert two_workers[1][name] == alone(name, scene, tmp_path, capsys)


def test_workers_with_different_numbers_of_shards_give_the_bits_of_one(scene, tmp_path, capsys) -> None:
    expected = alone("streamed", scene, tmp_path / "alone", capsys)
    assert together(["streamed"], 3, scene, tmp_path) == [expected]


@pytest.mark.slow
def test_four_workers_train_the_bits_of_one(scene, tmp_path, capsys) -> None:
    jobs = ["fit_nerf_50", "fit_volume_50"]
    expected = [alone(name, scene, tmp_path / "1" / name, capsys) for name in jobs]
    assert [line.split()[1] for line in expected] == ["50", "50"]
    assert together(jobs, 4, scene, tmp_path / "4") == expected


def test_a_training_resumes_with_another_number_of_workers(two_workers, scene, tmp_path, capsys) -> None:
    folder, printed = two_workers
    assert printed["fit_nerf@4"].startswith("fit_nerf 4 ")
    assert alone("fit_nerf", scene, folder / "fit_nerf@4", capsys) == printed["fit_nerf"]


def test_sums_do_not_depend_on_the_order_of_shards() -> None:
    generator = torch.Generator().manual_seed(0)
    scales = torch.tensor([1e-30, 1e-8, 1.0, 1e20])
    terms = torch.randn(5, 100, 4, generator=generator) * scales
    found = []
    for order in ([0, 1, 2, 3, 4], [3, 0, 4, 2, 1]):
        parameters = [torch.zeros(100, requires_grad=True) for _ in scales]
        sums = GradientSums(parameters, 5, 1)
        for shard in order:
            for number, parameter in enumerate(parameters):
                parameter.grad = terms[shard, :, number].clone()
            sums.add(shard, [float(shard)])
        values = sums.finish(ALONE)
        assert values.is_finite
        assert values.values[:, 0].tolist() == [0, 1, 2, 3, 4]
        found.append(torch.stack([parameter.grad for parameter in parameters], 1))
    assert torch.equal(*found)
    exact = terms.double().sum(0)
    torch.testing.assert_close(found[0].double(), exact, rtol=1e-6, atol=0)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_gradient_that_is_not_finite_is_noticed(bad) -> None:
    parameter = torch.zeros(3, requires_grad=True)
    sums = GradientSums([parameter], 2, 1)
    for shard in range(2):
        parameter.grad = torch.tensor([1.0, bad if shard else 1.0, 1.0])
        sums.add(shard, [0.0])
    assert not sums.finish(ALONE).is_finite


def test_shards_read_their_own_images_only(scene) -> None:
    frames = unrender.load_scene(scene).split("train")
    options = {"memory_mib": 100.0, "depth_loss_weight": 0.0, "seed": 0, "device": torch.device("cpu")}
    shards = [s for rank in range(2) for s in load_shards(frames, 3, Workers(rank, 2), **options)]
    read = [frame.name for shard in shards for frame in shard.pixels.frames]
    assert sorted(read) == sorted(frame.name for frame in frames)
    assert sum(shard.weight for shard in shards) == pytest.approx(1)
    for shard in shards:
        batch = shard.draw(300, 1)
        assert set(batch.frame.tolist()) <= set(shard.frame.tolist())
    with pytest.raises(InputError, match="2 workers, but steps have 1 shards"):
        load_shards(frames, 1, Workers(0, 2), **options)
    with pytest.raises(InputError, match="`shards` is 9, more than the 8 training images"):
        load_shards(frames, 9, ALONE, **options)


def test_more_shards_have_more_samples() -> None:
    found = [default_samples(on_gpu, shards) for on_gpu in (False, True) for shards in (1, 2, 8, 16)]
    assert found == [65_536, 65_536, 262_144, 524_288, 262_144, 262_144, 262_144, 524_288]


def test_a_source_continues_at_any_draw(scene) -> None:
    frames = unrender.load_scene(scene).split("train")
    whole = PixelSource(frames, memory_mib=0.02, seed=3)
    assert whole.is_streaming
    for draw in range(40):
        whole.seek(draw, 100 + draw)
        expected = whole.draw(16, 1)
        if draw % 7 == 0:
            other = PixelSource(frames, memory_mib=0.02, seed=3)
            other.seek(draw, 100 + draw)
            assert torch.equal(other.draw(16, 1).colors, expected.colors)


FAILING = """
import datetime, os, signal, sys
import torch.distributed as dist
from unrender.errors import InputError, WorkerError
from unrender.workers import joined_workers
with joined_workers() as workers:
    workers.gather(None)
    if workers.rank == int(sys.argv[2]):
        if sys.argv[1] == "raises":
            raise InputError("photo.png: damaged")
        if sys.argv[1] == "is killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if sys.argv[1] == "hangs":
            os.kill(os.getpid(), signal.SIGSTOP)
    if sys.argv[1] == "hangs":  # the time that a test can wait; connecting may take longer
        dist.distributed_c10d._set_pg_timeout(datetime.timedelta(seconds=2))
        os.environ["UNRENDER_WORKER_TIMEOUT"] = "2"
    for step in (lambda: list(workers.claims(3, "views")), lambda: workers.gather(None)):
        try:
            step()
        except WorkerError as error:
            print(error)
"""

HANGING = """
import os, signal, sys
print("it hangs", file=sys.stderr, flush=True)
print("hanging", flush=True)
os.kill(os.getpid(), signal.SIGSTOP)
"""


@pytest.mark.parametrize(
    ("end", "failing", "message"),
    [
        ("raises", 1, "worker 1 (HOST): photo.png: damaged"),
        ("is killed", 1, "another worker ended without a message; it may have been killed"),
        (
            "hangs",
            0,
            "another worker did not answer in time (UNRENDER_WORKER_TIMEOUT seconds, by default 1800)",
        ),
    ],
)
@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGSTOP")
def test_the_others_end_with_the_reason(end, failing, message) -> None:
    workers = launched.fork(["-c", FAILING, end, str(failing)], 2)
    try:
        out, _ = workers[1 - failing].communicate(timeout=launched.SECONDS)
    finally:
        workers[failing].kill()  # it may hang
    workers[failing].communicate()
    assert out.count(message.split("HOST")[-1]) == (2 if end == "hangs" else 1)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_no_forked_worker_outlives_its_test(monkeypatch) -> None:
    monkeypatch.setenv("NAME_OF_TEST", "this one")  # the server that forks was started in another one
    [failed] = launched.outputs(
        [launched.Forked(["-c", "import os; assert os.environ['NAME_OF_TEST'] == ''"])]
    )
    assert failed[:2] == (1, "")
    assert "AssertionError" in failed[2]
    monkeypatch.setattr(launched, "SECONDS", 0.5)
    late = [launched.Forked(["-c", HANGING]) for _ in range(2)]
    assert late[0].stdout.readline() == "hanging\n"
    with pytest.raises(TimeoutError, match=r"in 0\.5 seconds: it hangs"):
        launched.outputs(late)
    late[1].communicate()
    assert [worker.returncode for worker in late] == [-signal.SIGKILL] * 2


def test_a_port_that_is_in_use_is_said_to_be(monkeypatch, capsys) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        variables = {"WORLD_SIZE": "2", "RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        assert main(["doctor"]) == 1
    error = capsys.readouterr().err
    assert f"cannot reach the others at 127.0.0.1:{port}" in error
    assert "the port may be in use (choose another: torchrun --master-port N)" in error
    assert len(error.strip().splitlines()) == 1


CONNECTED = """
import importlib, os
from unrender.errors import InputError
from unrender.workers import joined_workers
def threads():
    return {open(f"/proc/self/task/{task}/comm").read().strip() for task in os.listdir("/proc/self/task")}
with joined_workers() as workers:
    importlib.import_module("torch.distributed.nn")  # optimizers import it
    try:
        workers.require_same("the scene", f"scene {workers.rank}")
    except InputError as error:
        print(error)
    during = threads()
print(sorted(name for name in during if "gloo" in name), [name for name in threads() if "gloo" in name])
"""


@pytest.fixture(scope="module")
def connected() -> list[list[str]]:
    """The lines that each of two workers prints while connected, and afterwards."""
    found = launched.outputs(launched.start(["-c", CONNECTED], 2))
    assert [status for status, *_ in found] == [0, 0], found
    return [out.splitlines() for _, out, _ in found]


def test_workers_that_see_other_files_are_told(connected) -> None:
    for message, _ in connected:
        assert message.startswith("workers differ in the scene: scene 0 on worker 0 (")
        assert "scene 1 on worker 1 (" in message


@pytest.mark.skipif(sys.platform != "linux", reason="reads the names of threads")
def test_the_threads_of_the_process_group_end_before_python_does(connected) -> None:
    assert [threads for _, threads in connected] == ["['gloo_tcp_loop', 'pt_gloo_runloop'] []"] * 2
