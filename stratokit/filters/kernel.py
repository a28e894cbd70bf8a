"""Filter tree -> C for the kernel programs: what of a filter can be decided where an event happens.

The result is a bound: whatever matches the filter passes it, and what passes is looked at again when
converting. Parts that the kernel cannot know let everything pass, a negation of them too. `exact` says that
nothing else passes.

A filter on conversations (HTTP, DNS, ...) keeps them whole, because decoders need all packets: then only what
holds for every packet of a conversation may be tested, ports and addresses in either direction, and whether
it carries HTTP or DNS by its first bytes.
"""

from __future__ import annotations

import dataclasses
import errno
import ipaddress
import struct
from collections.abc import Callable, Iterable, Mapping

from stratokit.filters import literals, tree

ALWAYS, NEVER = "", "0"
_EVERY = frozenset(("!=", "==="))
_C_OPERATORS = {"==": "==", "===": "==", "!=": "!=", "!==": "!=", "<": "<", "<=": "<=", ">": ">", ">=": ">="}
_FLAGS = {"fin": 1, "syn": 2, "reset": 4, "push": 8, "ack": 16, "urg": 32, "ece": 64, "cwr": 128, "ae": 256}
_PROTOCOLS = {"tcp": 6, "udp": 17, "icmp": 1, "icmpv6": 58, "sctp": 132}
_HTTP = ("http", "http2", "grpc", "websocket", "http_bodies")
_DNS = ("dns", "mdns", "llmnr")
_TRUTH = {"true": 1, "1": 1, "yes": 1, "false": 0, "0": 0, "no": 0}
COMM_BYTES = 16


@dataclasses.dataclass(frozen=True, slots=True)
class Bound:
    """C that is true for everything that may match: ALWAYS where nothing is known."""

    test: str = ALWAYS
    exact: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class _Field:
    """A field as the programs have it: C of its values, and of its being there.

    `one` makes C of a comparison of one value with a written one. `same` is true where every packet of a
    conversation has the same values; `either` are values that hold for the conversation where this field is
    of one direction.
    """

    values: tuple[str, ...]
    present: str
    one: Callable[[str, str, tree.Literal | tree.Field], str | None]
    same: bool = False
    either: tuple[str, ...] = ()


def _text_of(node: tree.Literal | tree.Field) -> str:
    return node.string if isinstance(node, tree.Literal) else node.name


def _number(value: str, operator: str, written: tree.Literal | tree.Field) -> str | None:
    number = literals.integer(_text_of(written))
    if number is None or not -(2**63) <= number < 2**63:
        return None
    return f"(s64){value} {_C_OPERATORS[operator]} {number}LL" if operator in _C_OPERATORS else None


def _duration(value: str, operator: str, written: tree.Literal | tree.Field) -> str | None:
    text = _text_of(written)
    ns = literals.duration_ns(text)
    ns = literals.decimal_scaled(text, literals.NS_PER_UNIT["s"]) if ns is None else ns
    if ns is None or not 0 <= ns < 2**63 or operator not in _C_OPERATORS:
        return None
    return f"{value} {_C_OPERATORS[operator]} {ns}ULL"


def _truth(value: str, operator: str, written: tree.Literal | tree.Field) -> str | None:
    truth = _TRUTH.get(_text_of(written).lower())
    if truth is None or operator not in ("==", "===", "!=", "!=="):
        return None
    return f"!!({value}) {_C_OPERATORS[operator]} {truth}"


def _address(value: str, operator: str, written: tree.Literal | tree.Field) -> str | None:
    """`value` names four words in network order; IPv4 is in the last one."""
    text = _text_of(written)
    net = literals.network(text) or literals.address(text)
    if net is None or operator not in ("==", "===", "!=", "!=="):
        return None
    net = ipaddress.ip_network(net)
    mask, address = net.netmask.packed.rjust(16, b"\0"), net.network_address.packed.rjust(16, b"\0")
    words = range(3, 4) if net.version == 4 else range(4)
    tests = []
    for i in words:
        (bits,), (wanted,) = (struct.unpack_from("<I", packed, 4 * i) for packed in (mask, address))
        if bits:
            tests.append(f"({value}[{i}] & {bits:#x}) == {wanted:#x}")
    same = " && ".join(tests) or "1"
    return f"({same})" if _C_OPERATORS[operator] == "==" else f"!({same})"


