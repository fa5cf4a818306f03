"""Reduction of large clouds to means over voxels."""

import numpy as np

from unrender.geometry.voxel_means import voxel_means

POINTS = np.random.default_rng(0).random((20_000, 3)) * [1.0, 2.0, 0.01]


SAMPLE = POINTS[::20]


def test_means_are_of_the_points_in_one_voxel_each() -> None:
    found = voxel_means(POINTS + 1e6, SAMPLE + 1e6)
    assert 450 <= len(found.rows) <= 1000
    assert found.counts.sum() > 0.98 * len(POINTS)
    assert np.allclose(np.average(found.rows, 0, found.counts), POINTS.mean(0) + 1e6, rtol=0, atol=0.01)
    centers = POINTS[:, None] + 1e6 - found.rows[found.counts.argmax()]
    assert (np.abs(centers).max(-1) < found.voxel_size).sum() >= found.counts.max()
    gaps = np.abs(found.rows[:, None] - found.rows).max(2) + 10 * np.eye(len(found.rows))
    assert float(np.median(gaps.min(1))) > 0.5 * found.voxel_size


def test_more_columns_are_averaged_with_the_points() -> None:
    found = voxel_means(np.concatenate([POINTS, POINTS[:, :1] + 3], 1), SAMPLE)
    assert np.allclose(found.rows[:, 3], found.rows[:, 0] + 3)


def test_points_far_from_the_sample_do_not_matter() -> None:
    far = np.concatenate([POINTS, [[1e7, 0, 0], [-1e9, 3, 1], [0.5, 1.0, 0.3]]])
    plain, found = voxel_means(POINTS, SAMPLE), voxel_means(far, SAMPLE)
    assert np.array_equal(plain.rows, found.rows)
    wild = voxel_means(far, np.concatenate([SAMPLE, far[-3:-1]]))
    assert 0.5 < wild.voxel_size / plain.voxel_size < 2


def test_repeated_points_become_one() -> None:
    found = voxel_means(np.repeat(POINTS[:300], 20, 0), POINTS[:300])
    assert len(found.rows) <= 300
    assert voxel_means(np.ones((50, 3)), np.ones((9, 3))).counts.tolist() == [50]


def test_groups_of_nearly_equal_points_stay_apart() -> None:
    errors = np.random.default_rng(1).normal(size=(100, 200, 3)) * 1e-12
    rows = (POINTS[:100, None] + errors).reshape(-1, 3)
    found = voxel_means(rows, rows[::5])
    nearest = np.abs(found.rows[:, None] - POINTS[:100]).max(2)
    assert nearest.min(0).max() < 1e-6  # a mean for each group
    assert nearest.min(1).max() < 1e-6  # and no others


def test_there_are_at_most_as_many_means_as_points_in_the_sample() -> None:
    dense = np.concatenate([POINTS, POINTS * 0.01 + [3.0, 0, 0]])
    found = voxel_means(dense, dense[::20])
    assert 300 < len(found.rows) <= len(dense[::20])
    assert found.counts.sum() > 0.95 * len(dense)
