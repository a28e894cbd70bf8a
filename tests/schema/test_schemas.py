"""schemas/ keeps its own rules, and everything that derives from it agrees with it."""

import re

import numpy as np
import pytest

from stratokit.errors import SchemaError
from stratokit.schema import arrow, derive, load

HEADER = load.lay_out(
    [
        {"name": "ts_ns", "type": "u64", "doc": "t"},
        {"name": "event", "type": "u16", "doc": "e"},
        {"name": "cpu", "type": "u16", "doc": "c"},
        {"name": "flags", "type": "u32", "doc": "f"},
    ],
    0,
    "header",
)


def event(*fields: dict, sections: tuple = ()) -> dict:
    return {"id": 99, "name": "x", "since": 1, "doc": "d", "field": list(fields), "section": list(sections)}


def test_hidden_padding_between_fields_is_refused():
    with pytest.raises(SchemaError, match="b at byte 20 is not aligned to 8"):
        load.build_event(
            event({"name": "a", "type": "u32", "doc": "d"}, {"name": "b", "type": "u64", "doc": "d"}), *HEADER
        )


def test_hidden_padding_at_the_end_is_refused():
    with pytest.raises(SchemaError, match="no multiple of 8"):
        load.build_event(event({"name": "a", "type": "u32", "doc": "d"}), *HEADER)


@pytest.mark.parametrize("doc", ["", "  "])
def test_an_empty_meaning_is_refused(doc):
    with pytest.raises(SchemaError, match=r"x\.a has no doc"):
        load.build_event(event({"name": "a", "type": "u64", "doc": doc}), *HEADER)


def test_a_section_needs_a_field_for_its_length():
    with pytest.raises(SchemaError, match="unknown field"):
        load.build_event(
            event(
                {"name": "a", "type": "u64", "doc": "d"},
                sections=({"name": "s", "length": "nothing", "doc": "d"},),
            ),
            *HEADER,
        )


@pytest.mark.parametrize("type_", ["u128", "char", "u8[0]", "float"])
def test_unknown_types_are_refused(type_):
    with pytest.raises(SchemaError, match="unknown field type"):
        load.type_size(type_)


def test_numpy_and_schema_agree_on_every_offset():
    for declared in load.events().values():
        dtype = derive.numpy_dtype(declared)
        assert dtype.itemsize == declared.size
        assert [(f.name, f.offset) for f in declared.fields] == [
            (name, dtype.fields[name][1]) for name in dtype.names
        ]


def test_header_names_every_event_and_counter():
    text = derive.c_header()
    for name, declared in load.events().items():
        assert f"#define EVENT_{name.upper()} {declared.id}\n" in text
    defined = dict(re.findall(r"#define COUNT_(\w+) (\d+)", text))
    assert defined == {name.upper(): str(i) for i, name in enumerate(load.kernel_counters())}


def test_programs_and_counters_name_each_other():
    """A counter that no program counts, or one that is not declared, is a mistake on one of both sides."""
    programs = "".join(path.read_text() for path in load.data_dir("bpf").glob("*.[ch]"))
    used = {name.lower() for name in re.findall(r"\bCOUNT_(\w+)", programs)}
    assert used == set(load.kernel_counters())


def test_recorder_reads_every_kernel_member_that_programs_use():
    from stratokit.record import btf

    programs = "".join(path.read_text() for path in load.data_dir("bpf").glob("*.c"))
    used = set(re.findall(r"\bOFF_\w+", programs))
    further = (btf.TCP_MEMBERS, btf.USER_MEMBERS, btf.DEVICE_MEMBERS, btf.TLS_MEMBERS, btf.DROP_MEMBERS)
    further += (btf.QUICK_MEMBERS,)
    members = {member for members in (btf.MEMBERS, *further) for member in members}
    assert used == {f"OFF_{struct}_{member.replace('.', '_')}" for struct, member in members}


def test_arrow_schema_carries_meaning_and_unit():
    schema = arrow.arrow_schema(load.capture().columns)
    assert schema.field("duration_ns").metadata[b"unit"] == b"ns"
    assert all(schema.field(i).metadata[b"doc"] for i in range(len(schema)))


def test_numbers_with_a_unit_in_their_name_have_it_as_unit():
    for column in load.capture().columns:
        for suffix, unit in (("_ns", "ns"), ("_bytes", "bytes"), ("_len", "bytes")):
            if column.name.endswith(suffix):
                assert column.unit == unit, column.name


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_system_calls(machine):
    calls = load.syscalls(machine)
    names = [call.name for call in calls.values()]
    assert len(set(names)) == len(names)
    assert {"openat", "read", "connect", "accept4", "execve", "bpf", "membarrier"} <= set(names)
    for call in calls.values():
        assert call.group in load.syscall_groups()
        assert len(call.args) <= 6
        assert all(name and kind for name, kind in call.args), call.name


def test_every_described_call_exists_on_some_machine():
    import tomllib

    described = tomllib.loads((load.data_dir("schemas") / "syscalls" / "calls.toml").read_text())["calls"]
    known = {call.name for machine in ("x86_64", "aarch64") for call in load.syscalls(machine).values()}
    assert set(described) <= known


def test_event_struct_compiles_as_declared(tmp_path):
    import shutil
    import subprocess

    compiler = shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        pytest.skip("no C compiler")
    types = "typedef unsigned char u8; typedef unsigned short u16; typedef unsigned u32; typedef int s32;"
    types += "typedef unsigned long long u64; typedef long long s64;\n"
    source = tmp_path / "events.c"
    source.write_text(types + derive.c_header())
    subprocess.run(
        [compiler, "-std=c11", "-Wpadded", "-Werror", "-c", source, "-o", tmp_path / "o"], check=True
    )


def test_dtype_reads_what_c_would_write():
    dtype = derive.numpy_dtype(load.events()["owner"])
    raw = bytearray(dtype.itemsize)
    raw[40:44] = (4711).to_bytes(4, "little")
    raw[56:60] = b"curl"
    row = np.frombuffer(bytes(raw), dtype)[0]
    assert (row["pid"], row["comm"]) == (4711, b"curl")
