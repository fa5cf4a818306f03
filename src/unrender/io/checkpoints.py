"""Named tensors with what describes them, in one file that any later version can read."""

import json
from typing import Any

from torch import Tensor

from unrender.errors import FileFormatError
from unrender.io.files import FilePath, read_bytes, reading, write_whole
from unrender.io.formats import known_suffix

DESCRIPTION = "unrender"
"""The entry of the file's header that holds the description, as JSON."""
HEADER_BYTES = 8
"""A file begins with the length of its header."""


def save_tensors(tensors: dict[str, Tensor], description: dict[str, Any], path: FilePath) -> None:
    """Save tensors as safetensors, with a description in JSON, whole or not at all."""
    from safetensors.torch import save

    known_suffix(path, (".safetensors",))
    data = save(
        {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()},
        {DESCRIPTION: json.dumps(description)},
    )
    with write_whole(path) as file:
        file.write(data)


def load_tensors(path: FilePath) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Load tensors and their description, from a file that `save_tensors` wrote."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    known_suffix(path, (".safetensors",))
    data = read_bytes(path)
    with reading(path):
        try:
            tensors = load(data)
        except SafetensorError as error:
            raise FileFormatError(f"no whole safetensors file: {error}") from error
        header = json.loads(data[HEADER_BYTES : HEADER_BYTES + int.from_bytes(data[:HEADER_BYTES], "little")])
        description = header.get("__metadata__", {}).get(DESCRIPTION)
        if description is None:
            raise FileFormatError("its header does not say what it holds: unrender did not write it")
        found: dict[str, Any] = json.loads(description)
        return tensors, found
