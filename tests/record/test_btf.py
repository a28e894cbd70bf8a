"""Numbers and offsets out of a BTF blob made here (Documentation/bpf/btf.rst)."""

import struct

import pytest

from stratokit.record.btf import KIND_FUNCTION, KIND_STRUCT, Btf

TEXT = b"\0file\0f_inode\0bpf_rdonly_cast\0inode\0"
INTEGER = 1


def kind(number, elements=0):
    return number << 24 | elements


def name(text):
    return TEXT.index(b"\0" + text + b"\0") + 1


def blob(*types):
    body = b"".join(types)
    head = struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(body), len(body), len(TEXT))
    return head + body + TEXT


MADE = blob(
    struct.pack("<III", name(b"inode"), kind(INTEGER), 8) + struct.pack("<I", 64),
    # A function of the structure's name before it, and a structure that only contains the name.
    struct.pack("<III", name(b"file"), kind(KIND_FUNCTION), 1),
    struct.pack("<III", name(b"file"), kind(KIND_STRUCT, 1), 16)
    + struct.pack("<III", name(b"f_inode"), 1, 64),
    struct.pack("<III", name(b"bpf_rdonly_cast"), kind(KIND_FUNCTION), 1),
)


def test_types_have_numbers_by_name_and_kind():
    btf = Btf(MADE)
    assert btf.number("file", KIND_STRUCT) == 3
    assert btf.number("file", KIND_FUNCTION) == 2
    assert btf.number("bpf_rdonly_cast", KIND_FUNCTION) == 4
    assert btf.offset("file", "f_inode") == 8


@pytest.mark.parametrize("missing", ["inode", "rdonly_cast", "fil", "task_struct"])
def test_a_kernel_without_one_says_so(missing):
    with pytest.raises(KeyError):
        Btf(MADE).number(missing, KIND_STRUCT)
