"""Fields on disk: what was learned, in one file."""

from unrender.errors import FileFormatError
from unrender.fields.hash_nerf import HashNeRF
from unrender.fields.nerf import NeRF
from unrender.fields.voxels import SparseVoxels
from unrender.io.checkpoints import load_tensors, save_tensors
from unrender.io.files import FilePath, reading

Field = SparseVoxels | HashNeRF | NeRF
KINDS: dict[str, type[Field]] = {"voxels": SparseVoxels, "hash": HashNeRF, "nerf": NeRF}


def save_field(field: Field, path: FilePath) -> None:
    """Save a learned field as safetensors, whole or not at all."""
    kind = next(name for name, kind in KINDS.items() if isinstance(field, kind))
    tensors, description = field.contents()
    save_tensors(tensors, {"kind": kind} | description, path)


def load_field(path: FilePath) -> Field:
    """Load a field that `save_field` wrote."""
    tensors, description = load_tensors(path)
    with reading(path):
        kind = KINDS.get(str(description.get("kind")))
        if kind is None:
            raise FileFormatError(f"it holds {description.get('kind')!r}; known are {', '.join(KINDS)}")
        return kind.from_contents(tensors, description)
