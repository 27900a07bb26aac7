"""The least that a manager in Python can cost: one blocking `ssl` socket, json, argparse, nothing else.

It asks for what cmappmgr asks for and does none of the rest: one word for a log, no syslog, retry or check
of what comes, no acknowledgement. A bare context, and `os._exit` the instant `exited` arrives. The bench
imports it as a module, as a console script does with its package, so that its byte code comes from a cache.
"""

import argparse
import json
import os
import select
import socket
import ssl


def main() -> None:
    """Launch a command and leave with its exit code."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--keys", required=True)
    parser.add_argument("--poll-interval", type=float, default=5.0)
    parser.add_argument("guest", help="ADDRESS:PORT")
    parser.add_argument("command", nargs="+")
    options = parser.parse_args()
    host, _, port = options.guest.rpartition(":")

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_cert_chain(f"{options.keys}/cert.pem", f"{options.keys}/key.pem")
    context.load_verify_locations(f"{options.keys}/ca.pem")
    context.set_alpn_protocols(["cmapp/1"])
    raw = socket.create_connection((host, int(port)))
    raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    link = context.wrap_socket(raw, server_hostname=host)

    def say(**message: object) -> None:
        link.sendall(json.dumps(message, separators=(",", ":")).encode() + b"\n")

    say(type="hello", id=1, versions=[1], software="floor")
    run_id = f"{os.getpid():08x}-0000-4000-8000-{os.urandom(6).hex()}"
    say(type="launch", id=2, name=f"floor-{os.getpid()}", run_id=run_id, argv=options.command)
    waiting = select.poll()
    waiting.register(link, select.POLLIN)
    polls, rest = 2, b""
    while True:
        if not link.pending() and not waiting.poll(options.poll_interval * 1000):
            polls += 1
            say(type="poll", id=polls)
            continue
        data = link.recv(65536)
        if not data:
            os._exit(123)
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            message = json.loads(line)
            if message["type"] == "exited":
                outcome = message["receipt"]["outcome"]
                code = outcome["code"] if outcome["type"] == "exited" else 128 + outcome["signal"]
                os.write(2, f"exit code {code}\n".encode())
                os._exit(code)
            if message["type"] == "refused":
                os._exit(122)
