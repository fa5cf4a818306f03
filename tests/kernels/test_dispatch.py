import os
import subprocess
import sys
import textwrap

import pytest
import torch

from check_kernel import needs_warp
from unrender import KernelError, chamfer_distance, closest_on_mesh, cube, index_points, nearest
from unrender.kernels import _dispatch
from unrender.kernels._dispatch import implementation


def run_python(code, **environment):
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=600,  # of what hangs
        env=os.environ | {"OMP_NUM_THREADS": "2"} | environment,
        check=False,
    )


@pytest.mark.parametrize(
    "call",
    [
        lambda: nearest(torch.rand(2, 3), torch.rand(2, 3)),
        lambda: index_points(torch.rand(2, 3)),
        lambda: closest_on_mesh(torch.rand(2, 3), cube().vertices, cube().faces),
        lambda: chamfer_distance(torch.rand(2, 3), torch.rand(2, 3)),
    ],
)
def test_an_unknown_choice_is_named(call, monkeypatch):
    monkeypatch.setenv("UNRENDER_KERNELS", "bogus")
    with pytest.raises(KernelError) as caught:
        call()
    assert str(caught.value) == "UNRENDER_KERNELS should be 'fast', 'reference' or 'warp', got 'bogus'"


def test_the_reference_serves_where_it_is_asked_for_or_nothing_else_does(monkeypatch):
    assert implementation("nearest", torch.device("cpu")).__name__ == "unrender.kernels.nearest.cpu"
    assert implementation("nearest", torch.device("meta")) is None
    monkeypatch.setenv("UNRENDER_KERNELS", "reference")
    assert implementation("nearest", torch.device("cpu")) is None


@pytest.mark.parametrize("device", ["cuda", "mps"])
def test_a_gpu_without_fast_kernels_is_named_once(device, monkeypatch, caplog):
    monkeypatch.setattr(_dispatch, "_has_warp", lambda: False)
    monkeypatch.setattr(_dispatch, "_has_gpu_kernel", lambda kernel: True)
    _dispatch._warn_once.cache_clear()
    for _ in range(2):
        assert implementation("nearest", torch.device(device)) is None
    message = {
        "cuda": "NVIDIA Warp is not installed; plain torch is used on the GPU: pip install 'unrender[gpu]'",
        "mps": "mps: no fast kernels for this device; plain torch is used",
    }[device]
    assert [(record.levelname, record.message) for record in caplog.records] == [("WARNING", message)]


@needs_warp
def test_cpu_tensors_can_go_to_the_kernels_of_the_gpu(monkeypatch):
    monkeypatch.setenv("UNRENDER_KERNELS", "warp")
    assert implementation("nearest", torch.device("cpu")).__name__ == "unrender.kernels.nearest.gpu"


@needs_warp
def test_a_forked_process_cannot_use_its_parents_gpu(monkeypatch):
    cuda = torch.device("cuda")
    monkeypatch.setattr(_dispatch, "_cuda_process", lambda: os.getpid() + 1)
    with pytest.raises(KernelError, match="start processes with 'spawn'"):
        implementation("nearest", cuda)


def test_python_threads_can_run_kernels_at_the_same_time():
    done = run_python("""
        import threading
        import torch
        import unrender

        torch.manual_seed(0)
        queries, points, sphere = torch.randn(3000, 3), torch.randn(4000, 3), unrender.ico_sphere(3)
        results = [[] for _ in range(4)]

        def work(mine):
            for _ in range(15):
                mine.append(unrender.nearest(queries, points).distances)
                mine.append(unrender.closest_on_mesh(queries, sphere.vertices, sphere.faces).squared_distances)

        threads = [threading.Thread(target=work, args=(mine,)) for mine in results]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        alone = []
        work(alone)
        for mine in results:
            assert len(mine) == len(alone)
            assert all(torch.equal(a, b) for a, b in zip(mine, alone))
        print("same")
    """)
    assert (done.returncode, done.stdout, done.stderr) == (0, "same\n", "")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork on this system")
def test_a_forked_process_can_run_kernels():
    done = run_python("""
        import os
        import warnings
        import torch
        import unrender

        torch.set_num_threads(2)
        queries, points = torch.rand(3000, 3), torch.rand(3000, 3)
        before = unrender.nearest(queries, points).ids
        warnings.simplefilter("ignore")  # Python's: fork is unsafe beside threads
        child = os.fork()
        if child == 0:
            os._exit(0 if torch.equal(unrender.nearest(queries, points).ids, before) else 1)
        print(os.waitpid(child, 0)[1])
    """)
    assert (done.returncode, done.stdout, done.stderr) == (0, "0\n", "")


def test_compilation_is_announced_once(tmp_path):
    done = run_python(
        """
        import logging
        import torch
        from unrender.kernels.interpolate import interpolate_attributes

        logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s")
        first, corners = torch.zeros(1, dtype=torch.long), torch.tensor([[0, 1, 2]])
        for dtype in (torch.float32, torch.float64):  # of all kernels, this is compiled fastest
            inside, values = torch.ones(1, 3, dtype=dtype), torch.ones(1, 3, 2, dtype=dtype)
            interpolate_attributes(inside, values, corners, first, first, first)
        """,
        NUMBA_CACHE_DIR=str(tmp_path),
    )
    assert done.stderr == "unrender: compiling CPU kernels: once on each machine, then cached\n"
    assert done.returncode == 0


def test_without_a_folder_to_write_to_kernels_are_compiled_in_every_process():
    done = run_python(
        """
        import logging
        import torch
        from numba.core import caching
        from unrender.kernels.interpolate import interpolate_attributes

        logging.basicConfig(level=logging.WARNING)
        caching.CacheImpl._locator_classes = []  # as where neither package nor home can be written to
        first, corners = torch.zeros(1, dtype=torch.long), torch.tensor([[0, 1, 2]])
        for dtype in (torch.float32, torch.float64):
            inside, values = torch.ones(1, 3, dtype=dtype), torch.ones(1, 3, 2, dtype=dtype)
            print(interpolate_attributes(inside, values, corners, first, first, first).tolist())
        """
    )
    assert (done.returncode, done.stdout) == (0, "[[3.0, 3.0]]\n" * 2), done.stderr
    assert done.stderr.count("no writable folder for compiled kernels") == 1, done.stderr


def test_results_are_where_the_tensors_are_whatever_the_default_device():
    points, mesh = torch.rand(50, 3, requires_grad=True), cube()
    with torch.device("meta"):
        chamfer_distance(points, index_points(mesh.vertices)).distance.backward()
        found = closest_on_mesh(points, mesh.vertices, mesh.faces)
    assert found.face_ids.device == points.grad.device == points.device
