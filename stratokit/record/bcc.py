"""bcc: found, imported, and what it and the compiler say. The only module that imports it.

bcc comes from the distribution: the project `bcc` of the package index is another one. In a virtual
environment it is loaded from the system's dist-packages without opening the rest of that folder.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import pathlib
import subprocess
import sys
import tempfile
from typing import TYPE_CHECKING, Any

from stratokit.errors import RecordError
from stratokit.record import kernel_functions
from stratokit.schema import load

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stratokit.record.programs import Program

BCC_FOLDERS = ("/usr/lib/python3/dist-packages", "/usr/lib/python3/site-packages")
# enum bpf_prog_type (include/uapi/linux/bpf.h)
_TYPES = {
    "SOCKET_FILTER": 1,
    "CGROUP_SKB": 8,
    "CGROUP_SOCK": 9,
    "SOCK_OPS": 13,
    "KPROBE": 2,
    "RAW_TRACEPOINT": 17,
    "CGROUP_SOCK_ADDR": 18,
}


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


def compiled(text: str) -> Any:
    """The loaded module of bcc for a C text; its programs are not loaded yet.

    Raises:
        RecordError: it does not compile, or the kernel refuses its maps.
    """
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


def loaded(module: Any, program: Program) -> int:
    """Descriptor of a program of a module, loaded.

    Raises:
        RecordError: the kernel refuses it.
    """
    lines: list[str] = []
    name = program.function.encode()
    start = import_bcc().lib.bpf_function_start(module.module, name)
    # Where bcc keeps it, and has put in the numbers of maps.
    kernel_functions.make_calls(module.dump_func(name), start)
    try:
        with compiler_output() as lines:
            made = module.load_func(name, _TYPES[program.program_type], attach_type=program.attach_type)
    except Exception as error:
        raise RecordError(_load_message(program, lines, error)) from error
    return int(made.fd)


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