def _direction(value: str, operator: str, written: tree.Literal | tree.Field) -> str | None:
    number = {"in": 1, "out": 2}.get(_text_of(written))
    if number is None or operator not in ("==", "===", "!=", "!=="):
        return None
    return f"{value} {_C_OPERATORS[operator]} {number}"


def _name(value: str, operator: str, written: tree.Literal | tree.Field) -> str | None:
    packed = _text_of(written).encode()
    if operator not in ("==", "===", "!=", "!==") or len(packed) >= COMM_BYTES:
        return None
    low, high = struct.unpack("<QQ", packed.ljust(COMM_BYTES, b"\0"))
    same = f"({value}[0] == {low:#x}ULL && {value}[1] == {high:#x}ULL)"
    return same if _C_OPERATORS[operator] == "==" else f"!{same}"


def _error(value: str, operator: str, written: tree.Literal | tree.Field) -> str | None:
    number = getattr(errno, _text_of(written), None)
    if not isinstance(number, int) or operator not in ("==", "===", "!=", "!=="):
        return None
    return f"{value} {_C_OPERATORS[operator]} -{number}"


def _ports(protocol: str) -> dict[str, _Field]:
    present = f"p->proto == {_PROTOCOLS[protocol]}"
    both = ("p->sport", "p->dport")
    return {
        f"{protocol}.port": _Field(both, present, _number, same=True),
        f"{protocol}.srcport": _Field(both[:1], present, _number, either=both),
        f"{protocol}.dstport": _Field(both[1:], present, _number, either=both),
    }


def _addresses(name: str, version: int) -> dict[str, _Field]:
    present = f"p->version == {version}"
    both = ("p->src", "p->dst")
    return {
        f"{name}.addr": _Field(both, present, _address, same=True),
        f"{name}.src": _Field(both[:1], present, _address, either=both),
        f"{name}.dst": _Field(both[1:], present, _address, either=both),
    }


_IS_TCP = "p->proto == 6"
PACKET_FIELDS: Mapping[str, _Field] = {
    **_ports("tcp"),
    **_ports("udp"),
    **_addresses("ip", 4),
    **_addresses("ipv6", 6),
    "ip.proto": _Field(("p->proto",), "p->version == 4", _number, same=True),
    "tcp.flags": _Field(("p->flags",), _IS_TCP, _number),
    **{f"tcp.flags.{n}": _Field((f"p->flags & {bit}",), _IS_TCP, _truth) for n, bit in _FLAGS.items()},
    "tcp.len": _Field(("p->payload_bytes",), _IS_TCP, _number),
    "frame.len": _Field(("p->bytes",), "1", _number),
    "packet.direction": _Field(("p->direction",), "1", _direction),
}
CALL_FIELDS: Mapping[str, _Field] = {
    "evt.rawres": _Field(("c->ret",), "c->returned", _number),
    "evt.failed": _Field(("c->ret < 0",), "c->returned", _truth),
    "evt.res": _Field(("c->ret",), "c->returned && c->ret < 0 && c->ret >= -4095", _error),
    "evt.latency": _Field(("c->duration_ns",), "c->timed", _duration),
    "proc.pid": _Field(("c->pid",), "1", _number),
    "thread.tid": _Field(("c->tid",), "1", _number),
    "proc.name": _Field(("c->comm",), "1", _name),
}


# From 1 on, as in include/net/tcp_states.h.
_STATES = (
    *("ESTABLISHED", "SYN_SENT", "SYN_RECV", "FIN_WAIT1", "FIN_WAIT2", "TIME_WAIT", "CLOSE", "CLOSE_WAIT"),
    *("LAST_ACK", "LISTEN", "CLOSING", "NEW_SYN_RECV"),
)


