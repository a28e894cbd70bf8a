"""A followed TCP conversation as text, in the form that `tshark -z follow,tcp,...` prints."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stratokit.streams.follow import Chunk, Stream

FORMS = ("raw", "hex", "text")
_NAMES = {"raw": "raw", "hex": "hex", "text": "ascii"}
_RULE = "=" * 67
_WIDTH = 16


def lines(stream: Stream, form: str) -> Iterator[str]:
    """Lines without their ends. What the side sent that did not speak first is indented by a tab."""
    ends = [stream.client, stream.server] if stream.first_from_client else [stream.server, stream.client]
    yield ""
    yield _RULE
    yield f"Follow: tcp,{_NAMES[form]}"
    yield f"Filter: tcp.stream eq {stream.number}"
    for node, (ip, port) in enumerate(ends):
        yield f"Node {node}: {f'[{ip}]' if ':' in ip else ip}:{port}"
    offsets = [0, 0]
    for chunk in stream:
        node = int(chunk.from_client != stream.first_from_client)
        data = _bytes(chunk)
        indent = "\t" * node
        if form == "raw":
            yield indent + data.hex()
        elif form == "hex":
            for at in range(0, len(data), _WIDTH):
                yield indent + _dump(data[at : at + _WIDTH], offsets[node] + at)
            offsets[node] += len(data)
        else:
            yield f"{indent}{len(data)}"
            yield _printable(data, keep_lines=True)
    yield _RULE


def _bytes(chunk: Chunk) -> bytes:
    """Its data; of missing bytes Wireshark's note, which ends with a zero."""
    if chunk.missing_bytes:
        return f"[{chunk.missing_bytes} bytes missing in capture file]".encode() + b"\0"
    return chunk.data


def _printable(data: bytes, *, keep_lines: bool = False) -> str:
    kept = b"\r\n" if keep_lines else b""
    return "".join(chr(b) if 32 <= b < 127 or b in kept else "." for b in data)


def _dump(data: bytes, offset: int) -> str:
    """Offset, 16 bytes as numbers in two groups, the same as characters."""
    numbers = [f"{b:02x}" for b in data]
    left, right = " ".join(numbers[:8]), " ".join(numbers[8:])
    text = _printable(data)
    shown = f"{text[:8]} {text[8:]}" if len(text) > 8 else text
    return f"{offset:08X}  {left:<23}  {right:<23}  {shown}"
