import itertools

import torch

from unrender.kernels import _incidence
from unrender.kernels._incidence import incidence, record_copy

FACES = torch.tensor([[0, 1, 2], [2, 1, 4]])


def test_places_of_each_item_in_order():
    starts, places = incidence(FACES.clone(), 6)
    assert [places[a:b].tolist() for a, b in itertools.pairwise(starts)] == [
        [0],
        [1, 4],
        [2, 3],
        [],
        [5],
        [],
    ]


def test_found_once_and_again_after_changes(monkeypatch):
    found, find = [], _incidence._find
    monkeypatch.setattr(_incidence, "_find", lambda *arguments: found.append(1) or find(*arguments))
    faces, index = FACES.clone(), FACES.clone()
    record_copy(faces, index)
    for _ in range(2):
        copied = index.clone()
        record_copy(index, copied)
        assert incidence(copied, 5) is incidence(faces, 5)
    assert len(found) == 1
    copied[0, 0] = 3
    assert incidence(copied, 5).positions.tolist() == [1, 4, 2, 3, 0, 5]
    index[0, 0] = 4
    assert incidence(index, 5).starts.tolist() == [0, 0, 2, 4, 4, 6]
    assert len(found) == 3


def test_inference_tensors_are_not_cached():
    with torch.inference_mode():
        index = FACES.clone()
        before = incidence(index, 5)
        index[0, 0] = 3
        assert incidence(index, 5).starts.tolist() != before.starts.tolist()
