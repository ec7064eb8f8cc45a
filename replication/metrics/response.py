"""Response correction before scoring (Hanji et al. 2022, doi 10.1145/3528233.3530729).

A single photo does not show its camera's response curve. People accept a smooth, monotone error of tone,
but full-reference scores punish it. So one smooth curve per image is fitted from the method's result to the
truth, and the score judges what remains. Even then, two methods that differ by less than about 3.5 dB of
PU21-PSNR cannot be told apart.
"""

from __future__ import annotations

import numpy as np

from replication.files import ReplicationError
from replication.metrics.fidelity import check_pair

_DARKEST, _BRIGHTEST = 0.005, 1e8  # cd/m2
_RIDGE = 0.01  # weight of the ridge towards the identity
_TO_XYZ = np.array(
    [[0.412424, 0.357579, 0.180464], [0.212656, 0.715158, 0.072186], [0.019332, 0.119193, 0.950444]]
)
_UV_SCALE = 410 / 255
_M, _N, _C1, _C2, _C3 = 78.8438, 0.1593, 0.8359, 18.8516, 18.6875  # PQ (SMPTE ST 2084)


def correct_response(test: np.ndarray, reference: np.ndarray, *, space: str = "luv") -> np.ndarray:
    """Remove from a test the smooth error of tone and colour that one curve per image explains.

    ``luv`` fits PQ luminance by a cubic polynomial, and u'v' by a cubic polynomial of both with a ridge
    towards the identity. ``rgb`` fits the three channels at once, in PQ, with the same ridge.

    Args:
        test: Float (H, W, 3), linear RGB, **absolute** cd/m2, clamped to 0.005 ... 1e8.
        reference: The same.
        space: ``luv`` (the authors' default) or ``rgb``.

    Returns:
        float64 (H, W, 3), cd/m2, finite and not negative.

    Raises:
        ReplicationError: Other shapes or spaces, NaN, negative or larger values.
    """
    return _correct(test, reference, space)[0]


def _correct(test, reference, space: str) -> tuple[np.ndarray, list[np.ndarray]]:
    """The corrected test and the coefficients of its polynomials."""
    pair = check_pair(test, reference, light=True)
    if pair[0].ndim != 3 or space not in ("luv", "rgb"):
        raise ReplicationError(f"Correction needs (H, W, 3) and luv or rgb, not {space!r}.")
    test, reference = (np.maximum(image.astype(np.float64), _DARKEST) for image in pair)
    if space == "rgb":
        fitted, weights = _fit(_pq(test), _pq(reference), _RIDGE)
        return _inverse_pq(fitted), [weights]
    (light, chroma), (want_light, want_chroma) = _yuv(test), _yuv(reference)
    light, first = _fit(_pq(light), _pq(want_light), 0)
    chroma, second = _fit(chroma, want_chroma, _RIDGE)
    return _rgb(_inverse_pq(light), np.maximum(chroma, _DARKEST)), [first, second]


def _fit(x: np.ndarray, y: np.ndarray, ridge: float) -> tuple[np.ndarray, np.ndarray]:
    """Least squares of y (H, W, C) by cubes, squares, products, x itself and 1, and its coefficients."""
    count = x.shape[2]
    products = [x[..., [i]] * x[..., [j]] for i in range(count) for j in range(i + 1, count)]
    columns = np.concatenate([x**3, x**2, *products, x, np.ones_like(x[..., :1])], axis=2)
    flat = columns.reshape(-1, columns.shape[2])
    rest, terms = (y - x).reshape(-1, count), flat.shape[1]
    if ridge:
        penalty = ridge * len(flat) / terms * np.eye(terms)
        change = np.linalg.solve(flat.T @ flat + penalty, flat.T @ rest)
    else:  # of several solutions the one nearest to the identity
        change = np.linalg.lstsq(flat, rest, rcond=None)[0]
    weights = np.eye(terms, count, count + 1 - terms) + change
    return columns @ weights, weights


def _pq(light: np.ndarray | float) -> np.ndarray:
    power = (light / 10000) ** _N
    return ((_C1 + _C2 * power) / (1 + _C3 * power)) ** _M


def _inverse_pq(code: np.ndarray) -> np.ndarray:
    root = np.clip(code, _pq(_DARKEST), _pq(_BRIGHTEST)) ** (1 / _M)
    return 10000 * ((_C1 - root) / (_C3 * root - _C2)) ** (1 / _N)


def _yuv(rgb: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Luminance Y (H, W, 1) and scaled u', v' (H, W, 2)."""
    x, y, z = np.moveaxis(np.clip(rgb @ _TO_XYZ.T, 1e-4, _BRIGHTEST), 2, 0)
    x, y, luminance = x / (x + y + z), y / (x + y + z), y
    uv = np.stack([4 * x, 9 * y], axis=2) / (-2 * x + 12 * y + 3)[..., None]
    return luminance[..., None], uv * _UV_SCALE


def _rgb(luminance: np.ndarray, uv: np.ndarray) -> np.ndarray:
    u, v = np.moveaxis(uv / _UV_SCALE, 2, 0)
    xyz = np.stack([9 * u, 4 * v, 12 - 3 * u - 20 * v], axis=2) / (4 * v[..., None]) * luminance
    return np.maximum(np.clip(xyz, 1e-4, _BRIGHTEST) @ np.linalg.inv(_TO_XYZ).T, 0)
