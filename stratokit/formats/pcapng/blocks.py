"""pcapng blocks that are few: sections, interfaces, processes, names, statistics. Packets go in bulk (fill).

python-pcapng frames them. Where its option tables are incomplete or take types it cannot write, ours stand
here. Format: draft-ietf-opsawg-pcapng; process blocks: Darwin's, as libpcap and Wireshark 4.6 read them.
"""

from __future__ import annotations

import ipaddress
import json
import struct
from typing import TYPE_CHECKING, Any, ClassVar

from pcapng import blocks, structs

from stratokit.formats.output import tool_version

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from stratokit.formats.frames import Interface

SECTION, INTERFACE, OBSOLETE_PACKET, SIMPLE_PACKET, NAMES, STATISTICS, ENHANCED_PACKET = (
    0x0A0D0D0A,
    1,
    2,
    3,
    4,
    5,
    6,
)
JOURNAL = 9  # an entry of the systemd journal
SECRETS = 10
TLS_KEY_LOG = 0x544C534B  # type of secrets: "TLSK"
KEY_LOG = "keylog"  # metadata of a capture: the text of a key log
CUSTOM = (0xBAD, 0x40000BAD)  # of a private enterprise; the second shall not be copied to files that differ
SCAP_BLOCKS = range(0x201, 0x223)  # sysdig: machine, processes, files, events
PROCESS = 0x80000001
# The type of the section header is the same in both byte orders.
SECTION_MAGIC = b"\x0a\x0d\x0d\x0a"

OPT_END, OPT_COMMENT = 0, 1
EPB_FLAGS, EPB_DROPCOUNT, EPB_PID_TID, EPB_PROCESS = 2, 4, 8, 0x8001
FLAG_IN, FLAG_OUT, FLAG_SEGMENTED = 1, 2, 1 << 11
IF_NAME, IF_DESCRIPTION, IF_IPV4, IF_IPV6, IF_MAC = 2, 3, 4, 5, 6
IF_TSRESOL, IF_FCSLEN, IF_TSOFFSET = 9, 13, 14

# The largest snap length that libpcap takes for Ethernet; a packet above its interface's would stop it.
SNAPLEN = 262144
NANOSECONDS = b"\x09"  # if_tsresol: 10^-9

Option = structs.Option


class InterfaceBlock(blocks.InterfaceDescription):  # type: ignore[misc]
    """Interface description whose resolution and IPv6 addresses can be written."""

    __slots__ = ()
    schema: ClassVar = [
        *blocks.InterfaceDescription.schema[:3],
        (
            "options",
            structs.OptionsField(
                [
                    Option(2, "if_name", "string"),
                    Option(3, "if_description", "string"),
                    Option(4, "if_IPv4addr", "bytes", multiple=True),
                    Option(5, "if_IPv6addr", "bytes", multiple=True),
                    Option(6, "if_MACaddr", "bytes"),
                    Option(9, "if_tsresol", "bytes"),
                    Option(12, "if_os", "string"),
                ]
            ),
            None,
        ),
    ]


class ProcessBlock(blocks.SectionMemberBlock):  # type: ignore[misc]
    """Process information (Darwin): pid, name. Packets name it by its position among them in the file."""

    magic_number = PROCESS
    __slots__ = ()
    schema: ClassVar = [
        ("pid", structs.IntField(32, False), 0),
        ("options", structs.OptionsField([Option(2, "name", "string")]), None),
    ]


def section(metadata: Mapping[str, str]) -> blocks.SectionHeader:
    """The section header, little-endian as all that follows, with what `metadata` says of the host."""
    try:
        host = json.loads(metadata.get("host", "{}"))
    except json.JSONDecodeError:
        host = {"hostname": metadata["host"]}
    host = host if isinstance(host, dict) else {"hostname": str(host)}
    system = ", ".join(str(host[key]) for key in ("os", "kernel") if host.get(key))
    options: dict[str, Any] = {"shb_userappl": f"stratokit {metadata.get('version') or tool_version()}"}
    if host.get("machine"):
        options["shb_hardware"] = str(host["machine"])
    if system:
        options["shb_os"] = system
    if host.get("hostname"):
        options["opt_comment"] = f"host={host['hostname']}"
    return blocks.SectionHeader(endianness="<", options=options)


