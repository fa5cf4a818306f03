"""Plain glTF: JSON beside its buffers, packed into the binary form in memory."""

import base64
import binascii
import json
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from unrender.errors import FileFormatError
from unrender.io.files import read_bytes, reading
from unrender.io.mtl import find_file


def glb_bytes(path: Path) -> bytes:
    """Read a .glb file, or a .gltf file with its buffers, as the bytes of a .glb file."""
    data = read_bytes(path)
    if data[:4] == b"glTF" or path.suffix.lower() != ".gltf":
        return data
    with reading(path):
        header = json.loads(data)
        if not isinstance(header, dict) or "asset" not in header:
            raise FileFormatError("not a glTF file: the JSON has no 'asset'")
        body = _pack_buffers(header, path.parent)
    chunks = ((b"JSON", json.dumps(header).encode()), (b"BIN\0", body))
    return (
        b"glTF"
        + bytes(8)
        + b"".join(len(chunk).to_bytes(4, "little") + kind + chunk for kind, chunk in chunks)
    )


def _pack_buffers(header: dict[str, Any], folder: Path) -> bytes:
    """Concatenate all buffers, and move the views of the others into the first."""
    contents = [_read_buffer(buffer, folder) for buffer in header.get("buffers", [])]
    starts = [sum(map(len, contents[:i])) for i in range(len(contents))]
    for view in header.get("bufferViews", []):
        view["byteOffset"] = int(view.get("byteOffset", 0)) + starts[view.get("buffer", 0)]
        view["buffer"] = 0
    header["buffers"] = [{"byteLength": sum(map(len, contents))}]
    return b"".join(contents)


def _read_buffer(buffer: dict[str, Any], folder: Path) -> bytes:
    uri = buffer.get("uri")
    if not isinstance(uri, str):
        raise FileFormatError("a buffer has no 'uri'; export as .glb, or with separate files")
    if uri.startswith("data:"):
        try:
            return base64.b64decode(uri.partition(",")[2], validate=True)
        except binascii.Error as error:
            raise FileFormatError(f"an embedded buffer is damaged ({error})") from error
    content = read_bytes(find_file(folder, unquote(uri)))
    if len(content) < int(buffer.get("byteLength", 0)):
        raise FileFormatError(
            f"buffer {uri}: truncated: {buffer['byteLength']} bytes are declared, {len(content)} are there"
        )
    return content
