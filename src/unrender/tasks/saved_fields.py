"""Fields on disk: what was learned, in one file."""

from unrender.errors import FileFormatError
from unrender.fields.voxels import SparseVoxels
from unrender.io.checkpoints import load_tensors, save_tensors
from unrender.io.files import FilePath, reading

VOXELS = "voxels"


def save_field(field: SparseVoxels, path: FilePath) -> None:
    """Save a learned field as safetensors, whole or not at all."""
    tensors, description = field.contents()
    save_tensors(tensors, {"kind": VOXELS} | description, path)


def load_field(path: FilePath) -> SparseVoxels:
    """Load a field that `save_field` wrote."""
    tensors, description = load_tensors(path)
    with reading(path):
        if description.get("kind") != VOXELS:
            raise FileFormatError(f"it holds {description.get('kind')!r}; known is {VOXELS!r}")
        return SparseVoxels.from_contents(tensors, description)
