# In which bucket of a histogram a value is counted. The bounds come from `obsloop.metrics.buckets`; a table finds the
# bucket from a value's leading bits.

cdef Line seconds_line
cdef Line counts_line


cdef int fill_line(Line *line, partition) except -1:
    bounds = partition.bounds
    if len(bounds) > MAX_BOUNDS:
        raise ImportError(f"the compiled core was built for {MAX_BOUNDS} bounds, there are {len(bounds)}")
    line.size = len(bounds)
    for i, bound in enumerate(bounds):
        line.bounds[i] = bound
    for msb in range(63):
        for sub in range(1 << SUB_BITS):
            low = (((1 << SUB_BITS) + sub) << msb) >> SUB_BITS
            line.first[(msb << SUB_BITS) + sub] = partition.index(low)
    return 0


fill_line(&seconds_line, SECONDS)
fill_line(&counts_line, COUNTS)


cdef inline int bucket(Line *line, int64_t value) noexcept nogil:
    """Return which cell of a block counts ``value``; cell 0 is the sum."""
    cdef int msb, i
    if value <= line.bounds[0]:
        return 1
    msb = obsloop_msb(<uint64_t>value)
    if msb >= SUB_BITS:
        i = line.first[(msb << SUB_BITS) + ((value >> (msb - SUB_BITS)) & ((1 << SUB_BITS) - 1))]
    else:
        i = line.first[(msb << SUB_BITS) + ((value << (SUB_BITS - msb)) & ((1 << SUB_BITS) - 1))]
    while i < line.size and value > line.bounds[i]:
        i += 1
    return i + 1


cdef inline void count(int64_t *block, Line *line, int64_t value) noexcept nogil:
    """Count one more value. For sums that grow no faster than time passes: 63 bits hold 292 years."""
    block[0] += value
    block[bucket(line, value)] += 1
