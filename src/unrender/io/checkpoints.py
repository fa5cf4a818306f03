"""Named tensors with a JSON description, in the safetensors format."""

import json
from typing import Any

from torch import Tensor

from unrender.errors import FileFormatError
from unrender.io.files import FilePath, atomic_write, read_bytes, reading
from unrender.io.formats import known_suffix

DESCRIPTION = "unrender"
"""Metadata key of the JSON description in the file's header."""
HEADER_BYTES = 8
"""Size of the header length at the start of a file."""


def save_tensors(tensors: dict[str, Tensor], description: dict[str, Any], path: FilePath) -> None:
    """Save tensors and a JSON description as safetensors; the file is written atomically."""
    from safetensors.torch import save

    known_suffix(path, (".safetensors",))
    data = save(
        {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()},
        {DESCRIPTION: json.dumps(description)},
    )
    with atomic_write(path) as file:
        file.write(data)


def load_tensors(path: FilePath) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Load tensors and their description from a file written by `save_tensors`."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    known_suffix(path, (".safetensors",))
    data = read_bytes(path)
    with reading(path):
        try:
            tensors = load(data)
        except SafetensorError as error:
            raise FileFormatError(f"damaged safetensors file: {error}") from error
        header = json.loads(data[HEADER_BYTES : HEADER_BYTES + int.from_bytes(data[:HEADER_BYTES], "little")])
        description = header.get("__metadata__", {}).get(DESCRIPTION)
        if description is None:
            raise FileFormatError("the header has no unrender metadata; the file was not written by unrender")
        found: dict[str, Any] = json.loads(description)
        return tensors, found
