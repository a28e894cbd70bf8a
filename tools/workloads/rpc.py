"""A gRPC server and a client, two processes; the client says what it called and what came back."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from concurrent import futures
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from workloads.common import LOOPBACK, announce, python_child, python_server

CALLS = 29  # of each of the four methods in turn


@dataclass(frozen=True)
class Server:
    pid: int
    port: int


@dataclass(frozen=True)
class Call:
    service: str
    method: str
    status: str
    message: str
    sent: int  # messages
    received: int


@contextmanager
def grpc_server() -> Iterator[Server]:
    with python_server("workloads.rpc", "serve") as facts:
        yield Server(facts["pid"], facts["port"])


def call_it(server: Server) -> tuple[int, list[Call]]:
    """(pid of the client, its calls in order)."""
    child = python_child("workloads.rpc", "call", str(server.port))
    first, *lines = child.communicate(timeout=60)[0].splitlines()
    return json.loads(first)["pid"], [Call(**json.loads(line)) for line in lines]


def serve() -> None:
    import grpc

    def unary(request: bytes, _: Any) -> bytes:
        return request * 2

    def chat(requests: Iterator[bytes], _: Any) -> Iterator[bytes]:
        for request in requests:
            yield request
            yield request

    def fail(_: bytes, context: Any) -> bytes:
        context.abort(grpc.StatusCode.NOT_FOUND, "no such käse")
        raise AssertionError

    def slow(_: bytes, __: Any) -> bytes:
        time.sleep(1)
        return b""

    handlers = {
        "Unary": grpc.unary_unary_rpc_method_handler(unary),
        "Chat": grpc.stream_stream_rpc_method_handler(chat),
        "Fail": grpc.unary_unary_rpc_method_handler(fail),
        "Slow": grpc.unary_unary_rpc_method_handler(slow),
    }
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=8))
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("demo.Echo", handlers)])
    port = server.add_insecure_port(f"{LOOPBACK}:0")
    server.start()
    announce(port=port)
    server.wait_for_termination()


def call(port: int) -> None:
    import grpc

    announce()
    with grpc.insecure_channel(f"{LOOPBACK}:{port}", options=[("grpc.enable_http_proxy", 0)]) as channel:
        for number in range(CALLS):
            method = ("Unary", "Chat", "Fail", "Slow")[number % 4]
            sent, received, status, message = 1, 0, "OK", ""
            path = f"/demo.Echo/{method}"
            try:
                if method == "Chat":
                    sent = number % 5
                    parts = [bytes(1000 * k) for k in range(sent)]
                    received = sum(1 for _ in channel.stream_stream(path)(iter(parts), timeout=20))
                else:
                    channel.unary_unary(path)(bytes(number * 100), timeout=0.2 if method == "Slow" else 20)
                    received = 1
            except grpc.RpcError as error:
                status, message = error.code().name, error.details()
            done = Call("demo.Echo", method, status, message, sent, received)
            print(json.dumps(done.__dict__), flush=True)


if __name__ == "__main__":
    serve() if sys.argv[1] == "serve" else call(int(sys.argv[2]))
