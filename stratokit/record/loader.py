"""Compiles and attaches the programs of bpf/. The only module that imports bcc.

bcc comes from the distribution: the project `bcc` of the package index is another one. In a virtual
environment it is loaded from the system's dist-packages without opening the rest of that folder.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import os
import pathlib
import platform
import struct
import subprocess
import sys
import tempfile
from typing import TYPE_CHECKING, Any

from stratokit.errors import RecordError, UsageError
from stratokit.record import attach, btf, cgroups, pidns, specs
from stratokit.record.devices import Devices
from stratokit.record.programs import (
    CGROUP_PROGRAMS,
    DEVICE_PROGRAM,
    EXTRA_TRACEPOINT_PROGRAMS,
    TRACEPOINT_PROGRAMS,
    Program,
    filter_settings,
    program_text,
    scope_settings,
    trigger_settings,
)
from stratokit.record.ring import Ring
from stratokit.schema import load

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from stratokit.record.options import RecordOptions, Trigger

BCC_FOLDERS = ("/usr/lib/python3/dist-packages", "/usr/lib/python3/site-packages")
_BPF_LINK_CREATE = 28
_SCOPE_TREE, _SCOPE_NAMED = 1, 2  # as in bpf/scope.c
_SHED_CALL = 2  # as in bpf/limits.c
_ARMED = 0xFFFFFFFF  # as in bpf/common.h
_libc = ctypes.CDLL(None, use_errno=True)


def import_bcc() -> Any:
    """The module bcc.

    Raises:
        RecordError: it is not installed, or its library cannot be loaded.
    """
    if "bcc" in sys.modules:
        return sys.modules["bcc"]
    candidates = [pathlib.Path(folder, "bcc", "__init__.py") for folder in BCC_FOLDERS]
    place = next((path for path in candidates if path.is_file()), None)
    if place is None:
        raise RecordError("bcc is not installed; on Debian and Ubuntu: apt-get install python3-bpfcc")
    spec = importlib.util.spec_from_file_location(
        "bcc", place, submodule_search_locations=[str(place.parent)]
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["bcc"] = module
    try:
        spec.loader.exec_module(module)
    except (ImportError, OSError, AttributeError) as error:
        del sys.modules["bcc"]
        raise RecordError(f"bcc does not load ({error}); install the package python3-bpfcc again") from error
    return module


# LLVM ends the whole process where it gives up, without a word to Python. This shell hears that its stdin is
# closed, and says so instead.
_LAST_WORDS = r"""read -r done && exit
why='the compiler of the kernel programs ended the recorder, most often for want of memory'
printf 'stratokit: %s: %s\n' "$why" "$(tail -n 1 "/proc/self/fd/$1")" >&2
"""


@contextlib.contextmanager
def last_words(said: int) -> Iterator[None]:
    """Should this process end within the block, the user is told, with the last line of the file `said`."""
    command = ["/bin/sh", "-c", _LAST_WORDS, "sh", str(said)]
    try:
        shell = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, pass_fds=[said], start_new_session=True
        )
    except OSError:  # a container without a shell
        yield
        return
    try:
        yield
    finally:
        shell.communicate(b"done\n")


@contextlib.contextmanager
def compiler_output(*, compiles: bool = False) -> Iterator[list[str]]:
    """Catch what clang and the verifier write to stderr; the list is filled when the block ends."""
    lines: list[str] = []
    sys.stderr.flush()
    saved = os.dup(2)
    with (
        tempfile.TemporaryFile() as file,
        last_words(file.fileno()) if compiles else contextlib.nullcontext(),
    ):
        os.dup2(file.fileno(), 2)
        try:
            yield lines
        finally:
            os.dup2(saved, 2)
            os.close(saved)
            file.seek(0)
            lines += file.read().decode(errors="replace").splitlines()


def ring_bytes(wanted: int) -> int:
    """Size of the ring buffer for `--buffer`: the next power of two, at least 64 KiB."""
    return max(1 << 16, 1 << (wanted - 1).bit_length())


def _thread_ids() -> int:
    return min(int(pathlib.Path("/proc/sys/kernel/pid_max").read_text()), 1 << 22)


class Kernel:
    """Loaded and attached programs. Everything is held by descriptors, so a killed recorder leaves nothing
    behind.
    """

    def __init__(self, options: RecordOptions, groups: dict[int, str] | None = None) -> None:
        """`groups`: the cgroups that are chosen at the start, paths by id."""
        self._links: dict[int, list[int]] = {}
        self._held: list[int] = []  # descriptors of what is attached beside cgroups
        self._functions: dict[str, int] = {}  # programs for functions of files, by name
        self._taken: set[tuple[int, int]] = set()
        self._scope = options.scope
        self._groups = dict(groups or {})
        self.offsets = btf.kernel_offsets()
        self.devices = Devices(options.interfaces, options.netns)
        self.syscalls = specs.select(options.syscalls)
        if options.filter.text:
            self.syscalls &= specs.select(",".join(options.filter.calls) or "none")
        self._names_files = options.filter.names_files
        self.names = self._wanted(options)
        # Without system calls the tracepoints that every call of the host would pass are left alone.
        self.learns_users = learns = "owners" in self.names and "syscalls" not in self.names
        alone = learns and not {"packets", "endpoints"} & set(self.names)
        size = ring_bytes(options.buffer_bytes)
        var_mask = (1 << (4096 + options.io_bytes).bit_length()) - 1
        self.pid = pidns.kernel_pid()
        settings: dict[str, int | str] = {
            "SNAPLEN": options.snaplen,
            "TLS_BYTES": options.tls_bytes,
            "IO_BYTES": options.io_bytes,
            "VAR_MASK": var_mask,
            "VAR_TAIL": max(1024, options.io_bytes) + 128,
            "RING_PAGES": size // 4096,
            "PROCESSORS": os.sysconf("SC_NPROCESSORS_CONF"),
            "SELF_PID": self.pid,
            "THREAD_IDS": _thread_ids(),
            **self.offsets,
            **({"WITH_SYSCALLS": 1} if "syscalls" in self.names else {}),
            **({} if self.syscalls else {"ONLY_EXITS": 1}),
            **({"LEARN_USERS": 1} if learns else {}),
            **({"LEARN_USERS_ALONE": 1} if alone else {}),
            **({"OWN_CHILD": 1} if options.rolling else {}),
            **({"WITH_DEVICES": 1} if "devices" in self.names else {}),
            **({"WITH_DROPS": 1} if "drops" in self.names else {}),
            **scope_settings(options.scope),
            **filter_settings(options.filter),
            **trigger_settings(options.keep.triggers),
            **({"LIMITED": 1} if options.limits.shed else {}),
        }
        self._settings = settings
        self._check_triggers(options.keep.triggers)
        first = ["limits", *(["scope"] if options.scope else [])]
        first += ["filter"] if options.filter.text else []
        first += ["files"] if "syscalls" in self.names else []
        first += ["triggers"] if "TRIGGERS" in settings else []
        self._bpf = self._compile(program_text(first + self.names, settings))
        self.ring = Ring(self._bpf[b"events"].map_fd, size)
        self._shed_calls: frozenset[int] = frozenset()
        self._endpoint_epoch = 0
        if "syscalls" in self.names:
            self._fill_specs()

    def _check_triggers(self, triggers: Iterable[Trigger]) -> None:
        """Refuse one that can never come true."""
        calls = load.syscalls()
        recorded = {calls[number].name for number in self.syscalls}
        programs = {"call": "syscalls", "socket": "sockets", "process": "processes"}
        for trigger in triggers:
            missing = programs.get(trigger.kind, "processes") not in self.names
            if missing or (trigger.kind == "call" and not recorded & set(trigger.calls)):
                what = "--syscalls, --no-sockets or --filter leave out"
                raise UsageError(f"--trigger {trigger.text!r} asks for events that {what}")

    def _wanted(self, options: RecordOptions) -> list[str]:
        """Files of bpf/, each behind those that it uses."""
        names = []
        if options.packets and options.interfaces:
            if DEVICE_PROGRAM.needs not in self.offsets:
                raise RecordError(
                    "frames of devices need a kernel built with CONFIG_DEBUG_INFO_BTF; "
                    "without --interface packets are recorded at the sockets"
                )
            # Without cgroups frames have no process.
            names += ["devices", "endpoints"] if cgroups.cgroup2_root() else ["devices"]
        elif options.packets:
            names.append("packets")
        if options.sockets:
            names.append("sockets")
        if "packets" in names or "endpoints" in names or options.sockets:
            names.insert(0, "owners")
        known = platform.machine() == "x86_64"
        if not known and options.syscalls != "none":
            raise RecordError(
                f"system calls are not known for {platform.machine()} yet; record with --syscalls none"
            )
        asked = bool(self.syscalls) or self._names_files
        accepts = "owners" in names and "HAVE_USER_BTF" not in self.offsets and known
        if asked or accepts or options.tls:
            names.append("syscalls")
        if options.drops and "HAVE_DROP_BTF" in self.offsets:
            names.append("drops")
        names.append("processes")
        if options.tls:
            if not known:
                raise RecordError(f"--tls is not known for {platform.machine()} yet; record without it")
            names.append("tls")
        return names

    def _compile(self, text: str) -> Any:
        bcc = import_bcc()
        os.environ["BCC_KERNEL_SOURCE"] = str(load.data_dir("bpf"))
        lines: list[str] = []
        try:
            with compiler_output(compiles=True) as lines:
                return bcc.BPF(
                    text=text.encode(),
                    cflags=["-Wno-unused-function", "-Wno-macro-redefined", "-Wno-tautological-compare"],
                )
        except Exception as error:  # bcc raises bare Exception
            raise RecordError(_compile_message(lines, error)) from error

    def _fill_specs(self) -> None:
        table = self._bpf[b"syscall_specs"]
        wanted = set(self.syscalls)
        calls = load.syscalls()
        if "owners" in self.names:
            wanted |= {n for n, call in calls.items() if call.name in specs.OWNER_CALLS}
        if any(kind == "path" for number in self.syscalls for _, kind in calls[number].args):
            wanted |= {n for n, call in calls.items() if call.name in specs.FOLDER_CALLS}
        if self._names_files:
            wanted |= {n for n, call in calls.items() if specs.names_files(call)}
        for number in wanted:
            if number < 512:
                # Of calls by which others are named all are needed, also where they are asked for themselves.
                call = calls[number]
                needed = number not in self.syscalls or call.name in specs.OWNER_CALLS
                needed |= self._names_files and specs.names_files(call)
                spec = specs.pack(call, unfiltered=needed)
                table[ctypes.c_int(number)] = table.Leaf.from_buffer_copy(spec)

    def attach(self) -> None:
        """Attach everything: processes first, so that no process begins between them and the rest."""
        for number in self._groups:
            self._choose_group(number)
        for name in reversed(self.names):
            self.attach_feature(name)

    def attach_feature(self, name: str) -> None:
        """Attach the programs of one file of bpf/.

        Raises:
            RecordError: the kernel refuses one, with what to do.
        """
        for program in TRACEPOINT_PROGRAMS.get(name, ()):
            if program.needs and program.needs not in self.offsets:
                continue
            if program.function == "syscall_enter" and not self.syscalls:
                continue  # who accepted a connection is known when accept returns
            self._attach_tracepoint(program)
        if name in CGROUP_PROGRAMS:
            self._attach_cgroup(CGROUP_PROGRAMS[name])
        if name == "devices":
            self.devices.open(self._load(DEVICE_PROGRAM))
        for program in EXTRA_TRACEPOINT_PROGRAMS.get(name, ()):
            if not program.needs or program.needs in self.offsets:
                self._attach_extra(program)

    def _attach_extra(self, program: Program) -> None:
        """To a tracepoint that has a program of ours already, which bcc cannot."""
        try:
            self._held.append(attach.raw_tracepoint(self._load(program), program.tracepoint))
        except OSError as error:
            message = f"the kernel refuses the tracepoint {program.tracepoint}: {error.strerror}"
            raise RecordError(message) from error

    def attach_functions(
        self, path: str, offsets: dict[str, int], wanted: Mapping[str, tuple[str, str]]
    ) -> None:
        """Attach to functions of a file: `offsets` in it, by name; `wanted` programs for entry and return.

        Raises:
            OSError: the kernel refuses.
        """
        # Returns first, as a call that was seen to begin must be seen to end.
        for at_return in (True, False):
            for name, offset in offsets.items():
                if function := wanted[name][at_return]:
                    if function not in self._functions:
                        self._functions[function] = self._load(Program(function, "KPROBE"))
                    program = self._functions[function]
                    self._held.append(attach.uprobe(program, path, offset, at_return=at_return))

    def tls_files_found(self) -> int:
        """How many files were executed or mapped to be executed for the first time."""
        return int(self._bpf[b"tls_files_found"][ctypes.c_int(0)].value)

    def take_tls_files(self) -> set[int]:
        """By which processes, since this was asked last."""
        found = {(key.inode, key.device): pid.value for key, pid in self._bpf[b"tls_files"].items()}
        new = {pid for key, pid in found.items() if key not in self._taken}
        self._taken |= found.keys()
        return new

    def _load(self, program: Program) -> int:
        bcc = import_bcc()
        lines: list[str] = []
        types = {
            "SOCKET_FILTER": 1,
            "CGROUP_SKB": 8,
            "CGROUP_SOCK": 9,
            "SOCK_OPS": 13,
            "KPROBE": 2,
            "RAW_TRACEPOINT": 17,
            "CGROUP_SOCK_ADDR": 18,
        }
        try:
            with compiler_output() as lines:
                loaded = self._bpf.load_func(
                    program.function.encode(), types[program.program_type], attach_type=program.attach_type
                )
        except Exception as error:
            raise RecordError(_load_message(program, lines, error)) from error
        assert bcc is not None
        return int(loaded.fd)

    def _attach_tracepoint(self, program: Program) -> None:
        self._load(program)
        try:
            with compiler_output():
                self._bpf.attach_raw_tracepoint(program.tracepoint.encode(), program.function.encode())
        except Exception as error:
            raise RecordError(f"the kernel refuses the tracepoint {program.tracepoint}: {error}") from error

    def _attach_cgroup(self, programs: tuple[Program, ...]) -> None:
        """To the chosen cgroups, so that no other workload pays; where single processes are chosen, to the
        root.
        """
        root = cgroups.cgroup2_root()
        if root is None:
            raise RecordError(
                "no cgroup2 file system is mounted, which packets and sockets need; "
                "mount -t cgroup2 none /sys/fs/cgroup/unified, or record with --no-packets --no-sockets"
            )
        if self._at_root:
            self._attach_folder(0, str(root), programs)
        for number, path in {} if self._at_root else self._groups.items():
            self._attach_folder(number, f"{root}{path}", programs)

    @property
    def _at_root(self) -> bool:
        return self._scope.by_task or not self._scope

    def _attach_folder(self, number: int, path: str, programs: tuple[Program, ...]) -> None:
        folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for program in programs:
                if program.needs and program.needs not in self._settings:
                    continue
                link = _link(self._load(program), folder, program.attach_type)
                self._links.setdefault(number, []).append(link)
        except OSError as error:
            raise RecordError(f"the kernel refuses programs on {path}: {error.strerror}") from error
        finally:
            os.close(folder)

    def _choose_group(self, number: int) -> None:
        self._bpf[b"scope_cgroups"][ctypes.c_uint64(number)] = ctypes.c_uint8(1)

    def change_groups(self, groups: dict[int, str]) -> None:
        """The cgroups that are chosen now: attach to those that came, let go of those that went."""
        for number in self._groups.keys() - groups.keys():
            for link in self._links.pop(number, []):
                os.close(link)
            with contextlib.suppress(KeyError):
                del self._bpf[b"scope_cgroups"][ctypes.c_uint64(number)]
        new = {number: path for number, path in groups.items() if number not in self._groups}
        for number in new:
            self._choose_group(number)
        if new:
            self._bpf[b"scope_met"].clear()  # what was found out about cgroups inside of these
        if not self._at_root:
            root = cgroups.cgroup2_root()
            for name in (name for name in self.names if name in CGROUP_PROGRAMS):
                for number, path in new.items():
                    with contextlib.suppress(FileNotFoundError):  # it has gone again
                        self._attach_folder(number, f"{root}{path}", CGROUP_PROGRAMS[name])
        self._groups = dict(groups)

    def choose_tasks(self, pids: Iterable[int]) -> None:
        """These processes, and all that they start from now on, are in scope."""
        for pid in pids:
            self._bpf[b"scope_tasks"][ctypes.c_uint32(pid)] = ctypes.c_uint8(_SCOPE_TREE)

    def choose_named(self, pids: Iterable[int]) -> None:
        """These processes have a chosen name, until they execute another program."""
        for pid in pids:
            if pid not in self.chosen_tasks():
                self._bpf[b"scope_tasks"][ctypes.c_uint32(pid)] = ctypes.c_uint8(_SCOPE_NAMED)

    def forget_task(self, pid: int) -> None:
        """The process itself is no longer in scope; what it started is."""
        with contextlib.suppress(KeyError):
            del self._bpf[b"scope_tasks"][ctypes.c_uint32(pid)]

    def chosen_tasks(self) -> set[int]:
        """Processes that are in scope by number or name."""
        return {key.value for key in self._bpf[b"scope_tasks"].keys()}  # noqa: SIM118 bcc's table is no dict

    def choose_sockets(self, cookies: Iterable[int]) -> None:
        """These sockets are in scope."""
        for cookie in cookies:
            self._bpf[b"scope_cookies"][ctypes.c_uint64(cookie)] = ctypes.c_uint8(1)

    def drop_places(self, known: set[int]) -> tuple[set[int], dict[int, list[int]]]:
        """Addresses of code that has dropped packets so far, and stacks (innermost first) by number, but for
        those that are known.
        """
        if "drops" not in self.names:
            return set(), {}
        stacks = self._bpf[b"drop_stacks"]
        numbers = [key.value for key in stacks.keys()]  # noqa: SIM118 bcc's table is no dict
        places = {key.value for key in self._bpf[b"drop_places"].keys()}  # noqa: SIM118
        return places, {number: list(stacks.walk(number)) for number in numbers if number not in known}

    def name_endpoints_again(self) -> None:
        """Whose addresses are whose stands in every spool: bpf/endpoints.c forgets what it has told."""
        if "endpoints" in self.names:
            self._endpoint_epoch = self._endpoint_epoch % 0xFFFF + 1
            self._bpf[b"endpoint_epoch"][ctypes.c_int(0)] = ctypes.c_uint32(self._endpoint_epoch)

    def readable(self) -> bool:
        """Whether the kernel lets us look into maps with the privileges that we have now."""
        try:
            return bool(self.totals())
        except KeyError:
            return False

    def seen(self) -> list[int]:
        """What bpf/limits.c counted: recorded calls by number, then bytes of payload and of calls' data."""
        values = [bytes(value) for value in self._bpf[b"limits_seen"][ctypes.c_int(0)]]
        return [
            sum(of_all)
            for of_all in zip(*(struct.unpack(f"={len(v) // 8}Q", v) for v in values), strict=True)
        ]

    def shed(self, bits: int, calls: frozenset[int]) -> None:
        """Leave out what the bits of bpf/limits.c say, and these system calls; record all others."""
        self._bpf[b"limits_shed"][ctypes.c_int(0)] = ctypes.c_uint32(bits)
        if "syscalls" not in self.names:
            return
        table = self._bpf[b"syscall_specs"]
        for number in self._shed_calls ^ calls:
            spec = table[ctypes.c_int(number)]
            spec.wanted = _SHED_CALL if number in calls else 1
            table[ctypes.c_int(number)] = spec
        self._shed_calls = calls

    def recorded_calls(self) -> frozenset[int]:
        """Numbers of the system calls that may be left out: all but those that tell owners."""
        return self.syscalls - specs.owner_calls()

    def program_fds(self) -> list[int]:
        """Descriptors of the loaded programs."""
        return [function.fd for function in self._bpf.funcs.values()]

    def detach(self) -> None:
        """Detach everything; what is in the ring buffer stays there."""
        for links in self._links.values():
            for link in links:
                os.close(link)
        self._links.clear()
        self.devices.close()
        attach.close_all(self._held)
        self._held.clear()
        for name in list(self._bpf.raw_tracepoint_fds):
            self._bpf.detach_raw_tracepoint(name)

    def totals(self) -> dict[str, int]:
        """What the kernel counted so far, summed over processors, by name."""
        table = self._bpf[b"counters"]
        names = load.kernel_counters()
        return {name: sum(table[ctypes.c_int(index)]) for index, name in enumerate(names)}

    def trigger_hits(self, number: int) -> int:
        """How many events met the test of a trigger."""
        return sum(self._bpf[b"trigger_hits"][ctypes.c_int(number)])

    def own_child(self, begins: bool) -> None:
        """The next process that this one starts is as little recorded as this one is (True), or it has ended
        (False).
        """
        if "OWN_CHILD" in self._settings:
            self._bpf[b"own_child"][ctypes.c_int(0)] = ctypes.c_uint32(_ARMED if begins else 0)

    def own_child_pid(self) -> int:
        """The process of which `own_child` was told, 0 for none."""
        return int(self._bpf[b"own_child"][ctypes.c_int(0)].value) if "OWN_CHILD" in self._settings else 0

    def open_since(self, tid: int) -> int:
        """CLOCK_MONOTONIC when the thread entered the call in which it is: 0 when that was before the
        recording, 1 when it is in no recorded call.
        """
        if "syscalls" not in self.names:
            return 1
        try:
            return int(self._bpf[b"syscall_starts"][ctypes.c_int(tid)].value)
        except KeyError:
            return 1

    def close(self) -> None:
        """Detach and free everything."""
        self.detach()
        self.ring.close()
        self._bpf.cleanup()


