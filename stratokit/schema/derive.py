"""Schema values turned into what other tools want: a C header and numpy dtypes. Arrow is in `arrow`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stratokit.schema import load

if TYPE_CHECKING:
    import numpy as np

    from stratokit.schema.model import Event

_NUMPY = {"u8": "u1", "u16": "<u2", "u32": "<u4", "u64": "<u8", "s32": "<i4", "s64": "<i8"}


def c_struct(event: Event) -> str:
    """`struct <name>_event` with assertions on its size and on every offset, so C and schema cannot
    differ.
    """
    lines = [f"/* {event.doc} */", f"struct {event.name}_event {{"]
    for field in event.fields:
        scalar, _, count = field.type.partition("[")
        lines.append(f"\t{scalar} {field.name}{'[' + count if count else ''};")
    lines.append("};")
    name = f"struct {event.name}_event"
    lines.append(f'_Static_assert(sizeof({name}) == {event.size}, "size of {event.name}");')
    lines += [
        f'_Static_assert(__builtin_offsetof({name}, {f.name}) == {f.offset}, "{event.name}.{f.name}");'
        for f in event.fields
    ]
    return "\n".join(lines) + "\n"


def c_header() -> str:
    """Everything that the kernel programs take from schemas/: structs, event ids, counter indexes."""
    parts = ["/* derived from schemas/ */\n"]
    parts += [f"#define EVENT_{e.name.upper()} {e.id}\n{c_struct(e)}" for e in load.events().values()]
    names = load.kernel_counters()
    parts += [f"#define COUNT_{name.upper()} {index}\n" for index, name in enumerate(names)]
    parts.append(f"#define COUNTERS {len(names)}\n")
    return "".join(parts)


def numpy_dtype(event: Event) -> np.dtype:
    """The fixed part of an event as a packed structured dtype; char[n] becomes S<n>."""
    import numpy as np

    fields: list[tuple[str, object]] = []
    for field in event.fields:
        scalar, _, rest = field.type.partition("[")
        count = int(rest[:-1]) if rest else 0
        if scalar == "char":
            fields.append((field.name, f"S{count}"))
        elif count:
            fields.append((field.name, (_NUMPY[scalar], (count,))))
        else:
            fields.append((field.name, _NUMPY[scalar]))
    dtype = np.dtype(fields)
    assert dtype.itemsize == event.size
    return dtype