def _one_of(*names: str) -> Callable[[str, str, tree.Literal | tree.Field], str | None]:
    """A comparison with names that stand for numbers from 1 on."""

    def one(value: str, operator: str, written: tree.Literal | tree.Field) -> str | None:
        text = _text_of(written)
        if text not in names or operator not in ("==", "===", "!=", "!=="):
            return None
        return f"{value} {_C_OPERATORS[operator]} {names.index(text) + 1}"

    return one


_LOCAL, _REMOTE = "((u32 *)e->local_ip)", "((u32 *)e->remote_ip)"
_MAPPED = f"{_LOCAL}[2] == 0xffff0000"  # ::ffff:0:0/96
SOCKET_FIELDS: Mapping[str, _Field] = {
    "evt.type": _Field(("e->what",), "1", _one_of("state", "rtt", "retransmit")),
    "tcp.analysis.retransmission": _Field(("1",), "e->what == 3", _truth),
    "socket.old_state": _Field(("e->old_state",), "1", _one_of(*_STATES)),
    "socket.new_state": _Field(("e->new_state",), "1", _one_of(*_STATES)),
    "socket.retransmits": _Field(("e->total_retransmits",), "1", _number),
    "socket.rtt": _Field(("(e->srtt_us * 1000ULL)",), "e->srtt_us", _duration),
    "tcp.port": _Field(("e->local_port", "e->remote_port"), "1", _number),
    "tcp.srcport": _Field(("e->local_port",), "1", _number),
    "tcp.dstport": _Field(("e->remote_port",), "1", _number),
    **{
        f"{name}.{which}": _Field(values, present, _address)
        for name, present in (("ip", _MAPPED), ("ipv6", f"!({_MAPPED})"))
        for which, values in (("addr", (_LOCAL, _REMOTE)), ("src", (_LOCAL,)), ("dst", (_REMOTE,)))
    },
}
EXIT_FIELDS: Mapping[str, _Field] = {
    "proc.exit_code": _Field(("x->code",), "1", _number),
    "proc.pid": _Field(("x->pid",), "1", _number),
    "proc.ppid": _Field(("x->parent_pid",), "1", _number),
    "proc.name": _Field(("x->comm",), "1", _name),
}


@dataclasses.dataclass(frozen=True, slots=True)
class _Compiler:
    fields: Mapping[str, _Field]
    conversations: bool = False  # whole ones are kept
    call: str | None = None  # name of the system call that is asked about
    packets: bool = False

    def test(self, node: tree.Test) -> Bound:
        match node:
            case tree.Not(test=inner):
                return self.opposite(self.test(inner))
            case tree.Logic(operator=operator, tests=tests):
                return _logic(operator, [self.test(test) for test in tests])
            case tree.Present(entity=tree.Field(name=name)):
                return self.presence(name)
            case tree.Compare(left=tree.Field() as left, right=tree.Literal() | tree.Field() as right):
                return self.compare(left, node.operator, node.quantifier, [right])
            case tree.Member(left=tree.Field() as left):
                return self.compare(left, "==", node.quantifier, node.choices)
        return self.needed(tree.fields(node))

    @staticmethod
    def opposite(bound: Bound) -> Bound:
        if not bound.exact:
            return Bound()
        return Bound(_not(bound.test), exact=True)

    def presence(self, name: str) -> Bound:
        if self.packets and name in _PROTOCOLS:
            return Bound(f"p->proto == {_PROTOCOLS[name]}", exact=True)
        if self.packets and name in ("ip", "ipv6"):
            return Bound(f"p->version == {4 if name == 'ip' else 6}", exact=True)
        if name in self.fields and (self.fields[name].same or not self.conversations):
            return Bound(f"({self.fields[name].present})", exact=True)
        return self.needed([name])

    def needed(self, names: Iterable[str]) -> Bound:
        """A test that the kernel cannot make still needs the protocol that its fields belong to."""
        protocols = {name.partition(".")[0] for name in names}
        tests = []
        if self.packets and self.conversations and protocols & {*_HTTP}:
            tests.append("p->http")
        if self.packets and self.conversations and protocols & {*_DNS}:
            tests.append("p->dns")
        return Bound(" && ".join(tests))

    def compare(
        self,
        left: tree.Field,
        operator: str,
        quantifier: str,
        written: Iterable[tree.Literal | tree.Field | tree.Range],
    ) -> Bound:
        if left.name == "evt.type" and self.call is not None:
            return self.of_call(operator, list(written))
        field = self.fields.get(left.name)
        if field is None:
            return self.needed([left.name])
        every = quantifier == "all" if quantifier else operator in _EVERY
        values, exact = field.values, True
        if self.conversations and not field.same:
            if not field.either or every:
                return self.needed([left.name])
            values, exact = field.either, False
        tests = [_written(field, value, operator, list(written)) for value in values]
        if None in tests:
            return self.needed([left.name])
        joined = (" && " if every else " || ").join(f"({test})" for test in tests)
        return Bound(f"({field.present}) && ({joined})", exact)

    def of_call(self, operator: str, written: list[tree.Literal | tree.Field | tree.Range]) -> Bound:
        texts = [_text_of(node) for node in written if not isinstance(node, tree.Range)]
        if len(texts) < len(written):
            return Bound()
        found = {
            "==": self.call in texts,
            "===": self.call in texts,
            "!=": self.call not in texts,
            "!==": self.call not in texts,
            "contains": any(text in (self.call or "") for text in texts),
        }.get(operator)
        return Bound() if found is None else Bound("1" if found else NEVER, exact=True)


