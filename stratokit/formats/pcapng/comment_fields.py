"""What comments of packets say about the process, container and pod they belong to.

Two forms are known: one compact line, which our own writer adds, and the comments of ptcpdump, several a
packet and each of several lines:

    PID: 501 | Cmd: /usr/bin/curl | Args: curl example.org      ContainerName: app | ContainerId: 3f... | ...
    ThreadId: 502 | ThreadName: curl                            PodName: web-1 | PodNamespace: shop | ...
"""

from __future__ import annotations

import re

# What writer.compact_comment writes. Values may hold spaces, but none holds a further key.
COMPACT = re.compile(
    r"(?:pid=(?P<pid>\d+))(?: tid=(?P<tid>\d+))?(?: comm=(?P<comm>.*?))?(?: ctr=(?P<ctr>\S+))?"
    r"(?: pod=(?:(?P<namespace>[^/ ]+)/)?(?P<pod>\S+))?(?: dir=(?:in|out))?"
)
# Only texts in which this is found (with Arrow's RE2) are looked at one by one.
ANY = r"(?m)^(pid=\d|PID: \d|ThreadId: \d|ContainerName: |PodName: )"
# ptcpdump's keys by ours; only the first line of a comment is not behind a tab.
PTCPDUMP = {
    "PID": "pid",
    "ThreadId": "tid",
    "ThreadName": "comm",
    "ContainerId": "ctr",
    "PodName": "pod",
    "PodNamespace": "namespace",
}
PTCPDUMP_BEGINS = ("PID: ", "ThreadId: ", "ContainerName: ", "PodName: ")
COMM_MAX = 15

Fields = dict[str, str | None]


def split_comment(comment: str) -> tuple[Fields, str | None]:
    """The fields that `comment` states, and what else stands there; ptcpdump's comments stay in full."""
    lines = comment.split("\n")
    for number, line in enumerate(lines):
        match = COMPACT.fullmatch(line)
        if match:
            del lines[number]
            return match.groupdict(), "\n".join(lines) or None
    return _ptcpdump(lines), comment


def _ptcpdump(lines: list[str]) -> Fields:
    fields: Fields = {}
    inside = False
    for line in lines:
        inside = line.startswith(PTCPDUMP_BEGINS) if not line.startswith("\t") else inside
        key, _, value = line.lstrip("\t").partition(": ")
        if not inside or not value:
            continue
        if key in PTCPDUMP:
            fields.setdefault(PTCPDUMP[key], value)
        elif key == "Cmd":  # a path, unless the thread has a name of its own
            fields.setdefault("program", value.rpartition("/")[2][:COMM_MAX])
    if "program" in fields:
        fields.setdefault("comm", fields.pop("program"))
    return fields
