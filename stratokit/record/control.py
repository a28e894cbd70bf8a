"""How `stratokit trigger` reaches a flight recorder: a UNIX socket of its own user.

The socket lies in a folder that only its user may enter: /run/stratokit for root, else in XDG_RUNTIME_DIR,
else in /tmp/stratokit-UID. Whoever connects must be that user or root (SO_PEERCRED, unix(7)). One connection
is one question: a line of JSON with `do` (status or trigger), and a line as answer.
"""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import socket
import stat
import struct
import tempfile
import time
from typing import TYPE_CHECKING, Any

from stratokit.errors import StratokitError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

QUESTION_BYTES = 4096
CLIENTS_MOST = 16
_TIMEOUT_S = 5.0
_RUN = pathlib.Path("/run/stratokit")
_CREDENTIALS = struct.Struct("iII")  # pid, uid, gid


def folder() -> pathlib.Path:
    """Where recorders of this user have their sockets."""
    if os.geteuid() == 0 and os.access("/run", os.W_OK):
        return _RUN
    if runtime := os.environ.get("XDG_RUNTIME_DIR"):
        return pathlib.Path(runtime, "stratokit")
    return pathlib.Path(tempfile.gettempdir(), f"stratokit-{os.geteuid()}")


def _folders() -> list[pathlib.Path]:
    """Where recorders may have their sockets that this user may reach."""
    found = [folder(), _RUN]
    if os.geteuid() == 0:
        found += [
            *pathlib.Path("/run/user").glob("*/stratokit"),
            *pathlib.Path(tempfile.gettempdir()).glob("stratokit-*"),
        ]
    return list(dict.fromkeys(found))


class ControlSocket:
    """The recorder's end; nothing here waits. Where no socket can be made there is none, and `problem` says
    why.
    """

    def __init__(
        self,
        trigger: Callable[[str], str],
        status: Callable[[], dict[str, object]],
        place: pathlib.Path | None = None,
    ) -> None:
        """`trigger` takes a reason and returns the file that will be written, empty when it is refused."""
        self._trigger = trigger
        self._status = status
        self._clients: dict[socket.socket, bytes] = {}
        self._until: dict[socket.socket, float] = {}
        self._socket: socket.socket | None = None
        self.problem = ""
        place = place or folder()
        self.path = place / f"{os.getpid()}.sock"
        try:
            place.mkdir(mode=0o700, exist_ok=True)
            about = place.lstat()
            if not stat.S_ISDIR(about.st_mode) or about.st_uid != os.geteuid() or about.st_mode & 0o077:
                raise PermissionError(0, f"{place} is not a folder of this user alone")
            self.path.unlink(missing_ok=True)  # of a recorder that was killed and had this number
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
            self._socket.bind(str(self.path))
            self.path.chmod(0o600)
            self._socket.listen(CLIENTS_MOST)
        except OSError as error:
            self.problem = f"{self.path}: {error.strerror}"
            if self._socket is not None:
                self._socket.close()
            self._socket = None

    def poll(self) -> None:
        """Answer what was asked."""
        if self._socket is None:
            return
        with contextlib.suppress(OSError):
            while len(self._clients) < CLIENTS_MOST:
                client, _ = self._socket.accept()
                client.setblocking(False)
                uid = _CREDENTIALS.unpack(
                    client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
                )[1]
                if uid in (0, os.geteuid()):
                    self._clients[client] = b""
                    self._until[client] = time.monotonic() + _TIMEOUT_S
                else:
                    client.close()
        for client in list(self._clients):
            try:
                got = client.recv(QUESTION_BYTES)
            except BlockingIOError:
                if time.monotonic() < self._until[client]:
                    continue
                got = b""
            except OSError:
                got = b""
            text = self._clients[client] + got
            if got and b"\n" not in text and len(text) < QUESTION_BYTES:
                self._clients[client] = text
                continue
            with contextlib.suppress(OSError):
                if b"\n" in text:
                    client.sendall(json.dumps(self._answer(text)).encode() + b"\n")
            client.close()
            del self._clients[client], self._until[client]

    def _answer(self, line: bytes) -> dict[str, Any]:
        try:
            question = json.loads(line.partition(b"\n")[0])
            what = question["do"]
            reason = str(question.get("reason") or "")
        except (ValueError, KeyError, TypeError, AttributeError):
            return {"error": "not a question"}
        if what == "status":
            return {"pid": os.getpid(), **self._status()}
        if what == "trigger":
            output = self._trigger(reason[:QUESTION_BYTES])
            return {"pid": os.getpid(), "output": output} if output else {"error": "too many captures wait"}
        return {"error": f"nobody knows how to {what}"}

    def close(self) -> None:
        """Remove the socket."""
        for client in self._clients:
            client.close()
        self._clients.clear()
        if self._socket is not None:
            self._socket.close()
            self.path.unlink(missing_ok=True)
        self._socket = None


def ask(path: pathlib.Path, question: dict[str, Any]) -> dict[str, Any]:
    """The answer of the recorder behind a socket.

    Raises:
        OSError: nobody answers there.
        StratokitError: it refuses.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(_TIMEOUT_S)
        client.connect(str(path))
        client.sendall(json.dumps(question).encode() + b"\n")
        text = b""
        while not text.endswith(b"\n") and (got := client.recv(QUESTION_BYTES)):
            text += got
    try:
        answer: dict[str, Any] = json.loads(text)
    except ValueError as error:
        raise ConnectionResetError(f"{path} gave no answer") from error
    if "error" in answer:
        raise StratokitError(f"the recorder behind {path} refuses: {answer['error']}")
    return answer


def recorders() -> Iterator[tuple[pathlib.Path, dict[str, Any]]]:
    """(socket, status) of the flight recorders that this user may trigger. Sockets that killed ones left
    behind are passed over.
    """
    for place in _folders():
        try:
            sockets = sorted(place.glob("*.sock"), key=lambda path: path.name)
        except OSError:
            continue
        for path in sockets:
            try:
                yield path, ask(path, {"do": "status"})
            except OSError:
                continue
