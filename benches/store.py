"""An S3 server (Garage) for a benchmark, and a proxy that adds latency before it."""

import secrets
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from pathlib import Path

from lab import KIB, Lab

# The name that git-annex takes for the region of a server that is not Amazon's: its host.
REGION = "localhost"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Garage:
    """One server with one key; it ends with the benchmark."""

    def __init__(self, lab: Lab, binary: Path):
        self.binary, self.config = binary, lab.scratch / "garage.toml"
        rpc, self.port, admin = free_port(), free_port(), free_port()
        self.config.write_text(f"""
metadata_dir = "{lab.scratch}/garage-meta"
data_dir = "{lab.scratch}/garage-data"
db_engine = "sqlite"
replication_factor = 1
rpc_bind_addr = "127.0.0.1:{rpc}"
rpc_public_addr = "127.0.0.1:{rpc}"
rpc_secret = "{secrets.token_hex(32)}"
[s3_api]
s3_region = "{REGION}"
api_bind_addr = "127.0.0.1:{self.port}"
root_domain = ".s3.localhost"
[admin]
api_bind_addr = "127.0.0.1:{admin}"
""")
        lab.tools[str(binary)] = "--version"
        log = open(lab.scratch / "garage.log", "w")
        self.server = subprocess.Popen([binary, "-c", self.config, "server"], stdout=log, stderr=log)
        self.buckets = 0
        while self.admin("status", check=False).returncode != 0:
            if self.server.poll() is not None:
                sys.exit((lab.scratch / "garage.log").read_text())
            time.sleep(0.1)
        node = self.admin("node", "id", "-q").stdout.split("@")[0].strip()
        self.admin("layout", "assign", "-z", "a", "-c", "100G", node)
        self.admin("layout", "apply", "--version", "1")
        words = self.admin("key", "create", "bench").stdout.splitlines()
        field = {line.split(":")[0]: line.split(":", 1)[1].strip() for line in words if ":" in line}
        self.key, self.secret = field["Key ID"], field["Secret key"]

    def admin(self, *args: str, check: bool = True) -> subprocess.CompletedProcess:
        command = [self.binary, "-c", self.config, *args]
        return subprocess.run(command, check=check, capture_output=True, text=True)

    def bucket(self) -> str:
        self.buckets += 1
        name = f"bench-{self.buckets}"
        self.admin("bucket", "create", name)
        self.admin("bucket", "allow", "--read", "--write", "--owner", name, "--key", self.key)
        return name

    def stop(self) -> None:
        self.server.kill()
        self.server.wait()


class Delay:
    """Passes connections on to a port, and holds all bytes back for half of the round trip in each direction."""

    WINDOW = 4096 * KIB  # bytes on their way in one direction of one connection

    def __init__(self, port: int, round_trip: float):
        self.target, self.one_way = port, round_trip / 2
        listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.port = listener.getsockname()[1]
        threading.Thread(target=self.accept, args=(listener,), daemon=True).start()

    def accept(self, listener: socket.socket) -> None:
        while True:
            client, _ = listener.accept()
            server = socket.create_connection(("127.0.0.1", self.target))
            for source, target in ((client, server), (server, client)):
                target.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self.connect(source, target)

    def connect(self, source: socket.socket, target: socket.socket) -> None:
        queue: deque[tuple[float, bytes]] = deque()
        changed = threading.Condition()
        held = [0]

        def take() -> None:
            data = b"x"
            while data:
                try:
                    data = source.recv(256 * KIB)
                except OSError:
                    data = b""
                with changed:
                    while held[0] > self.WINDOW:
                        changed.wait()
                    queue.append((time.monotonic() + self.one_way, data))
                    held[0] += len(data)
                    changed.notify_all()

        def give() -> None:
            try:
                while True:
                    with changed:
                        while not queue:
                            changed.wait()
                        due, data = queue.popleft()
                    time.sleep(max(0, due - time.monotonic()))
                    if not data:
                        return target.shutdown(socket.SHUT_WR)
                    target.sendall(data)
                    with changed:
                        held[0] -= len(data)
                        changed.notify_all()
            except OSError:
                source.close()
                with changed:
                    held[0] = -(1 << 60)
                    changed.notify_all()

        threading.Thread(target=take, daemon=True).start()
        threading.Thread(target=give, daemon=True).start()
