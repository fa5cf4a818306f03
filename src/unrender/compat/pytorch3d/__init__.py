"""PyTorch3D's names on top of unrender.

Change the prefix of imports from `pytorch3d` to `unrender.compat.pytorch3d`, call `install()` before them, or run
scripts as they are: `python -m unrender.compat.pytorch3d SCRIPT.py [args]`. Settings are held and conventions
converted here; all work is done by the rest of unrender. docs/coming-from-pytorch3d.md says what is different.
"""

import sys

from unrender.compat.pytorch3d._names import RefuseUnknownModules, install, refuse_unknown

__version__ = "0.7.9"
"""Version of PyTorch3D whose names these are."""
__all__ = ["install"]

if not any(isinstance(finder, RefuseUnknownModules) for finder in sys.meta_path):
    sys.meta_path.append(RefuseUnknownModules())

_refuse = refuse_unknown(__name__)
_PARTS = ("common", "datasets", "io", "loss", "ops", "renderer", "structures", "transforms", "utils", "vis")


def __getattr__(name: str) -> object:
    """Import a subpackage at its first use: `import pytorch3d` alone is fast."""
    if name in _PARTS:
        import importlib

        return importlib.import_module(f"{__name__}.{name}")
    return _refuse(name)
