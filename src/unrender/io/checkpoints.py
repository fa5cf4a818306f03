"""Named tensors with a JSON description, in the safetensors format."""

import json
from typing import Any

import torch
from torch import Tensor

from unrender.errors import FileFormatError
from unrender.io.files import FilePath, atomic_write, read_bytes, reading
from unrender.io.formats import known_suffix

DESCRIPTION = "unrender"
"""Metadata key of the JSON description in the file's header."""
HEADER_BYTES = 8
"""Size of the header length at the start of a file."""
DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
"""The format's names of data types."""


def save_tensors(tensors: dict[str, Tensor], description: dict[str, Any], path: FilePath) -> None:
    """Save tensors and a JSON description as safetensors; the file is written atomically, without a copy in memory.

    DiskFullError before anything is written if the disk has no space for it.
    """
    known_suffix(path, (".safetensors",))
    ordered = sorted(tensors.items(), key=lambda item: (-item[1].element_size(), item[0]))  # aligned
    header: dict[str, Any] = {"__metadata__": {DESCRIPTION: json.dumps(description)}}
    end = 0
    for name, tensor in ordered:
        begin, end = end, end + tensor.numel() * tensor.element_size()
        header[name] = {
            "dtype": DTYPES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [begin, end],
        }
    encoded = json.dumps(header, separators=(",", ":")).encode()
    encoded += b" " * (-len(encoded) % HEADER_BYTES)
    with atomic_write(path, HEADER_BYTES + len(encoded) + end) as file:
        file.write(len(encoded).to_bytes(HEADER_BYTES, "little") + encoded)
        for _, tensor in ordered:
            values = tensor.detach().cpu().contiguous().view(-1)
            file.write(values.view(torch.uint8).numpy().data)


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
