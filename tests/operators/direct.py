"""Every operator computed directly in float64, from the formulas: whole tensors, loops, no code of
safeswap. Random masks are given, not drawn."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


def vectors(base: Array, experts: Sequence[Array]) -> list[Array]:
    return [expert.astype(np.float64) - base.astype(np.float64) for expert in experts]


def trim(vector: Array, keep: int) -> Array:
    """The `keep` largest magnitudes, and what ties with the last of them."""
    if vector.size == 0:
        return vector
    limit = sorted(np.abs(vector).reshape(-1).tolist(), reverse=True)[keep - 1]
    return np.where(np.abs(vector) >= limit, vector, 0.0)


def elect(weights: Sequence[float], given: Sequence[Array], normalize: bool) -> Array:
    joined = np.zeros(given[0].shape)
    for place in np.ndindex(joined.shape):
        changes = [w * v[place] for w, v in zip(weights, given, strict=True)]
        sign = 1 if sum(changes) >= 0 else -1
        agree = [c * sign > 0 for c in changes]
        total = sum(c for c, a in zip(changes, agree, strict=True) if a)
        divisor = sum(w for w, a in zip(weights, agree, strict=True) if a)
        joined[place] = total / (divisor if normalize and divisor else 1)
    return joined


def linear(base: Array, experts: Sequence[Array], weights: Sequence[float]) -> Array:
    return base + sum(w * t for w, t in zip(weights, vectors(base, experts), strict=True))


def ties(
    base: Array,
    experts: Sequence[Array],
    weights: Sequence[float],
    density: float = 0.2,
    scale: float = 1.0,
    normalize: bool = True,
) -> Array:
    keep = max(1, int(density * base.size))
    trimmed = [t if density == 1 else trim(t, keep) for t in vectors(base, experts)]
    return base + scale * elect(weights, trimmed, normalize)


def masked(
    base: Array, experts: Sequence[Array], masks: Sequence[Array], chance: float
) -> list[Array]:
    return [
        np.where(m, t, 0.0) / chance for t, m in zip(vectors(base, experts), masks, strict=True)
    ]


def row_chances(vector: Array, density: float, epsilon: float) -> Array:
    """DELLA's chances: by rank within the row, ties by place."""
    rows = np.abs(vector).reshape(-1, vector.shape[-1] if vector.ndim else 1)
    found = np.empty(rows.shape)
    for row, chances in zip(rows.astype(np.float32), found, strict=True):
        order = sorted(range(len(row)), key=lambda place: (row[place], place))
        for rank, place in enumerate(order):
            share = rank / (len(row) - 1) if len(row) > 1 else 0.5
            chances[place] = density - epsilon + 2 * epsilon * share
    return found.reshape(vector.shape)


def breadcrumbs(
    base: Array,
    experts: Sequence[Array],
    weights: Sequence[float],
    density: float = 0.15,
    gamma: float = 0.006,
) -> Array:
    total = np.zeros(base.shape)
    keep = max(1, int(density * base.size))
    outliers = min(int(gamma * base.size), base.size - keep)
    for weight, vector in zip(weights, vectors(base, experts), strict=True):
        order = sorted(np.abs(vector).reshape(-1).tolist(), reverse=True)
        kept = order[outliers : outliers + keep]
        inside = (np.abs(vector) <= kept[0]) & (np.abs(vector) >= kept[-1])
        total += weight * np.where(inside, vector, 0.0)
    return base + total


def sce(
    base: Array, experts: Sequence[Array], weights: Sequence[float], select_topk: float = 0.1
) -> Array:
    given = vectors(base, experts)
    if select_topk < 1:
        spread = np.var(np.stack(given), axis=0).astype(np.float32)
        keep = int(select_topk * np.count_nonzero(spread))
        order = sorted(spread.reshape(-1).tolist(), reverse=True)
        mask = spread >= order[keep - 1] if keep else np.zeros(spread.shape, bool)
        given = [np.where(mask, t, 0.0) for t in given]
    energies = [float((t**2).sum()) for t in given]
    if sum(energies) == 0:
        energies = [1.0] * len(energies)
    parts = [w * e for w, e in zip(weights, energies, strict=True)]
    joined = np.zeros(base.shape)
    for place in np.ndindex(joined.shape):
        changes = [t[place] for t in given]
        sign = 1 if sum(changes) >= 0 else -1
        agree = [(c, p) for c, p in zip(changes, parts, strict=True) if c * sign > 0]
        if agree:
            joined[place] = sum(c * p for c, p in agree) / sum(p for _, p in agree)
    return base + joined