def _link(program_fd: int, cgroup_fd: int, attach_type: int) -> int:
    """BPF_LINK_CREATE: unlike BPF_PROG_ATTACH it ends with the last descriptor, so also when the recorder is
    killed.
    """
    number = next(call.number for call in load.syscalls().values() if call.name == "bpf")
    attr = ctypes.create_string_buffer(struct.pack("<IIII", program_fd, cgroup_fd, attach_type, 0), 64)
    fd = _libc.syscall(number, _BPF_LINK_CREATE, attr, ctypes.sizeof(attr))
    if fd < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return int(fd)


_NOT_PERMITTED = (
    "recording needs kernel programs, and the kernel does not permit to load {}: "
    "run as root, or with the capabilities that `stratokit doctor` names"
)


def _compile_message(lines: list[str], error: Exception) -> str:
    if os.environ.get("STRATOKIT_DEBUG"):
        sys.stderr.write("\n".join(lines) + "\n")
    if any("Operation not permitted" in line for line in lines):
        return _NOT_PERMITTED.format("them")
    text = next((line for line in lines if "error:" in line), str(error).partition("\n")[0])[:200]
    return f"the kernel programs do not compile here: {text} (STRATOKIT_DEBUG=1 shows all)"


def _load_message(program: Program, lines: list[str], error: Exception) -> str:
    if os.environ.get("STRATOKIT_DEBUG"):
        sys.stderr.write("\n".join(lines) + "\n")
    text = str(error)
    if "Operation not permitted" in text or "EPERM" in text:
        return _NOT_PERMITTED.format(program.function)
    return f"the kernel refuses {program.function}: {text} (STRATOKIT_DEBUG=1 shows why)"
