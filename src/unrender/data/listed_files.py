"""The files that a scene lists, found also where another system wrote their names."""

import os
import unicodedata
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote, unquote_plus

from unrender.io.files import is_file
from unrender.io.images import IMAGE_SUFFIXES, is_hidden

MAX_FILES = 100_000
"""Files below a scene that are searched for images under another name."""
AUXILIARY = ("mask", "depth", "normal", "segment", "semantic", "sparse")
"""Beginnings of the names of folders whose images are no photos."""
DATA_SUFFIXES = (*IMAGE_SUFFIXES, ".npy", ".npz", ".exr", ".pfm")
Parts = tuple[str, ...]


class NearMatch(NamedTuple):
    """A file whose name resembles a listed one."""

    path: Path
    is_certain: bool
    """Whether only slashes, case, suffix or leading folders differ, and no other file fits as well."""


def find_image(folder: Path, listed: str) -> Path | None:
    """Return the path of a listed image, whose suffix may be omitted; None if it does not exist."""
    return next((path for path in (_with_suffix(folder, name) for name in _spellings(listed)) if path), None)


def _spellings(listed: str) -> list[str]:
    """Return a name as it is and, if it can be part of a URL, as it is decoded: %20, and + for a blank."""
    decoded = [unquote(listed), unquote_plus(listed)]
    return list(dict.fromkeys([listed, *(name for name in decoded if "\0" not in name)]))


def _with_suffix(folder: Path, listed: str) -> Path | None:
    path = folder / listed
    if is_file(path):
        return path
    if path.suffix.lower() in IMAGE_SUFFIXES:
        return None
    candidates = (path.with_name(path.name + suffix) for suffix in IMAGE_SUFFIXES)
    return next((candidate for candidate in candidates if is_file(candidate)), None)


def find_images(
    folder: Path, listed: Sequence[str], notes: dict[str, None], below: Path | None = None
) -> dict[str, Path | None]:
    """Return the path of each listed image, None for those that do not exist, and note what differs.

    Images that do not exist are looked for `below` the scene: with the other kind of slash, in another case, with
    another suffix, without the folders of another machine, or in a folder further down. A file that another entry
    lists is never taken, so that a missing test image does not become the training image of the same name.
    """
    found = {name: find_image(folder, name) for name in listed}
    missing = [name for name, path in found.items() if path is None]
    if not missing:
        return found
    root = folder if below is None else below
    near = _near_matches(root, missing, {path for path in found.values() if path is not None})
    used = {name: match.path for name, match in near.items() if match.is_certain}
    claims = [*used.values()]
    used = {name: path for name, path in used.items() if claims.count(path) == 1}
    if used:
        first = next(iter(used))
        shown = used[first].relative_to(root).as_posix()
        notes[f"{len(used)} images were found under other names: {first} is {shown}"] = None
    named = next((name for name in missing if name in near and name not in used), None)
    if named is not None:
        shown = near[named].path.relative_to(root).as_posix()
        notes[f"{named} does not exist; did you mean {shown}?"] = None
    return found | used


def find_file(folder: Path, listed: str) -> Path | None:
    """Return the path of a listed mask, depth image or point cloud, also if another system wrote its name.

    The folders of another machine are dropped from the left, and the case may differ; None if there is no such file.
    """
    for name in _spellings(listed):
        if is_file(folder / name):
            return folder / name
    for parts in map(_parts, _spellings(listed)):
        for start in range(len(parts)):
            path = _any_case(folder, parts[start:])
            if path is not None:
                return path
    return None


def describe_unused(folder: Path, used: Collection[Path]) -> list[str]:
    """Name the folders of masks, depth and the like beside the images of which no file is used."""
    homes = {path.parent.absolute() for path in used}
    notes = []
    for other in sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []:
        if not _key(other.name).startswith(AUXILIARY[:-1]) or other.absolute() in homes:
            continue
        count = sum(
            file.suffix.lower() in DATA_SUFFIXES and not is_hidden(file.name) for file in other.iterdir()
        )
        if count:
            notes.append(
                f"the folder {other.name} with {count} files is not used; transforms.json lists masks as 'mask_path' "
                "(black at pixels to ignore) and depth as 'depth_file_path' of each frame"
            )
    return notes