def _written(
    field: _Field, value: str, operator: str, written: list[tree.Literal | tree.Field | tree.Range]
) -> str | None:
    """C of one value against each of what is written; None where it cannot be told."""
    tests = []
    for node in written:
        if isinstance(node, tree.Range):
            low, high = field.one(value, ">=", node.low), field.one(value, "<=", node.high)
            found = f"{low} && {high}" if low and high else None
        else:
            found = field.one(value, operator, node)
        if found is None:
            return None
        tests.append(f"({found})")
    return " || ".join(tests)


def _not(test: str) -> str:
    return {ALWAYS: NEVER, "1": NEVER, NEVER: "1"}.get(test, f"!({test})")


def _logic(operator: str, bounds: list[Bound]) -> Bound:
    exact = all(bound.exact for bound in bounds)
    if operator == "xor":
        if not exact:
            return Bound()
        return Bound(" != ".join(f"!!({bound.test or 1})" for bound in bounds), exact=True)
    tests = [bound.test for bound in bounds]
    if operator == "and":
        if NEVER in tests:
            return Bound(NEVER, exact=True)
        tests = [test for test in tests if test not in (ALWAYS, "1")]
        return Bound(" && ".join(f"({test})" for test in tests), exact)
    if ALWAYS in tests:
        return Bound()
    if "1" in tests:
        return Bound("1", exact)
    tests = [test for test in tests if test != NEVER]
    return Bound(" || ".join(f"({test})" for test in tests) or NEVER, exact)


def packets(node: tree.Test, conversations: bool) -> Bound:
    """C over `struct packet_facts *p` (bpf/filter.c)."""
    return _Compiler(PACKET_FIELDS, conversations, packets=True).test(node)


def calls(node: tree.Test, names: Iterable[str]) -> tuple[dict[str, Bound], Bound]:
    """C over `struct call_facts *c` for each system call that may match, and for any of them."""
    found = {}
    for name in names:
        bound = _Compiler(CALL_FIELDS, call=name).test(node)
        if bound.test != NEVER:
            found[name] = bound
    return found, _Compiler(CALL_FIELDS).test(node)


def sockets(node: tree.Test) -> Bound:
    """C over `struct socket_event *e` (bpf/sockets.c)."""
    return _Compiler(SOCKET_FIELDS).test(node)


def exits(node: tree.Test) -> Bound:
    """C over `struct exit_facts *x` (bpf/triggers.c)."""
    return _Compiler(EXIT_FIELDS).test(node)
