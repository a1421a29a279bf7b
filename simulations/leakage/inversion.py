"""Reconstructs rows from a single update, and measures how close they are to the truth.

Sources: for a Dense first layer, Phong, Aono, Hayashi, Wang, Moriai: Privacy-Preserving Deep Learning via
Additively Homomorphic Encryption, IEEE TIFS 2018, section 3: of one row, the gradient of the kernel is the
row times that of the bias. For all other layers, gradients are matched: `matching.py`.

Nothing here stores or shows a row: only the similarity of a guess is returned.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

Rows = NDArray[Any]

_BLOCK: Final = 512  # rows compared at a time, to limit memory
_SPARE: Final = 4.0  # times the median: embeddings above it have changed, despite noise


@dataclass(frozen=True, slots=True)
class Similarity:
    """The similarity of guesses to rows, as means over rows.

    Attributes:
        cosine: of guess and row; error: mean absolute error in the encoded space, whose columns have
            about unit variance (images: 0 to 1).
        psnr: peak signal-to-noise ratio in dB, of images; else `None`.
        found: fraction of guesses to which no other training row of the client is nearer than the true one.
    """

    cosine: float
    error: float
    psnr: float | None
    found: float


def read_off(kernel: Rows, bias: Rows) -> Rows:
    """Return the one row (inputs,) behind the gradients of a first Dense layer.

    The gradient of the kernel is row x bias gradient: the row is the least-squares solution over all
    units, exact without noise. Of several rows it is a mixture of them. Zeros if no unit was active.

    Args:
        kernel: gradient (inputs, units); bias: gradient (units,).
    """
    k, b = kernel.astype(np.float64), bias.astype(np.float64)
    size = float(b @ b)
    return np.asarray(k @ b / size) if size > 0 else np.zeros(len(k))


def span_of(kernel: Rows, rows: int) -> NDArray[np.float32]:
    """Return unit directions (rows, inputs) that span the rows of a batch.

    The gradient of a first Dense layer's kernel is a sum over rows of row x gradient of the units, so its
    columns are mixtures of the rows. If noise adds directions, the largest ones are used.

    Args:
        kernel: gradient (inputs, units); rows: of the batch.
    """
    left = np.linalg.svd(kernel.astype(np.float64), full_matrices=False)[0]
    return np.asarray(left[:, :rows].T, np.float32)


def tokens_moved(embedding: Rows) -> NDArray[np.bool_]:
    """Whether the embedding of each token has a gradient, (tokens,): only tokens in the batch do.

    Args:
        embedding: gradient (tokens, width). Most tokens are not in a small batch, so the median size is
            that of the noise.
    """
    sizes = np.linalg.norm(embedding.astype(np.float64), axis=1)
    return np.asarray(sizes > _SPARE * np.median(sizes))


def token_overlap(truth: NDArray[np.bool_], guess: NDArray[np.bool_]) -> float:
    """Return the F1 of two sets of tokens, (tokens,) each; 0 if they share none."""
    both = int((truth & guess).sum())
    return 2 * both / (int(truth.sum()) + int(guess.sum())) if both else 0.0


def similarity(truth: Rows, guesses: Rows, own: NDArray[np.intp], client: Rows, *, image: bool) -> Similarity:
    """Compare guesses with the rows of a batch, each guess with the row that it fits best.

    Args:
        truth: the batch (rows, ...); guesses: (rows, ...), in any order.
        own: indices of the batch among the client's rows, (rows,).
        client: all training rows of the client (all, ...).
        image: whether values are in [0, 1], so that PSNR is meaningful.
    """
    true, guess = _flat(truth), _flat(guesses)
    errors = np.abs(true[:, None, :] - guess[None]).mean(axis=2)
    order = linear_sum_assignment(errors)[1]
    matched = guess[order]
    squares = np.square(matched - true).mean(axis=1)
    ratio = float(np.mean(-10 * np.log10(np.maximum(squares, 1e-10)))) if image else None
    return Similarity(
        float(np.mean([_cosine(a, b) for a, b in zip(true, matched, strict=True)])),
        float(np.mean(np.abs(matched - true))),
        ratio,
        float(np.mean(_nearest(matched, client, own))),
    )


def mean_similarity(found: Sequence[Similarity]) -> Similarity:
    """Return the mean over batches of one size."""
    ratios = [one.psnr for one in found if one.psnr is not None]
    return Similarity(
        float(np.mean([one.cosine for one in found])),
        float(np.mean([one.error for one in found])),
        float(np.mean(ratios)) if ratios else None,
        float(np.mean([one.found for one in found])),
    )


def _flat(rows: Rows) -> NDArray[np.float64]:
    return rows.reshape(len(rows), -1).astype(np.float64)


def _cosine(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    size = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / size if size > 0 else 0.0


def _nearest(guesses: NDArray[np.float64], client: Rows, own: NDArray[np.intp]) -> NDArray[np.bool_]:
    """Whether the true row is nearest to each guess; equal rows of the client count as equally near."""
    blocks = (_flat(client[start : start + _BLOCK]) for start in range(0, len(client), _BLOCK))
    distances = np.hstack(
        [np.stack([np.linalg.norm(block - guess, axis=1) for guess in guesses]) for block in blocks]
    )
    return np.asarray(distances[np.arange(len(own)), own] <= distances.min(axis=1) * (1 + 1e-9))
