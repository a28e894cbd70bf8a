"""A client that sends many bytes in TLS in one call, and a server that reads them, in one process."""

from __future__ import annotations

import hashlib
import json
import socket
import ssl
import sys
import threading


def main() -> None:
    cert, key, size = sys.argv[1], sys.argv[2], int(sys.argv[3])
    sent = hashlib.shake_128(b"seed").digest(size)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(cert, key)
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
    got = bytearray()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with server.wrap_socket(listener.accept()[0], server_side=True) as talk:
                while len(got) < size:
                    got.extend(talk.recv(5003))
                talk.sendall(b"k")

        thread = threading.Thread(target=serve)
        thread.start()
        with client.wrap_socket(socket.create_connection(listener.getsockname())) as talk:
            talk.sendall(sent)
            talk.recv(1)  # who closes what it has not read to the end resets the connection
        thread.join()
    assert got == sent
    print(json.dumps({"sha256": hashlib.sha256(sent).hexdigest()}))


if __name__ == "__main__":
    main()