def interface_block(header: Any, interface: Interface, link_type: int) -> Any:
    """An interface of the section `header`: times in nanoseconds, one snap length for all."""
    options: dict[str, Any] = {}
    if interface.name:
        options["if_name"] = interface.name
    if interface.description:
        options["if_description"] = interface.description
    networks = [address for text in interface.addresses if (address := _network(text))]
    for version, name in ((4, "if_IPv4addr"), (6, "if_IPv6addr")):
        values = [_address_option(network) for network in networks if network.version == version]
        if values:
            options[name] = values
    mac = interface.mac.replace(":", "")
    if len(mac) == 12:
        options["if_MACaddr"] = bytes.fromhex(mac)
    options["if_tsresol"] = NANOSECONDS
    return header.new_member(InterfaceBlock, link_type=link_type, snaplen=SNAPLEN, options=options)


def _network(text: str) -> ipaddress.IPv4Interface | ipaddress.IPv6Interface | None:
    try:
        return ipaddress.ip_interface(text.partition("%")[0])
    except ValueError:
        return None


def _address_option(network: ipaddress.IPv4Interface | ipaddress.IPv6Interface) -> bytes:
    """if_IPv4addr: address 4, mask 4; if_IPv6addr: address 16, prefix length 1."""
    if network.version == 4:
        return network.ip.packed + network.netmask.packed
    return network.ip.packed + bytes([network.network.prefixlen])


def process_block(header: Any, pid: int, name: str) -> Any:
    """A process that the packets after it may refer to."""
    return header.new_member(ProcessBlock, pid=pid, options={"name": name} if name else {})


# A block of names stays well below the largest that readers take.
NAMES_PER_BLOCK = 1000


def secrets_body(key_log: bytes) -> bytes:
    """A secrets block with a key log of TLS, without type and lengths.

    Source: draft-ietf-opsawg-pcapng section 4.7.
    """
    return struct.pack("<II", TLS_KEY_LOG, len(key_log)) + key_log + bytes(-len(key_log) % 4)


def name_blocks(header: Any, names: Mapping[str, Sequence[str]]) -> list[blocks.NameResolution]:
    """Names of addresses, as many blocks as it takes."""
    records = []
    for text, known in names.items():
        try:
            version = ipaddress.ip_address(text).version
        except ValueError:
            continue
        clean = [name.replace("\0", "") for name in known if name]
        if clean:
            records.append({"type": 1 if version == 4 else 2, "address": text, "names": clean})
    return [
        header.new_member(blocks.NameResolution, records=records[i : i + NAMES_PER_BLOCK])
        for i in range(0, len(records), NAMES_PER_BLOCK)
    ]


def statistics_block(
    header: Any, interface_id: int, span_ns: tuple[int, int], delivered: int, losses: Mapping[str, int]
) -> blocks.InterfaceStatistics:
    """Totals of an interface at the end of the file; `losses` are packets lost, by counter."""
    first, last = span_ns
    dropped = sum(losses.values())
    options: dict[str, Any] = {
        "isb_starttime": _high_first(first),
        "isb_endtime": _high_first(last),
        "isb_ifrecv": delivered + dropped,
        "isb_osdrop": dropped,
        "isb_usrdeliv": delivered,
    }
    if dropped:
        options["opt_comment"] = " ".join(f"{name}={amount}" for name, amount in losses.items())
    return header.new_member(
        blocks.InterfaceStatistics,
        interface_id=interface_id,
        timestamp_high=last >> 32,
        timestamp_low=last & 0xFFFFFFFF,
        options=options,
    )


def _high_first(time: int) -> int:
    """A time as a u64 whose little-endian bytes are its high word, then its low word, as blocks have it."""
    return (time & 0xFFFFFFFF) << 32 | time >> 32
