"""The partition is exact: what is summed over it equals brute force in integers, for both families of bounds."""

import pytest
from hypothesis import given, settings, strategies as st

from obsloop import Histogram
from obsloop.metrics.buckets import COUNTS, SECONDS, Buckets, floor_power

BOTH = pytest.mark.parametrize("partition", [SECONDS, COUNTS], ids=["seconds", "counts"])
MODERATE = settings(max_examples=60, deadline=None, database=None)


def edges(partition: Buckets) -> list[int]:
    """Each bound and its neighbours: where an error by one would show."""
    return [v for b in partition.bounds for v in (b - 1, b, b + 1) if v >= 0]


def values_for(partition: Buckets):
    """Lists of counted integers of every size, many of them at a bound, some past the last."""
    top = partition.bounds[-1] * 4
    by_size = st.integers(0, top.bit_length()).flatmap(lambda bits: st.integers(0, 1 << bits))
    return st.lists(st.one_of(by_size, st.sampled_from(edges(partition)), st.just(top)), max_size=60)


def histogram_of(partition: Buckets, values: list[int]) -> Histogram:
    """A histogram with `values` counted in, the way the core does it."""
    block = [0] * (partition.size + 1)
    for value in values:
        block[0] += value
        block[1 + partition.index(value)] += 1
    return Histogram.from_block(partition, block)


def at_most_power(value: int, units: int, exponent: int, per_octave: int) -> bool:
    """Whether value <= units * 2**(exponent / per_octave), in integers only."""
    left, right = value**per_octave, units**per_octave
    return left <= right << exponent if exponent >= 0 else left << -exponent <= right


