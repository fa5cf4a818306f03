"""Errors for names that PyTorch3D has and this package does not."""

import importlib.util
import sys
from collections.abc import Callable, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import NoReturn

from unrender.errors import UnrenderError

PACKAGE = "unrender.compat.pytorch3d"
THEIRS = "pytorch3d"
PAGE = "docs/coming-from-pytorch3d.md"


class MissingNameError(UnrenderError, ImportError):
    """A name of PyTorch3D that this package does not support."""


def missing(module: str, name: str) -> MissingNameError:
    """Return the error for a missing name, with the page that lists the supported ones."""
    return MissingNameError(_refusal(module, name))


def _refusal(module: str, name: str) -> str:
    path = THEIRS + module.removeprefix(PACKAGE)
    return f"{path}.{name} is not supported by unrender; {PAGE} lists what is, and what to use"


def refuse_unknown(module: str) -> Callable[[str], NoReturn]:
    """Make a module's `__getattr__`; it raises AttributeError, so that `hasattr` and `getattr` with a default work.

    Importing a name from a package raises `MissingNameError`: Python looks for a module of that name.
    """

    def refuse(name: str) -> NoReturn:
        raise AttributeError(_refusal(module, name))

    return refuse


def refuse_at_use(module: str, name: str) -> type:
    """Make a class that can be imported, as scripts import more than they use; to make an object raises the error."""

    def refuse(self: object, *args: object, **kwargs: object) -> NoReturn:
        raise missing(module, name)

    return type(name, (), {"__init__": refuse, "__module__": module, "__doc__": "Not supported by unrender."})


class RefuseUnknownModules(MetaPathFinder):
    """Raise a helpful error for modules that this package does not have."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> None:
        """Raise `MissingNameError`."""
        if fullname.startswith(PACKAGE + "."):
            parent, _, name = fullname.rpartition(".")
            if not name.startswith("_"):
                raise missing(parent, name)


class Alias(MetaPathFinder, Loader):
    """Alias `pytorch3d.x.y` to the module `unrender.compat.pytorch3d.x.y`, the same object."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Find the module of this package for one of PyTorch3D."""
        if fullname != THEIRS and not fullname.startswith(THEIRS + "."):
            return None
        return importlib.util.spec_from_loader(fullname, self)

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """Import the module of this package."""
        module = importlib.import_module(PACKAGE + spec.name.removeprefix(THEIRS))
        self._spec = module.__spec__
        for name, loaded in list(sys.modules.items()):
            # known under both names: Python would set `utils.ico_sphere`, a function, to the module of that name
            if name == PACKAGE or name.startswith(PACKAGE + "."):
                sys.modules.setdefault(THEIRS + name.removeprefix(PACKAGE), loaded)
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Restore the name under which the module was imported first."""
        module.__spec__ = self._spec


def install() -> None:
    """Make every `import pytorch3d` of this process import this package, even if PyTorch3D is installed."""
    if not any(isinstance(finder, Alias) for finder in sys.meta_path):
        sys.meta_path.insert(0, Alias())
