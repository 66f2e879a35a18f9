"""Sums of floats without rounding errors. They are identical to the last bit, whatever the order and the size of the
parts that are added."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np

_MANTISSA_BITS, _HIGH_BITS, _LOW_BITS = 53, 26, 27
_AT_ONCE = 32_768  # values; the intermediate results for this many stay in the processor's cache
_SPLITTER = float((1 << 27) + 1)  # Veltkamp's constant, which splits a 53-bit mantissa into halves


class ExactSum:
    """An exact sum of float64 values, stored as one integer per binary exponent."""

    def __init__(self) -> None:
        self._by_exponent: dict[int, int] = {}

    def add(self, values: np.ndarray, scales: np.ndarray | int = 0) -> None:
        """Add finite values, each multiplied by 2 to the power of its scale. There must be at least one value and at
        most 2**26."""
        fractions, exponents = np.frexp(values)
        fractions *= 1 << _HIGH_BITS
        high = np.floor(fractions)
        places = exponents + scales
        lowest = int(places.min())
        places -= lowest
        # Each half of a mantissa has at most 27 bits, so the sum of 2**26 halves is not rounded.
        totals = zip(np.bincount(places, high).tolist(), np.bincount(places, fractions - high).tolist(), strict=True)
        for exponent, (whole, rest) in enumerate(totals, lowest):
            if whole or rest:
                total = (int(whole) << _LOW_BITS) + int(rest * (1 << _LOW_BITS))
                self._by_exponent[exponent] = self._by_exponent.get(exponent, 0) + total

    def merge(self, other: ExactSum) -> None:
        for exponent, total in other._by_exponent.items():
            self._by_exponent[exponent] = self._by_exponent.get(exponent, 0) + total

    @property
    def value(self) -> Fraction:
        two = Fraction(2)
        return sum(
            (total * two ** (exponent - _MANTISSA_BITS) for exponent, total in self._by_exponent.items()), Fraction(0)
        )


class ExactMoments:
    """The count, minimum, maximum, sum, mean and standard deviation of finite numbers.

    Args:
        deviation: whether the standard deviation is needed, which takes twice as long as everything else.

    Attributes:
        low, high: the minimum and maximum, or 0.0 if there are no numbers.
    """

    def __init__(self, *, deviation: bool = True) -> None:
        self._with_deviation = deviation
        self.count = 0
        self.low = self.high = 0.0
        self._sum, self._squares = ExactSum(), ExactSum()

    def add(self, values: np.ndarray) -> None:
        """Add float64 values. Infinite values and NaN are skipped."""
        for start in range(0, len(values), _AT_ONCE):
            some = values[start : start + _AT_ONCE]
            self._add(some[np.isfinite(some)])

    def _add(self, values: np.ndarray) -> None:
        if not len(values):
            return
        low, high = float(values.min()), float(values.max())
        self.low = min(self.low, low) if self.count else low
        self.high = max(self.high, high) if self.count else high
        self.count += len(values)
        self._sum.add(values)
        if not self._with_deviation:
            return
        # The squares of large numbers overflow, and those of tiny ones underflow; the squares of mantissas do neither.
        fractions, exponents = np.frexp(values)
        squares, errors = _exact_squares(fractions)
        self._squares.add(squares, 2 * exponents)
        self._squares.add(errors, 2 * exponents)

    def merge(self, other: ExactMoments) -> None:
        if other.count:
            self.low = min(self.low, other.low) if self.count else other.low
            self.high = max(self.high, other.high) if self.count else other.high
        self.count += other.count
        self._sum.merge(other._sum)
        self._squares.merge(other._squares)

    @property
    def total(self) -> float:
        """Return the sum as the nearest float."""
        return float(self._sum.value)

    @property
    def sample_deviation(self) -> float:
        """Return the standard deviation with the divisor n - 1, or NaN if there are fewer than two numbers."""
        if self.count < 2:
            return math.nan
        mean = self._sum.value / self.count
        return _root((self._squares.value - mean * mean * self.count) / (self.count - 1))

    @property
    def mean(self) -> float:
        """Return the mean, or 0.0 if there are no numbers."""
        return float(self._sum.value / self.count) if self.count else 0.0

    @property
    def population_deviation(self) -> float:
        """Return the standard deviation with the divisor n, as scikit-learn's StandardScaler does, or 0.0 if there are
        no numbers."""
        if not self.count:
            return 0.0
        mean = self._sum.value / self.count
        return _root(self._squares.value / self.count - mean * mean)


def _root(square: Fraction) -> float:
    """Return the square root of a fraction. The fraction itself may be too large or too small for a float."""
    shift = (square.numerator.bit_length() - square.denominator.bit_length()) // 2
    return math.ldexp(math.sqrt(square / Fraction(4) ** shift), shift)


def _exact_squares(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the squares of floats as floats, and their rounding errors (Dekker 1971, doi:10.1007/BF01397083)."""
    squares = values * values
    swollen = _SPLITTER * values
    high = swollen - (swollen - values)
    low = values - high
    return squares, low * low - ((squares - high * high) - 2.0 * high * low)
