"""Blocks of 16 neighbouring voxels of one row: the innermost loops of CPU `superpose`.

The nine components are written out, since the compiler turns a loop over 16 voxels into vectors only if nothing loops
inside, and every array begins at its row's first column, since it does so only if it can tell that no index is negative.
From one exponent to the next, which is twice as large, with m = 1 - e^-y and q = 1 - m / y: m(2y) = m (2 - m),
q(2y) = q + m (1 - q) / 2.
"""

# mypy: disable-error-code="no-untyped-def"
# Numba gives the compiled functions their types.

from __future__ import annotations

import numpy as np
from numba import njit

BLOCK = 16
COMPONENTS = 9
PITCH = 1040  # floats between components: a constant for the compiler, and no power of two, which would thrash the cache

_ONE, _TWO, _HALF = np.float32(1), np.float32(2), np.float32(1 / 2)
_THIRD, _QUARTER, _FIFTH, _SIXTH = np.float32(1 / 3), np.float32(1 / 4), np.float32(1 / 5), np.float32(1 / 6)
_SEVENTH = np.float32(1 / 7)


@njit(cache=True, nogil=True, fastmath=True, inline="always")
def _path_terms(y):
    """m and q for small y, by their series: good to 2e-6 of themselves up to y = 0.4."""
    m = y * (_ONE - _HALF * y * (_ONE - _THIRD * y * (_ONE - _QUARTER * y * (_ONE - _FIFTH * y * (_ONE - _SIXTH * y)))))
    r = _ONE - _QUARTER * y * (_ONE - _FIFTH * y * (_ONE - _SIXTH * y * (_ONE - _SEVENTH * y)))
    return m, _HALF * y * (_ONE - _THIRD * y * r)


@njit(cache=True, nogil=True, fastmath=True, inline="always")
def _next(m, q):
    """m and q of the next exponent."""
    return m * (_TWO - m), q + _HALF * m * (_ONE - q)


@njit(cache=True, nogil=True, fastmath=True, inline="always")
def _pass(state, at, m):
    """Deposit of what arrives in one component."""
    here = state[at] * m
    state[at] -= here
    return here


@njit(cache=True, nogil=True, fastmath=True, inline="always")
def _pass_with_source(state, at, source, from_, m, q):
    """Deposit of what arrives and of what is released in one component."""
    arriving, new = state[at], source[from_]
    here = arriving * m + new * q
    state[at] = arriving + (new - here)
    return here


@njit(cache=True, nogil=True, fastmath=True)
def deposit(state, density, path, out):
    """A row where nothing is released."""
    for block in range(len(density) // BLOCK):
        c = block * BLOCK
        for j in range(BLOCK):
            m = _path_terms(path * density[c + j])[0]
            dose = _pass(state, c + j, m)
            m *= _TWO - m
            dose += _pass(state, PITCH + c + j, m)
            m *= _TWO - m
            dose += _pass(state, 2 * PITCH + c + j, m)
            m *= _TWO - m
            dose += _pass(state, 3 * PITCH + c + j, m)
            m *= _TWO - m
            dose += _pass(state, 4 * PITCH + c + j, m)
            m *= _TWO - m
            dose += _pass(state, 5 * PITCH + c + j, m)
            m *= _TWO - m
            dose += _pass(state, 6 * PITCH + c + j, m)
            m *= _TWO - m
            dose += _pass(state, 7 * PITCH + c + j, m)
            m *= _TWO - m
            out[c + j] += dose + _pass(state, 8 * PITCH + c + j, m)


@njit(cache=True, nogil=True, fastmath=True)
def deposit_with_source(state, source, density, path, out):
    """A row where energy is released."""
    for block in range(len(density) // BLOCK):
        c = block * BLOCK
        for j in range(BLOCK):
            m, q = _path_terms(path * density[c + j])
            dose = _pass_with_source(state, c + j, source, c + j, m, q)
            m, q = _next(m, q)
            dose += _pass_with_source(state, PITCH + c + j, source, PITCH + c + j, m, q)
            m, q = _next(m, q)
            dose += _pass_with_source(state, 2 * PITCH + c + j, source, 2 * PITCH + c + j, m, q)
            m, q = _next(m, q)
            dose += _pass_with_source(state, 3 * PITCH + c + j, source, 3 * PITCH + c + j, m, q)
            m, q = _next(m, q)
            dose += _pass_with_source(state, 4 * PITCH + c + j, source, 4 * PITCH + c + j, m, q)
            m, q = _next(m, q)
            dose += _pass_with_source(state, 5 * PITCH + c + j, source, 5 * PITCH + c + j, m, q)
            m, q = _next(m, q)
            dose += _pass_with_source(state, 6 * PITCH + c + j, source, 6 * PITCH + c + j, m, q)
            m, q = _next(m, q)
            dose += _pass_with_source(state, 7 * PITCH + c + j, source, 7 * PITCH + c + j, m, q)
            m, q = _next(m, q)
            out[c + j] += dose + _pass_with_source(state, 8 * PITCH + c + j, source, 8 * PITCH + c + j, m, q)


@njit(cache=True, nogil=True, fastmath=True, inline="always")
def _mixed(k, i, p, ps, pss, q, qs, qss):
    """Released energy of two groups and its first two moments in s, times one component's parabola of each."""
    first = p * k[0, i] + ps * k[1, i] + pss * k[2, i]
    return first + q * k[0, COMPONENTS + i] + qs * k[1, COMPONENTS + i] + qss * k[2, COMPONENTS + i]


@njit(cache=True, nogil=True, fastmath=True)
def add_source(source, energy, energy_2, k, gain, rise, place):
    """Adds two groups' released energy times their kernels, parabolas `k` (3, 18) in s = gain c / (1 + rise c) - 1.

    `place` is scratch for s, in a loop of its own: the compiler makes no vectors of the long loop with a division inside.
    """
    for c in range(len(energy)):
        column = np.float32(c)
        place[c] = gain * column / (_ONE + rise * column) - _ONE
    for block in range(len(energy) // BLOCK):
        c = block * BLOCK
        for j in range(BLOCK):
            s = place[c + j]
            p, q = energy[c + j], energy_2[c + j]
            ps, qs = p * s, q * s
            pss, qss = ps * s, qs * s
            source[c + j] += _mixed(k, 0, p, ps, pss, q, qs, qss)
            source[PITCH + c + j] += _mixed(k, 1, p, ps, pss, q, qs, qss)
            source[2 * PITCH + c + j] += _mixed(k, 2, p, ps, pss, q, qs, qss)
            source[3 * PITCH + c + j] += _mixed(k, 3, p, ps, pss, q, qs, qss)
            source[4 * PITCH + c + j] += _mixed(k, 4, p, ps, pss, q, qs, qss)
            source[5 * PITCH + c + j] += _mixed(k, 5, p, ps, pss, q, qs, qss)
            source[6 * PITCH + c + j] += _mixed(k, 6, p, ps, pss, q, qs, qss)
            source[7 * PITCH + c + j] += _mixed(k, 7, p, ps, pss, q, qs, qss)
            source[8 * PITCH + c + j] += _mixed(k, 8, p, ps, pss, q, qs, qss)
