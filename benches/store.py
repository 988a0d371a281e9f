"""An S3 server (Garage) for a benchmark, and a proxy that adds latency before it."""

import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from lab import Lab

# The name that git-annex takes for the region of a server that is not Amazon's: its host.
REGION = "localhost"
# Seconds of processor time in a second of a server that does nothing.
IDLE = 0.05


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def s3_port() -> int:
    """The port of http where one may have it: git-annex signs a host without the port that it sends, which is right only there."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", 80))
        except OSError:
            return free_port()
    return 80


class Garage:
    """One empty server with one key, whose metadata is in LMDB, as Garage has it unless told otherwise, or in SQLite."""

    def __init__(self, lab: Lab, binary: Path, engine: str):
        self.folder = Path(tempfile.mkdtemp(prefix="garage-", dir=lab.scratch))
        self.binary, self.config = binary, self.folder / "garage.toml"
        rpc, self.port, admin = free_port(), s3_port(), free_port()
        self.config.write_text(f"""
metadata_dir = "{self.folder}/meta"
data_dir = "{self.folder}/data"
db_engine = "{engine}"
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
        # A server that was in use for some time has them all; else whoever comes first would pay for them.
        for number in range(1 << 16):
            (self.folder / "data" / f"{number >> 8:02x}" / f"{number & 255:02x}").mkdir(parents=True)
        log = open(self.folder / "log", "w")
        self.server = subprocess.Popen([binary, "-c", self.config, "server"], stdout=log, stderr=log)
        self.buckets = 0
        while self.admin("status", check=False).returncode != 0:
            if self.server.poll() is not None:
                sys.exit((self.folder / "log").read_text())
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

    def rest(self) -> None:
        """Waits until the server is done with what it puts off, so that nobody pays for what went before."""
        ticks = os.sysconf("SC_CLK_TCK")

        def used() -> float:
            fields = Path(f"/proc/{self.server.pid}/stat").read_text().rpartition(")")[2].split()
            return (int(fields[11]) + int(fields[12])) / ticks

        for _ in range(120):
            before = used()
            time.sleep(1)
            if used() - before < IDLE:
                return

    def end(self) -> None:
        """Stops it and removes what it holds."""
        self.server.kill()
        self.server.wait()
        shutil.rmtree(self.folder)


class Delay:
    """Passes connections on to a port, and holds all bytes back for half of the round trip in each direction."""

    def __init__(self, lab: Lab, port: int, round_trip: float):
        program = lab.scratch / "delay"
        source = Path(__file__).with_name("delay.rs")
        subprocess.run(["rustc", "--edition", "2024", "-O", "-o", program, source], check=True)
        one_way = str(round(round_trip * 1000 / 2))
        self.process = subprocess.Popen([program, str(port), one_way], stdout=subprocess.PIPE, text=True)
        lab.at_end.append(self.process.kill)
        self.port = int(self.process.stdout.readline())
