"""Compiles and attaches the programs of bpf/."""

from __future__ import annotations

import contextlib
import ctypes
import os
import pathlib
import platform
import time
from typing import TYPE_CHECKING

from stratokit.errors import RecordError, UsageError
from stratokit.record import attach, bcc, btf, cgroups, kernel_functions, pidns, specs
from stratokit.record.devices import Devices
from stratokit.record.maps import Maps
from stratokit.record.programs import (
    CGROUP_PROGRAMS,
    DEVICE_PROGRAM,
    EXTRA_TRACEPOINT_PROGRAMS,
    GLANCE_PROGRAM,
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
    from collections.abc import Iterable, Mapping

    from stratokit.record.options import RecordOptions, Trigger


def ring_bytes(wanted: int) -> int:
    """Size of the ring buffer for `--buffer`: the next power of two, at least 64 KiB."""
    return max(1 << 16, 1 << (wanted - 1).bit_length())


def _thread_ids() -> int:
    return min(int(pathlib.Path("/proc/sys/kernel/pid_max").read_text()), 1 << 22)


class Kernel(Maps):
    """Loaded and attached programs. Everything is held by descriptors, so a killed recorder leaves nothing
    behind.
    """

    def __init__(self, options: RecordOptions, groups: dict[int, str] | None = None) -> None:
        """`groups`: the cgroups that are chosen at the start, paths by id."""
        self._links: dict[int, list[int]] = {}
        self._held: list[int] = []  # descriptors of what is attached beside cgroups
        self._functions: dict[str, int] = {}  # programs for functions of files, by name
        self._scope = options.scope
        self._groups = dict(groups or {})
        self.offsets = btf.kernel_offsets()
        if not kernel_functions.casts(self.offsets):
            self.offsets.pop("HAVE_CAST", None)
        self.devices = Devices(options.interfaces, options.netns)
        self.syscalls = specs.select(options.syscalls)
        if options.filter.text:
            self.syscalls &= specs.select(",".join(options.filter.calls) or "none")
        self._names_files = options.filter.names_files
        self.names = self._wanted(options)
        # Without system calls the tracepoints that every call of the host would pass are left alone.
        self._learns = "owners" in self.names and "syscalls" not in self.names
        knows_users = "owners" not in self.names or "HAVE_USER_BTF" in self.offsets
        # Whether they can be left out while the recording goes on. Others learn owners without them then.
        self.can_leave_calls = options.limits.shed and bool(self.syscalls) and knows_users
        learns = self._learns or (self.can_leave_calls and "owners" in self.names)
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
            "KERNEL_FUNCTIONS": kernel_functions.KERNEL_FUNCTIONS,
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
        first += ["triggers"] if "TRIGGERS" in settings else []
        self._bpf = bcc.compiled(program_text(first + self.names, settings))
        super().__init__(self._bpf, self.names, self.syscalls, rolling=options.rolling)
        self.ring = Ring(self._bpf[b"events"].map_fd, size)
        self._calls = self._calls_to_see() if "syscalls" in self.names else set()
        self._fill_specs()
        if options.limits.shed:
            self.begin_span(0)

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

    def _calls_to_see(self) -> set[int]:
        """Numbers of the system calls that are recorded, and of those by which others are named."""
        wanted = set(self.syscalls)
        calls = load.syscalls()
        if "owners" in self.names:
            wanted |= {n for n, call in calls.items() if call.name in specs.OWNER_CALLS}
        if any(kind == "path" for number in self.syscalls for _, kind in calls[number].args):
            wanted |= {n for n, call in calls.items() if call.name in specs.FOLDER_CALLS}
        if self._names_files:
            wanted |= {n for n, call in calls.items() if specs.names_files(call)}
        return {number for number in wanted if number < 512}

    def _fill_specs(self) -> None:
        calls = load.syscalls()
        if not self._calls:
            return
        table = self._bpf[b"syscall_specs"]
        for number in self._calls:
            # Of calls by which others are named all are needed, also where they are asked for themselves.
            call = calls[number]
            needed = number not in self.syscalls or call.name in specs.OWNER_CALLS
            needed |= self._names_files and specs.names_files(call)
            spec = specs.pack(call, unfiltered=needed)
            table[ctypes.c_int(number)] = table.Leaf.from_buffer_copy(spec)

    def attach(self) -> None:
        """Attach everything: processes first, so that no process begins between them and the rest."""
        for number in self._groups:
            self.choose_group(number)
        if self.can_leave_calls:
            self._load(GLANCE_PROGRAM)  # which takes privileges that are given up
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
            if name == "syscalls" and not self._calls:
                continue  # --tls alone has programs of its own there
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

    def _load(self, program: Program) -> int:
        known = self._bpf.funcs.get(program.function.encode())
        return bcc.loaded(self._bpf, program) if known is None else int(known.fd)

    def _attach_tracepoint(self, program: Program) -> None:
        self._load(program)
        try:
            with bcc.compiler_output():
                self._bpf.attach_raw_tracepoint(program.tracepoint.encode(), program.function.encode())
        except Exception as error:
            raise RecordError(f"the kernel refuses the tracepoint {program.tracepoint}: {error}") from error

    @property
    def learns_users(self) -> bool:
        """Whether there was a time in which nobody saw system calls tell who uses a socket."""
        return self._learns or self._span > 1

    def leave_calls(self) -> None:
        """Let the calls of the host go by without a look."""
        for name in (b"sys_enter", b"sys_exit"):
            if name in self._bpf.raw_tracepoint_fds:
                self._bpf.detach_raw_tracepoint(name)
        self.begin_span(None)

    def calls_glanced(self, seconds: float) -> float:
        """How many calls a second the host makes, counted for a moment."""
        link = attach.raw_tracepoint(self._load(GLANCE_PROGRAM), GLANCE_PROGRAM.tracepoint)
        try:
            before, begin = self.costs()[-1], time.monotonic()
            time.sleep(seconds)
            after, end = self.costs()[-1], time.monotonic()
        finally:
            os.close(link)
        return sum(now - then for (then, _), (now, _) in zip(before, after, strict=True)) / (end - begin)

    def take_calls(self) -> None:
        """Look at them again.

        Raises:
            RecordError: the kernel refuses.
        """
        self.begin_span(time.monotonic_ns())
        self.attach_feature("syscalls")

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
                link = attach.cgroup(self._load(program), folder, program.attach_type)
                self._links.setdefault(number, []).append(link)
        except OSError as error:
            raise RecordError(f"the kernel refuses programs on {path}: {error.strerror}") from error
        finally:
            os.close(folder)

    def change_groups(self, groups: dict[int, str]) -> None:
        """The cgroups that are chosen now: attach to those that came, let go of those that went."""
        for number in self._groups.keys() - groups.keys():
            for link in self._links.pop(number, []):
                os.close(link)
            with contextlib.suppress(KeyError):
                del self._bpf[b"scope_cgroups"][ctypes.c_uint64(number)]
        new = {number: path for number, path in groups.items() if number not in self._groups}
        for number in new:
            self.choose_group(number)
        if new:
            self._bpf[b"scope_met"].clear()  # what was found out about cgroups inside of these
        if not self._at_root:
            root = cgroups.cgroup2_root()
            for name in (name for name in self.names if name in CGROUP_PROGRAMS):
                for number, path in new.items():
                    with contextlib.suppress(FileNotFoundError):  # it has gone again
                        self._attach_folder(number, f"{root}{path}", CGROUP_PROGRAMS[name])
        self._groups = dict(groups)

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

    def close(self) -> None:
        """Detach and free everything."""
        self.detach()
        self.ring.close()
        self._bpf.cleanup()
