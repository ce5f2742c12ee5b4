"""Shape descriptors: which two drawings are the same drawing."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

SIDE = 20
THRESHOLD = 0.93
ROUNDING = 1e-4
Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]


def descriptors(planes: Bytes) -> Bytes:
    """[N, 20, 20] area means of [N, H, W] alpha (or grey) planes, as bytes."""
    n, height, width = planes.shape
    rows = _area_matrix(height)
    cols = _area_matrix(width)
    out = np.empty((n, SIDE, SIDE), np.uint8)
    for start in range(0, n, 2048):
        part = planes[start : start + 2048].astype(np.float32)
        out[start : start + 2048] = np.clip(np.rint(rows @ part @ cols.T), 0, 255)
    return out


def _area_matrix(length: int) -> Floats:
    edges = np.linspace(0, length, SIDE + 1)
    cell = np.arange(length)
    overlap = np.minimum(edges[1:, None], cell + 1) - np.maximum(edges[:-1, None], cell)
    weights = np.clip(overlap, 0, None)
    matrix: Floats = (weights / weights.sum(1, keepdims=True)).astype(np.float32)
    return matrix


def unit(shapes: Bytes) -> Floats:
    """[N, 400] mean-removed unit vectors; a constant plane becomes the zero vector, similar to nothing."""
    flat = shapes.reshape(len(shapes), -1).astype(np.float32)
    flat -= flat.mean(1, keepdims=True)
    norm = np.linalg.norm(flat, axis=1, keepdims=True)
    return (flat / np.where(norm < 1e-3, np.inf, norm)).astype(np.float32)


def similar_pairs(left: Floats, right: Floats, threshold: float = THRESHOLD) -> Iterator[tuple[int, int, float]]:
    """(i, j, cosine) for every pair above the threshold."""
    for start in range(0, len(left), 2048):
        cosine = left[start : start + 2048] @ right.T
        for i, j in np.argwhere(cosine > threshold):
            yield start + int(i), int(j), float(cosine[i, j])


def near(left: Floats, right: Floats, threshold: float = THRESHOLD) -> NDArray[np.bool_]:
    """[N] whether each row of `left` is above the threshold with any row of `right`."""
    hit = np.zeros(len(left), bool)
    if len(right):
        for start in range(0, len(left), 2048):
            hit[start : start + 2048] = (left[start : start + 2048] @ right.T).max(1) > threshold
    return hit


def clusters(vectors: Floats, threshold: float = THRESHOLD) -> NDArray[np.int64]:
    """[N] cluster ids: connected components of "more similar than the threshold"."""
    label = np.arange(len(vectors))

    def root(node: int) -> int:
        while label[node] != node:
            label[node] = label[label[node]]
            node = int(label[node])
        return node

    for i, j, _ in similar_pairs(vectors, vectors, threshold):
        if i < j:
            label[root(j)] = root(i)
    return np.array([root(node) for node in range(len(vectors))], np.int64)
