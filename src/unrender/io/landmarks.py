"""Landmarks in text files: a line for each with the index of a vertex, from 0, and the position x y z."""

import torch

from unrender.errors import FileFormatError
from unrender.geometry.landmarks import Landmarks
from unrender.io.files import FilePath, read_bytes, reading


def load_landmarks(path: FilePath) -> Landmarks:
    """Load landmarks from text: `vertex x y z` in each line, separated by spaces or commas; # starts a comment.

    Raises `FileFormatError` for a line that has something else.
    """
    data = read_bytes(path)
    with reading(path):
        return _parse(data.decode("utf-8-sig"))


def _parse(text: str) -> Landmarks:
    ids, points = [], []
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split("#")[0].replace(",", " ").split()
        if not words:
            continue
        try:
            vertex, position = int(words[0]), [float(word) for word in words[1:]]
        except ValueError:
            vertex, position = -1, []
        if vertex < 0 or len(position) != 3:
            raise FileFormatError(
                f"line {number}: expected the index of a vertex and x y z, got {line.strip()[:60]!r}"
            )
        ids.append(vertex)
        points.append(position)
    if not ids:
        raise FileFormatError("the file has no landmarks; write a line `vertex x y z` for each")
    return Landmarks(torch.tensor(ids), torch.tensor(points, dtype=torch.float64))
