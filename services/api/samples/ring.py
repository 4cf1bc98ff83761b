"""What many objects took in the last hour and the last day, in arrays: pure, vectorised, and of bounded size.

An object has a row. Of each minute of an hour and of each half hour of a day one code per figure is kept: 16 bits, as
the logarithm of the value, so that anything from a byte to a yottabyte is right to 0.1 %. That is 1.3 KiB an object;
with the newest values and the counters that the next rates need, 1.6 KiB.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Codes = NDArray[np.uint16]
Rows = NDArray[np.int64]

RATES = 5
"""CPU, disk read, disk written, received, sent: counters that become rates."""
FIGURES = RATES + 1
"""The rates, then memory, which is what it is."""
CPU, DISK_READ, DISK_WRITE, NET_RECEIVE, NET_TRANSMIT, MEMORY = range(FIGURES)
_UNKNOWN = np.uint16(65535)
_STEPS = 1024.0
_GROWTH = 1024


class Tier(NamedTuple):
    """How long a span is, in seconds, and how many are kept."""

    seconds: int
    spans: int


TIERS = (Tier(60, 60), Tier(1800, 48))
HOUR, DAY = range(len(TIERS))


class Series(NamedTuple):
    """Figures of one object by span: `starts` in Unix seconds, oldest first; a row of figures each."""

    starts: NDArray[np.int64]
    figures: Floats


def encode(values: Floats) -> Codes:
    """Values from 0 up as codes; what is no number becomes the code for that."""
    known = np.isfinite(values)
    codes = np.log2(1.0 + np.where(known, np.maximum(values, 0.0), 0.0)) * _STEPS
    return np.where(known, np.minimum(np.rint(codes), 65534), _UNKNOWN).astype(np.uint16)


def decode(codes: Codes) -> Floats:
    """The values; NaN for what is not known."""
    values = np.exp2(codes.astype(np.float64) / _STEPS) - 1.0
    return np.where(codes == _UNKNOWN, np.nan, values)


class _TierArrays:
    """One tier of all rows."""

    def __init__(self, tier: Tier) -> None:
        self.tier = tier
        self.codes: Codes = np.empty((0, tier.spans, FIGURES), np.uint16)
        self.last: Rows = np.empty(0, np.int64)
        self.start_time: Floats = np.empty(0)
        self.start_counters: Floats = np.empty((0, RATES))

    def grow(self, size: int) -> None:
        self.codes = _grown(self.codes, size, _UNKNOWN)
        self.last = _grown(self.last, size, -1)
        self.start_time = _grown(self.start_time, size, np.nan)
        self.start_counters = _grown(self.start_counters, size, np.nan)

    def forget(self, row: int) -> None:
        self.codes[row] = _UNKNOWN
        self.last[row] = -1
        self.start_time[row] = np.nan
        self.start_counters[row] = np.nan

    def put(self, rows: Rows, times: Floats, counters: Floats, memory: Floats, before: _Before) -> None:
        """Writes the mean since the span began into its place; spans that were passed over become unknown."""
        spans = (times // self.tier.seconds).astype(np.int64)
        last = self.last[rows]
        is_new = spans > last
        self._blank(rows[is_new], last[is_new], spans[is_new])
        fresh = rows[is_new]
        # A span begins where the sample before it was, so that nothing falls between two spans.
        is_followed = before.is_usable[is_new] & (spans[is_new] - last[is_new] == 1)
        self.start_time[fresh] = np.where(is_followed, before.times[is_new], times[is_new])
        self.start_counters[fresh] = np.where(is_followed[:, None], before.counters[is_new], counters[is_new])
        was_reset = rows[~before.is_usable]
        self.start_time[was_reset] = times[~before.is_usable]
        self.start_counters[was_reset] = counters[~before.is_usable]
        self.last[rows] = spans
        elapsed = times - self.start_time[rows]
        with np.errstate(divide="ignore", invalid="ignore"):
            rates = (counters - self.start_counters[rows]) / elapsed[:, None]
        rates[~(elapsed > 0)] = np.nan
        codes = encode(np.column_stack((rates, memory)))
        place = spans % self.tier.spans
        # What is known of a span is not lost by a restart of the guest within it.
        keeps = (codes == _UNKNOWN) & ~is_new[:, None]
        self.codes[rows, place] = np.where(keeps, self.codes[rows, place], codes)

    def _blank(self, rows: Rows, last: Rows, spans: Rows) -> None:
        """Every span from the last one that was written to the new one is not known."""
        gaps = np.where(last < 0, self.tier.spans, np.minimum(spans - last, self.tier.spans))
        for step in range(int(gaps.max(initial=0))):
            behind = gaps > step
            self.codes[rows[behind], (spans[behind] - step) % self.tier.spans] = _UNKNOWN

    def read(self, row: int, now: float) -> Series:
        last = int(self.last[row])
        oldest = max(last, int(now // self.tier.seconds)) - self.tier.spans + 1
        spans = np.arange(oldest, last + 1, dtype=np.int64) if last >= 0 else np.empty(0, np.int64)
        figures = decode(self.codes[row, spans % self.tier.spans])
        known = ~np.isnan(figures).all(axis=1)
        return Series(spans[known] * self.tier.seconds, figures[known])


class _Before(NamedTuple):
    """The samples before: time and counters, and whether a rate can be made from them."""

    times: Floats
    counters: Floats
    is_usable: NDArray[np.bool_]


class Ring:
    """Rows by key. At most `most` objects; what comes beyond them is not kept, and counted in `refused`."""

    def __init__(self, most: int) -> None:
        self._most = most
        self.refused = 0
        self._row_of: dict[int, int] = {}
        self._free: list[int] = []
        self._size = 0
        self._keys: Rows = np.empty(0, np.int64)
        self._times: Floats = np.empty(0)
        self._counters: Floats = np.empty((0, RATES))
        self._figures: Floats = np.empty((0, FIGURES))
        self._tiers = tuple(_TierArrays(tier) for tier in TIERS)

    def __len__(self) -> int:
        return len(self._row_of)

    @property
    def is_nearly_full(self) -> bool:
        """Nine of ten rows are taken."""
        return len(self._row_of) * 10 >= self._most * 9

    @property
    def nbytes(self) -> int:
        """Memory of the arrays."""
        own = self._keys.nbytes + self._times.nbytes + self._counters.nbytes + self._figures.nbytes
        return own + sum(
            t.codes.nbytes + t.last.nbytes + t.start_time.nbytes + t.start_counters.nbytes for t in self._tiers
        )

    def add(self, keys: list[int], times: Floats, counters: Floats, memory: Floats) -> None:
        """Samples of different objects, at Unix times: counters (CPU in percent-seconds), and memory.

        One that is not newer than the last of its object is passed over. A counter that fell begins anew.
        """
        picked = [(row, number) for number, key in enumerate(keys) if (row := self._row(key)) >= 0]
        if not picked:
            return
        rows, chosen = np.array(picked, np.int64).T
        times, counters, memory = times[chosen], counters[chosen], memory[chosen]
        is_newer = ~(times <= self._times[rows])
        rows, times, counters, memory = rows[is_newer], times[is_newer], counters[is_newer], memory[is_newer]
        if not rows.size:
            return
        before = _Before(self._times[rows], self._counters[rows], (counters >= self._counters[rows]).all(axis=1))
        with np.errstate(invalid="ignore"):
            rates = (counters - before.counters) / (times - before.times)[:, None]
        rates[~before.is_usable] = np.nan
        for tier in self._tiers:
            tier.put(rows, times, counters, memory, before)
        self._times[rows], self._counters[rows] = times, counters
        self._figures[rows] = np.column_stack((rates, memory))

    def forget(self, key: int) -> None:
        """The object is gone; its row is free for another."""
        row = self._row_of.pop(key, None)
        if row is None:
            return
        self._times[row] = np.nan
        self._counters[row] = np.nan
        self._figures[row] = np.nan
        for tier in self._tiers:
            tier.forget(row)
        self._free.append(row)

    def newest(self, keys: list[int]) -> tuple[Floats, Floats]:
        """Times and figures of these objects; NaN for what is not known."""
        rows = np.array([self._row_of.get(key, -1) for key in keys], np.int64)
        known = rows >= 0
        times, figures = np.full(len(keys), np.nan), np.full((len(keys), FIGURES), np.nan)
        times[known], figures[known] = self._times[rows[known]], self._figures[rows[known]]
        return times, figures

    def since(self, time: float) -> tuple[Rows, Floats, Floats]:
        """Keys, times and figures of all objects whose newest sample is not older, in no order."""
        rows = np.flatnonzero(self._times >= time)
        return self._keys[rows], self._times[rows], self._figures[rows]

    def older(self, time: float) -> list[int]:
        """Objects whose newest sample is older."""
        return [key for key, row in self._row_of.items() if not self._times[row] >= time]

    def history(self, key: int, tier: int, now: float) -> Series:
        """The spans of an object that are known; none for one without a row."""
        row = self._row_of.get(key)
        if row is None:
            return Series(np.empty(0, np.int64), np.empty((0, FIGURES)))
        return self._tiers[tier].read(row, now)

    def _row(self, key: int) -> int:
        row = self._row_of.get(key)
        if row is not None:
            return row
        if len(self._row_of) >= self._most:
            self.refused += 1
            return -1
        if not self._free:
            self._grow()
        row = self._row_of[key] = self._free.pop()
        self._keys[row] = key
        return row

    def _grow(self) -> None:
        """Half as much again, so that growing costs little and leaves little unused."""
        size = min(self._most, self._size + max(_GROWTH, self._size // 2))
        self._free.extend(range(size - 1, self._size - 1, -1))
        self._size = size
        self._keys = _grown(self._keys, size, 0)
        self._times = _grown(self._times, size, np.nan)
        self._counters = _grown(self._counters, size, np.nan)
        self._figures = _grown(self._figures, size, np.nan)
        for tier in self._tiers:
            tier.grow(size)


def _grown(array: NDArray[Any], size: int, fill: Any) -> NDArray[Any]:
    larger = np.full((size, *array.shape[1:]), fill, array.dtype)
    larger[: len(array)] = array
    return larger