def normalized_name(listed: str) -> str:
    """Return a listed path with forward slashes, and without `./`."""
    return "/".join(_parts(listed)) if "\\" in listed or "./" in listed else listed


def _any_case(folder: Path, parts: Parts) -> Path | None:
    """Find a path whose components may differ in case."""
    for i, part in enumerate(parts):
        if not folder.is_dir():
            return None
        exact = folder / part
        if len(part.encode(errors="replace")) > 255 or "\0" in part:
            return None
        if not exact.exists():
            same = sorted(path for path in folder.iterdir() if _key(path.name) == _key(part))
            if not same:
                return None
            exact = same[0]
        if i == len(parts) - 1:
            return exact if exact.is_file() else None
        folder = exact
    return None


def _near_matches(root: Path, missing: Sequence[str], taken: set[Path]) -> dict[str, NearMatch]:
    by_name: dict[str, list[Parts]] = {}
    for parts in _images_below(root):
        if root.joinpath(*parts) not in taken:
            by_name.setdefault(_key(_stem(parts[-1])), []).append(parts)
    matches = {name: _best(_parts(name), by_name) for name in missing}
    return {
        name: NearMatch(root.joinpath(*parts), certain)
        for name, match in matches.items()
        if match is not None
        for parts, certain in [match]
    }


def _best(listed: Parts, by_name: Mapping[str, list[Parts]]) -> tuple[Parts, bool] | None:
    """Return the file that fits a listed path best, and whether it is safe to take it."""
    if not listed:
        return None
    name = listed[-1]
    candidates = [*by_name.get(_key(_stem(name)), []), *by_name.get(_key(name), [])]
    if not candidates:
        return None
    scores = [_score(listed, parts) for parts in candidates]
    best = max(scores)
    first = candidates[scores.index(best)]
    shared = best[0]
    return first, scores.count(best) == 1 and shared == min(len(listed), len(first)) - 1


def _score(listed: Parts, parts: Parts) -> tuple[int, bool, bool, bool]:
    """Count the equal folders before the name; then prefer no other folders, the same suffix, and the same case."""
    shared = 0
    for a, b in zip(listed[-2::-1], parts[-2::-1], strict=False):
        if _key(a) != _key(b):
            break
        shared += 1
    exact = listed[-1] == parts[-1]
    return shared, len(parts) == shared + 1, exact or _key(listed[-1]) == _key(parts[-1]), exact


def _images_below(root: Path) -> Iterator[Parts]:
    """List images as path components below a folder, without hidden and auxiliary folders."""
    count = 0
    for folder, folders, files in os.walk(root):
        folders[:] = sorted(
            name for name in folders if not is_hidden(name) and not _key(name).startswith(AUXILIARY)
        )
        here = Path(folder).relative_to(root).parts
        for name in sorted(files):
            count += 1
            if count > MAX_FILES:
                return
            if name.lower().endswith(IMAGE_SUFFIXES) and not is_hidden(name):
                yield *here, name


def _parts(listed: str) -> Parts:
    """Split a path at both kinds of slash; drop drives, and the parts that name no folder."""
    names = listed.replace("\\", "/").split("/")
    return tuple(name for name in names if name not in ("", ".", "..") and not name.endswith(":"))


def _stem(name: str) -> str:
    stem, dot, suffix = name.rpartition(".")
    return stem if dot and f".{suffix}".lower() in IMAGE_SUFFIXES else name


def _key(name: str) -> str:
    """Return a name by which file systems without case, and with decomposed accents, tell files apart."""
    return unicodedata.normalize("NFC", name).casefold()
