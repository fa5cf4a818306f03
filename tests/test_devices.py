import re

import pytest
import torch

import launched
import unrender
from unrender import devices
from unrender.cli.doctor import WorkerSetup, describe_gpus, describe_workers
from unrender.devices import Gpu, Hardware, resolve_device

H200, L4 = Gpu("NVIDIA H200", 141 * 2**30), Gpu("NVIDIA L4", 23 * 2**30)
MACHINES = {
    "two GPUs": Hardware((H200, L4), "1.19.0"),
    "no Warp": Hardware((H200,), None),
    "no GPU": Hardware((), "1.19.0"),
    "CPU build": Hardware((), None, cuda_build=False),
    "AMD": Hardware((), "1.19.0", ("Radeon RX 7900 (AMD)",), cuda_build=False),
    "Apple": Hardware((), None, ("Apple",), cuda_build=False),
}


@pytest.fixture(autouse=True)
def two_gpus(monkeypatch):
    monkeypatch.setattr(devices, "find_hardware", lambda: MACHINES["two GPUs"])


@pytest.mark.parametrize(
    ("name", "expected"),
    [("auto", "cuda:0"), ("cpu", "cpu"), ("cuda", "cuda:0"), ("cuda:0", "cuda:0"), ("cuda:1", "cuda:1")],
)
def test_names_of_devices(name, expected):
    assert resolve_device(name) == torch.device(expected)
    assert resolve_device(torch.device(expected)) == torch.device(expected)


@pytest.mark.parametrize("name", ["gpu", "CUDA", "cuda:", "cuda:-1", "cuda:x", "cuda:²", "cpu:0", ""])
def test_other_names_are_refused(name):
    with pytest.raises(unrender.InputError, match="must be auto, cpu, cuda or cuda:N"):
        resolve_device(name)


@pytest.mark.parametrize(
    ("machine", "device", "message"),
    [
        (
            "two GPUs",
            "cuda:2",
            "device cuda:2: there is no such GPU; torch finds cuda:0 (NVIDIA H200), cuda:1 (NVIDIA L4)",
        ),
        ("no GPU", "cuda", "device cuda: there is no such GPU; torch finds no GPU"),
        ("CPU build", "cuda", "device cuda: there is no such GPU; this build of torch supports no GPU"),
        (
            "no Warp",
            "cuda",
            "device cuda: NVIDIA Warp is not installed; pip install 'unrender[gpu]', or use cpu",
        ),
    ],
)
def test_errors_are_one_sentence(machine, device, message):
    with pytest.raises(unrender.InputError) as caught:
        MACHINES[machine].device(device)
    assert str(caught.value) == message


@pytest.mark.parametrize("machine", [name for name in MACHINES if name != "two GPUs"])
def test_auto_is_the_cpu_without_an_nvidia_gpu_and_warp(machine):
    assert MACHINES[machine].device("auto") == torch.device("cpu")


@pytest.mark.parametrize(
    ("machine", "lines"),
    [
        (
            "two GPUs",
            [
                "gpu       cuda:0, NVIDIA H200, 141 GiB",
                "gpu       cuda:1, NVIDIA L4, 23 GiB",
                "device    auto is cuda:0: NVIDIA H200, with NVIDIA Warp 1.19.0",
            ],
        ),
        (
            "no Warp",
            [
                "gpu       cuda:0, NVIDIA H200, 141 GiB",
                "device    auto is cpu: NVIDIA Warp is not installed: pip install 'unrender[gpu]'",
            ],
        ),
        (
            "no GPU",
            [
                "gpu       none that torch can use; none is needed",
                "device    auto is cpu: torch finds no GPU",
            ],
        ),
        (
            "CPU build",
            [
                "gpu       none that torch can use; none is needed",
                "device    auto is cpu: this build of torch supports no GPU",
            ],
        ),
        (
            "AMD",
            [
                "gpu       Radeon RX 7900 (AMD): no fast kernels; tensors there run the plain torch reference, with "
                "a warning",
                "device    auto is cpu: there are no fast kernels for GPUs of other makers than NVIDIA",
            ],
        ),
        (
            "Apple",
            [
                "gpu       Apple: no fast kernels; tensors there run the plain torch reference, with a warning",
                "device    auto is cpu: there are no fast kernels for GPUs of other makers than NVIDIA",
            ],
        ),
    ],
)
def test_doctor_says_what_will_be_used_and_why(machine, lines):
    assert describe_gpus(MACHINES[machine]) == lines


def test_doctor_says_how_workers_differ():
    versions = {"unrender": "1.0", "torch": "2.11.0"}
    setups = [WorkerSetup("left", "cuda:0", 8, versions), WorkerSetup("right", "cuda:1", 1, versions)]
    lines = ["worker 0  left, cuda:0, 8 threads", "worker 1  right, cuda:1, 1 thread"]
    same = "workers   have the same versions and the same kind of device"
    assert describe_workers(setups) == [*lines, same]
    setups += [WorkerSetup("right", "cpu", 1, {**versions, "torch": "2.10.0", "numba": "0.63"})]
    lines += ["worker 2  right, cpu, 1 thread"]
    differences = [
        "differ    torch: 2.11.0 on 0, 1; 2.10.0 on 2",
        "differ    numba: missing on 0, 1; 0.63 on 2",
    ]
    assert describe_workers(setups) == [*lines, *differences]


def test_doctor_lists_workers():
    workers = launched.start(["-m", "unrender", "doctor"], 2)
    (status, out, err), (other, silence, _) = launched.outputs(workers)
    assert (status, other, silence) == (0, 0, ""), err
    assert re.search(r"^worker 0  \S+, \w+(:\d)?, 1 thread$", out, re.MULTILINE)
    assert re.search(r"^worker 1  \S+, \w+(:\d)?, 1 thread$", out, re.MULTILINE)
    assert "workers   have the same versions and the same kind of device\n" in out
    assert "check     nearest points" in out


def test_this_machine_has_a_device(monkeypatch):
    monkeypatch.undo()
    hardware = devices.find_hardware()
    assert bool(hardware.gpus) <= torch.cuda.is_available()
    assert resolve_device().type in ("cpu", "cuda")
