"""CRC-32 (of IEEE 802.3, as zlib's) by the processor's own multiplication, where a library is here that uses
it: libdeflate, several times as fast as zlib. Only the standard library is imported here.
"""

from __future__ import annotations

import ctypes
import functools
import zlib
from typing import Any

# Of fewer bytes zlib is done before an address is found.
LEAST_BYTES = 4096
_LIBRARY = "libdeflate.so.0"


class _Buffer(ctypes.Structure):
    """Py_buffer, part of Python's stable ABI since 3.11."""

    _fields_ = (
        ("buf", ctypes.c_void_p),
        ("obj", ctypes.c_void_p),
        ("len", ctypes.c_ssize_t),
        ("itemsize", ctypes.c_ssize_t),
        ("readonly", ctypes.c_int),
        ("ndim", ctypes.c_int),
        ("format", ctypes.c_void_p),
        ("shape", ctypes.c_void_p),
        ("strides", ctypes.c_void_p),
        ("suboffsets", ctypes.c_void_p),
        ("internal", ctypes.c_void_p),
    )


@functools.cache
def _functions() -> tuple[Any, Any, Any] | None:
    """The library's function, and Python's to have and to give back an address; None without the library."""
    try:
        found = ctypes.CDLL(_LIBRARY).libdeflate_crc32
        take, give = ctypes.pythonapi.PyObject_GetBuffer, ctypes.pythonapi.PyBuffer_Release
    except (OSError, AttributeError):
        return None
    found.restype = ctypes.c_uint32
    found.argtypes = (ctypes.c_uint32, ctypes.c_void_p, ctypes.c_size_t)
    take.restype = ctypes.c_int
    take.argtypes = (ctypes.py_object, ctypes.POINTER(_Buffer), ctypes.c_int)
    give.restype = None
    give.argtypes = (ctypes.POINTER(_Buffer),)
    return found, take, give


def crc32(data: bytes | memoryview, value: int = 0) -> int:
    """As zlib.crc32; `data` is contiguous."""
    functions = _functions() if len(data) >= LEAST_BYTES else None
    if functions is None:
        return zlib.crc32(data, value)
    found, take, give = functions
    buffer = _Buffer()
    take(data, ctypes.byref(buffer), 0)
    try:
        return int(found(value, buffer.buf, buffer.len))
    finally:
        give(ctypes.byref(buffer))
