"""Reduction of large clouds to means over voxels."""

import numpy as np

from unrender.geometry.voxel_means import voxel_means

POINTS = np.random.default_rng(0).random((20_000, 3)) * [1.0, 2.0, 0.01]


def test_means_are_of_the_points_in_one_voxel_each() -> None:
    found = voxel_means(POINTS + 1e6, 800)
    assert 0.85 * 800 <= len(found.rows) <= 800
    assert found.counts.sum() == len(POINTS)
    assert np.allclose(np.average(found.rows, 0, found.counts), POINTS.mean(0) + 1e6, rtol=0, atol=1e-8)
    gaps = np.abs(found.rows[:, None] - found.rows).max(2) + 10 * np.eye(len(found.rows))
    assert found.voxel_size > 0.04
    assert float(np.median(gaps.min(1))) > 0.5 * found.voxel_size


def test_more_columns_are_averaged_with_the_points() -> None:
    values = POINTS[:, :1] + 3
    found = voxel_means(np.concatenate([POINTS, values], 1), 500)
    assert np.allclose(found.rows[:, 3], found.rows[:, 0] + 3)


def test_far_points_do_not_enlarge_the_voxels() -> None:
    far = np.concatenate([POINTS, [[1e7, 0, 0], [-1e9, 3, 1]]])
    plain, found = voxel_means(POINTS, 800), voxel_means(far, 800)
    assert 0.5 < found.voxel_size / plain.voxel_size < 2
    assert len(found.rows) > 600


def test_repeated_points_become_one() -> None:
    found = voxel_means(np.repeat(POINTS[:300], 20, 0), 500)
    assert len(found.rows) <= 300
    assert found.counts.sum() == 6000
    assert voxel_means(np.ones((50, 3)), 10).counts.tolist() == [50]
