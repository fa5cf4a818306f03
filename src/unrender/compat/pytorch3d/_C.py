"""PyTorch3D's compiled functions, which are not part of its interface: each raises an error when called."""

from typing import Any, NoReturn

from unrender.compat.pytorch3d._names import missing


def __getattr__(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def refuse(*_: Any, **__: Any) -> NoReturn:
        raise missing(__name__, name)

    return refuse