def brute_exponential(partition: Buckets, values: list[int], scale: int):
    """Zero count and {bucket index: count}, value by value, by exact comparison."""
    per_octave = 1 << scale
    lowest = (partition.min_exponent // 4) * per_octave
    highest = (partition.max_exponent // 4) * per_octave
    smallest = 0 if partition.units == 1 else floor_power(partition.units, partition.min_exponent)
    zero, found = 0, {}
    for value in values:
        if value <= smallest:
            zero += 1
            continue
        index = lowest - 1  # bucket `index` ends at 2**((index + 1) / per_octave); past the last bound: one more bucket
        while index < highest and not at_most_power(value, partition.units, index + 1, per_octave):
            index += 1
        found[index] = found.get(index, 0) + 1
    return zero, found


@BOTH
@MODERATE
@given(data=st.data())
def test_classic_buckets_equal_brute_force(partition, data):
    """Cumulative counts at any choice of the decimal bounds are those of integer comparison."""
    values = data.draw(values_for(partition))
    bounds = data.draw(st.lists(st.sampled_from(partition.decimal_bounds), unique=True))
    histogram = histogram_of(partition, values)
    assert histogram.count == len(values)
    assert histogram.sum == sum(values) / partition.units
    expected = tuple(sum(v <= round(bound * partition.units) for v in values) for bound in bounds)
    assert histogram.cumulative(bounds) == expected


@BOTH
@pytest.mark.parametrize("scale", [2, 1, 0])
@MODERATE
@given(data=st.data())
def test_exponential_buckets_equal_brute_force(partition, scale, data):
    """Each value is in the bucket that v**4 <= units**4 * 2**i puts it in, at scales 2, 1 and 0."""
    values = data.draw(values_for(partition))
    got = histogram_of(partition, values).exponential(scale)
    zero, expected = brute_exponential(partition, values, scale)
    assert got.scale == scale
    assert got.zero_count == zero
    assert {got.offset + i: n for i, n in enumerate(got.counts) if n} == expected
    assert got.zero_count + sum(got.counts) == len(values)
    assert not got.counts or (got.counts[0] and got.counts[-1]), "empty buckets at an end are left out"


@BOTH
@pytest.mark.parametrize("scale", [2, 1, 0])
def test_every_bound_and_its_neighbours_are_in_the_right_exponential_bucket(partition, scale):
    """One value at a time, at every bound and one beside it: the places where floats would go wrong."""
    for value in edges(partition):
        got = histogram_of(partition, [value]).exponential(scale)
        zero, expected = brute_exponential(partition, [value], scale)
        assert (got.zero_count, {got.offset + i: n for i, n in enumerate(got.counts)}) == (zero, expected), value


@BOTH
def test_what_is_past_the_last_bound_is_in_the_last_bucket(partition):
    """An endless callback is counted: above every classic bound, and in the last exponential bucket."""
    histogram = histogram_of(partition, [partition.bounds[-1] * 1000])
    assert histogram.cumulative(partition.decimal_bounds) == (0,) * len(partition.decimal_bounds)
    for scale in (0, 1, 2):
        assert histogram.exponential(scale).offset == (partition.max_exponent // 4) << scale
        assert histogram.exponential(scale).counts == (1,)


@BOTH
def test_the_zero_threshold_is_the_smallest_bound(partition):
    """What is at or below the threshold is in the zero bucket, the next integer is not. One handle is not none."""
    first = floor_power(partition.units, partition.min_exponent) if partition is SECONDS else 0
    empty = histogram_of(partition, []).exponential()
    assert (empty.zero_threshold, empty.zero_count, empty.counts) == (first / partition.units, 0, ())
    assert histogram_of(partition, [0, first]).exponential().zero_count == 2
    assert histogram_of(partition, [first + 1]).exponential().zero_count == 0


@BOTH
@pytest.mark.parametrize("limit", [0, 1, 2, 3, 59, 60, 1000, 1 << 14])
def test_the_fast_table_says_what_the_bisection_says(partition, limit):
    """fast_index is index, looked up."""
    assert partition.fast_index(limit) == [partition.index(v) for v in range(limit)]


@BOTH
@pytest.mark.parametrize(("limit", "bits"), [(1 << 24, 10), (1 << 16, 3), (1 << 8, 0)])
def test_the_coarse_table_is_the_bisection_where_it_says_so(partition, limit, bits):
    """coarse_index is index + 1 of all values of a cell, or 0 where a bound lies between them."""
    lowest = [partition.index(cell << bits) for cell in range(limit >> bits)]
    highest = [partition.index((cell << bits) + (1 << bits) - 1) for cell in range(limit >> bits)]
    expected = [low + 1 if low == high else 0 for low, high in zip(lowest, highest, strict=True)]
    assert partition.coarse_index(limit, bits) == expected


@MODERATE
@given(units=st.sampled_from([1, 1000, 10**9]), exponent=st.integers(-120, 120))
def test_floor_power_is_the_exact_floor(units, exponent):
    """floor_power(units, e) is the largest integer v with v**4 <= units**4 * 2**e."""
    floor = floor_power(units, exponent)
    assert at_most_power(floor, units, exponent, 4)
    assert not at_most_power(floor + 1, units, exponent, 4)


@BOTH
def test_bounds_rise_and_hold_both_families(partition):
    """The bounds are distinct, in order, and hold every decimal bound and every power of two."""
    assert list(partition.bounds) == sorted(set(partition.bounds))
    assert partition.size == len(partition.bounds) + 1
    assert {round(d * partition.units) for d in partition.decimal_bounds} <= set(partition.bounds)
    powers = {floor_power(partition.units, e) for e in range(partition.min_exponent, partition.max_exponent + 1)}
    assert powers <= set(partition.bounds)


@BOTH
@MODERATE
@given(data=st.data())
def test_histograms_merge_by_adding(partition, data):
    """The sum of two histograms' counts is the histogram of both: classic and exponential alike."""
    a, b = data.draw(values_for(partition)), data.draw(values_for(partition))
    both = histogram_of(partition, a + b)
    parts = zip(histogram_of(partition, a).bucket_counts, histogram_of(partition, b).bucket_counts, strict=True)
    assert both.bucket_counts == tuple(x + y for x, y in parts)
    coarse, fine = both.exponential(0), both.exponential(2)
    merged: dict[int, int] = {}
    for i, n in enumerate(fine.counts):
        merged[(fine.offset + i) >> 2] = merged.get((fine.offset + i) >> 2, 0) + n
    assert {coarse.offset + i: n for i, n in enumerate(coarse.counts) if n} == {i: n for i, n in merged.items() if n}


@BOTH
def test_a_bound_that_is_none_of_ours_is_refused(partition):
    """An inexact bucket is never given: the error names the bound and those that can be had."""
    with pytest.raises(ValueError, match=r"0\.3 is not a bound .* choose among .*0\.5|0\.3 is not a bound .* 1, 2, 5"):
        histogram_of(partition, [1]).cumulative([0.3])


@BOTH
@pytest.mark.parametrize("scale", [3, -1, 20])
def test_a_scale_that_cannot_be_exact_is_refused(partition, scale):
    """Scales finer than the partition, or below zero, are an error that names the scale and the accepted ones."""
    with pytest.raises(ValueError, match=rf"scale {scale} cannot be given exactly; choose 0 to 2"):
        histogram_of(partition, [1]).exponential(scale)
