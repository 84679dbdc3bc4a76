"""The published schema of pprof's format, as facts: names, numbers and types of the fields that obsloop writes.

From google/pprof, proto/profile.proto. protobuf's own runtime reads what obsloop has written by hand.
"""

import gzip

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from obsloop.profile import pprof, windows

SCHEMA = {
    "ValueType": ["int64 type 1", "int64 unit 2"],
    "Label": ["int64 key 1", "int64 str 2", "int64 num 3", "int64 num_unit 4"],
    "Sample": ["repeated uint64 location_id 1", "repeated int64 value 2", "repeated Label label 3"],
    "Mapping": [
        "uint64 id 1", "uint64 memory_start 2", "uint64 memory_limit 3", "uint64 file_offset 4", "int64 filename 5",
        "int64 build_id 6", "bool has_functions 7", "bool has_filenames 8", "bool has_line_numbers 9",
        "bool has_inline_frames 10",
    ],
    "Line": ["uint64 function_id 1", "int64 line 2"],
    "Location": ["uint64 id 1", "uint64 mapping_id 2", "uint64 address 3", "repeated Line line 4", "bool is_folded 5"],
    "Function": ["uint64 id 1", "int64 name 2", "int64 system_name 3", "int64 filename 4", "int64 start_line 5"],
    "Profile": [
        "repeated ValueType sample_type 1", "repeated Sample sample 2", "repeated Mapping mapping 3",
        "repeated Location location 4", "repeated Function function 5", "repeated string string_table 6",
        "int64 drop_frames 7", "int64 keep_frames 8", "int64 time_nanos 9", "int64 duration_nanos 10",
        "ValueType period_type 11", "int64 period 12", "repeated int64 comment 13", "int64 default_sample_type 14",
    ],
}  # fmt: skip


@pytest.fixture(scope="module")
def message():
    """The class of a profile, made from the facts above."""
    field = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="facts.proto", package="facts", syntax="proto3")
    for name, lines in SCHEMA.items():
        message = file.message_type.add(name=name)
        for line in lines:
            *repeated, kind, field_name, number = line.split()
            label = field.LABEL_REPEATED if repeated else field.LABEL_OPTIONAL
            added = message.field.add(name=field_name, number=int(number), label=label)
            if kind in SCHEMA:
                added.type, added.type_name = field.TYPE_MESSAGE, f".facts.{kind}"
            else:
                added.type = getattr(field, f"TYPE_{kind.upper()}")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("facts.Profile"))


@pytest.fixture
def read(message):
    """A profile with labels, read back."""
    recent = windows.Recent("blocked")
    main = ("app.main", "/srv/app.py", 300, True)
    recent.add(5.0, (main, ("app.load", "/srv/app.py", 7, True)), (("cause", "cpu"),), 2_000_000_000, 3)
    recent.add(5.0, (main,), (("cause", "syscall"), ("route", "/a/{b}")), 40_000_000, 1)
    raw = gzip.decompress(pprof.encode(recent.profile(60.0, 6.0, 1_700_000_000.0), period_ns=10_000_000))
    return message.FromString(raw)


def test_every_byte_is_of_the_schema(read, message):
    """Read and written again without what is not known, it says the same: there was nothing unknown in it."""
    known = message()
    known.CopyFrom(read)
    known.DiscardUnknownFields()
    assert known == read
    assert known.SerializeToString(deterministic=True) == read.SerializeToString(deterministic=True)


def test_every_reference_leads_somewhere(read):
    """As the schema's comments ask: unique ids that are not 0, an empty first string, as many values as types."""
    text = read.string_table
    assert text[0] == ""
    for entries in (read.mapping, read.location, read.function):
        ids = [entry.id for entry in entries]
        assert 0 not in ids
        assert len(set(ids)) == len(ids)
    functions = {entry.id: entry for entry in read.function}
    locations = {entry.id: entry for entry in read.location}
    mappings = {0, *(entry.id for entry in read.mapping)}  # 0: it has none
    assert all(entry.mapping_id in mappings for entry in read.location)
    assert [(text[each.type], text[each.unit]) for each in read.sample_type] == [
        ("samples", "count"),
        ("block", "nanoseconds"),
    ]
    assert text[read.default_sample_type] == "block"
    stacks = {}
    for sample in read.sample:
        assert len(sample.value) == len(read.sample_type)
        assert all(not (label.str and label.num) for label in sample.label)
        lines = [line for at in sample.location_id for line in locations[at].line]
        names = tuple((text[functions[line.function_id].name], line.line) for line in lines)
        stacks[names] = list(sample.value), {text[label.key]: text[label.str] for label in sample.label}
    assert stacks == {
        (("app.load", 7), ("app.main", 300)): ([3, 2_000_000_000], {"cause": "cpu"}),
        (("app.main", 300),): ([1, 40_000_000], {"cause": "syscall", "route": "/a/{b}"}),
    }
    assert (read.period, read.time_nanos > 0, read.duration_nanos) == (10_000_000, True, 6_000_000_000)