def between(first: Array, second: Array, t: float, threshold: float) -> Array:
    """Spherical interpolation, linear where |cos| is above the threshold."""
    norms = np.linalg.norm(first) * np.linalg.norm(second)
    near = float((first * second).sum() / norms) if norms else 0.0
    if abs(near) > threshold:
        return (1 - t) * first + t * second
    angle = math.acos(near)
    return (math.sin((1 - t) * angle) * first + math.sin(t * angle) * second) / math.sin(angle)


def slerp(base: Array, experts: Sequence[Array], weights: Sequence[float]) -> Array:
    first, second = (expert.astype(np.float64) for expert in experts)
    return between(first, second, weights[1] / sum(weights), 0.9995)


def nuslerp(base: Array, experts: Sequence[Array], weights: Sequence[float]) -> Array:
    first, second = vectors(base, experts)
    return base + between(first, second, weights[1] / sum(weights), 1 - 1e-15)


def model_stock(base: Array, experts: Sequence[Array], weights: Sequence[float]) -> Array:
    given = vectors(base, experts)
    cosines = []
    for left, right in itertools.combinations(given, 2):
        norms = np.linalg.norm(left) * np.linalg.norm(right)
        cosines.append(float((left * right).sum() / norms) if norms else 0.0)
    mean, count = sum(cosines) / len(cosines), len(given)
    share = count * mean / (1 + (count - 1) * mean) if abs(1 + (count - 1) * mean) > 1e-6 else 0
    average = sum(w * e for w, e in zip(weights, experts, strict=True)) / sum(weights)
    return share * average + (1 - share) * base.astype(np.float64)


def karcher(base: Array, experts: Sequence[Array], weights: Sequence[float]) -> Array:
    whole = [expert.astype(np.float64) for expert in experts]
    norms = [float(np.linalg.norm(w)) for w in whole]
    parts = [w / sum(weights) for w in weights]
    units = [w / n for w, n in zip(whole, norms, strict=True)]
    mean = sum(p * u for p, u in zip(parts, units, strict=True))
    mean = mean / np.linalg.norm(mean)
    for _ in range(10):
        tangent = np.zeros(base.shape)
        for part, unit in zip(parts, units, strict=True):
            dot = min(1.0, max(-1.0, float((mean * unit).sum())))
            angle = math.acos(dot)
            if angle >= 1e-5:
                tangent += part * angle / math.sin(angle) * (unit - dot * mean)
        length = float(np.linalg.norm(tangent))
        if length < 1e-5:
            break
        mean = math.cos(length) * mean + math.sin(length) * tangent / length
        mean = mean / np.linalg.norm(mean)
    return sum(p * n for p, n in zip(parts, norms, strict=True)) * mean


def polar(matrix: Array) -> Array:
    left, values, right = np.linalg.svd(matrix, full_matrices=False)
    rank = int((values > 1e-4 * values[0]).sum())
    return left[:, :rank] @ right[:rank]


def tsv(base: Array, experts: Sequence[Array], weights: Sequence[float]) -> Array:
    given = [w * t for w, t in zip(weights, vectors(base, experts), strict=True)]
    kept = min(base.shape) // len(given)
    found = [np.linalg.svd(t, full_matrices=False) for t in given]
    left = polar(np.hstack([u[:, :kept] for u, _, _ in found]))
    right = polar(np.vstack([v[:kept] for _, _, v in found]))
    return base + left @ np.diag(np.concatenate([s[:kept] for _, s, _ in found])) @ right


def iso_c(base: Array, experts: Sequence[Array], weights: Sequence[float]) -> Array:
    total = sum(w * t for w, t in zip(weights, vectors(base, experts), strict=True))
    left, values, right = np.linalg.svd(total, full_matrices=False)
    return base + values.mean() * (left @ right)


def wudi(
    base: Array, experts: Sequence[Array], weights: Sequence[float], ridge: float = 1e-3
) -> Array:
    """The normal equations of the objective, by their gradient: no trick with the smaller side."""
    given = [w * t for w, t in zip(weights, vectors(base, experts), strict=True)]
    total, columns, rows = sum(given), base.shape[1], base.shape[0]
    grams = [t.T @ t / (t**2).sum() for t in given]
    side = min(columns, rows * len(given))
    pull = ridge * sum(np.trace(g) for g in grams) / side * np.eye(columns)
    wanted = sum(t @ g for t, g in zip(given, grams, strict=True)) + total @ pull
    return base + wanted @ np.linalg.inv(sum(grams) + pull)


def project(base: Array, experts: Sequence[Array], weights: Sequence[float]) -> Array:
    safety, *others = vectors(base, experts)
    column = safety.reshape(safety.shape[0], -1)
    projection = column @ column.T / np.linalg.norm(safety)
    total = weights[0] * safety
    for weight, update in zip(weights[1:], others, strict=True):
        total = total + weight * (projection @ update.reshape(column.shape)).reshape(safety.shape)
    return base + total
