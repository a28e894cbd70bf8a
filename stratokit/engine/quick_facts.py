"""Facts of plain pcap files at once: what `stratokit info` shows, without loading what decodes packets.

`Capture.info` says the same of any file. It needs polars, pyarrow and numba, which take longer to load than a
walk over a gigabyte.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from stratokit.engine.facts import FileFacts
from stratokit.errors import FormatError
from stratokit.formats import pcap_header


def quick_facts(paths: Iterable[Path]) -> list[FileFacts] | None:
    """Facts of each file, or None when one of them is not a plain pcap file.

    Raises:
        FormatError: nothing can be read of a file.
    """
    found = []
    for path in paths:
        header = _header(path)
        if header is None:
            return None
        found.append(_facts(path, header))
    return found


def _header(path: Path) -> pcap_header.Header | None:
    if not path.is_file():
        return None
    try:
        with path.open("rb") as file:
            header = pcap_header.parse(file.read(pcap_header.HEADER))
    except OSError:
        return None  # which the long way explains
    return header if header is not None and header.swapped == pcap_header.NOT_SWAPPED else None


def _facts(path: Path, header: pcap_header.Header) -> FileFacts:
    from stratokit.formats import pcap_count

    counted = pcap_count.count(path, header)
    damage = None
    if counted.state != pcap_count.WHOLE:
        cut = counted.state == pcap_count.MORE
        damage = {
            "counter": "file_cut" if cut else "file_damaged",
            "offset": counted.end,
            "reason": pcap_header.CUT if cut else pcap_header.IMPOSSIBLE,
        }
        if not counted.packets:
            raise FormatError(f"{path}: nothing could be read: {damage['reason']} (byte {damage['offset']})")
    rows = {"packet": counted.packets} if counted.packets else {}
    return FileFacts(
        path=path,
        format="pcap",
        size_bytes=path.stat().st_size,
        rows=rows | {"interface": 1} | ({"loss": 1} if damage else {}),
        first_ns=counted.first_ns if counted.packets else None,
        last_ns=counted.last_ns if counted.packets else None,
        losses={str(damage["counter"]): 1} if damage else {},
        extra={"damage": damage} if damage else {},
    )
