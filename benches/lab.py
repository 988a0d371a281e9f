"""What every benchmark here shares: a scratch place to run commands in, rounds, limits, and the table of medians."""

import argparse
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

PROJECT = Path(__file__).resolve().parent.parent
KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
WARM_BYTES = 3 * GIB

Samples = dict[str, float]


@dataclass(frozen=True)
class Run:
    """What one finished command took."""

    seconds: float
    peak_memory: int  # bytes, of the command or its largest child


@dataclass(frozen=True)
class Limit:
    """One row of the table. With the unit `x` the limit is on the ratio to the peer, else on our own figure."""

    what: str
    ours: str
    most: float | None  # `None` where a figure is only shown
    unit: str = "x"
    peer: str = ""


@dataclass(frozen=True)
class Case:
    """Each round runs all steps, every other round in reverse, and collects their samples."""

    steps: list[Callable[[], Samples]]
    limits: list[Limit]


class Lab:
    """A scratch folder and a hermetic environment to run commands in."""

    def __init__(self, scratch: Path, binary: Path):
        self.scratch, self.binary = scratch, str(binary)
        self.tools = {self.binary: "--version", "git": "--version"}  # what prints the version of each tool in use
        self.repositories = 0
        self.scale = 1.0  # of the data, where a case can do with less
        self.without: list[str] = []  # peers that are not asked for
        self.remarks: list[str] = []  # what a reader must know besides the facts
        self.at_end: list[Callable[[], None]] = []
        (scratch / "gitconfig").write_text("[user]\n\tname = Bench\n\temail = bench@example.com\n")
        self.env = {name: value for name, value in os.environ.items() if not name.startswith(("GIT_", "DVC_", "AWS_"))}
        self.env |= {
            "PATH": f"{binary.parent}:{os.environ['PATH']}",
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_GLOBAL": str(scratch / "gitconfig"),
            "DVC_SITE_CACHE_DIR": str(scratch / "dvc-site"),
        }

    def run(self, where: Path, *command: str) -> Run:
        """Runs a command that must succeed."""
        with open(self.scratch / "output", "w+b") as output:
            quiet = {"stdin": subprocess.DEVNULL, "stdout": output, "stderr": output}
            start = time.perf_counter()
            child = subprocess.Popen(command, cwd=where, env=self.env, **quiet)
            _, status, usage = os.wait4(child.pid, 0)
            seconds = time.perf_counter() - start
            child.returncode = os.waitstatus_to_exitcode(status)
            if child.returncode != 0:
                output.seek(0)
                sys.exit(f"failed ({child.returncode}): {' '.join(command)}\n{output.read().decode(errors='replace')}")
        return Run(seconds, usage.ru_maxrss * KIB)

    def measure(self, where: Path, *command: str) -> Run:
        """Runs a command with nothing left to write back from what went before, and with memory at hand.

        The host of a virtual machine takes free memory back, and hands it out again page by page at the cost of whoever
        asks next. Touching it before each command keeps that out of the figures of both sides.
        """
        os.sync()
        # In a process of its own: a child's peak memory counts what its parent had when it was forked.
        touch = f"memory = bytearray({WARM_BYTES}); memory[::4096] = b'x' * len(range(0, {WARM_BYTES}, 4096))"
        subprocess.run([sys.executable, "-c", touch], check=True)
        return self.run(where, *command)

    def often(self, times: int, where: Path, *command: str) -> float:
        """The median seconds of a short command."""
        return median(self.run(where, *command).seconds for _ in range(times))

    def repository(self, *setup: list[str]) -> Path:
        """A fresh git repository in which the given commands have run."""
        self.repositories += 1
        repo = self.scratch / f"repository-{self.repositories}"
        self.run(self.scratch, "git", "init", "--quiet", str(repo))
        for command in setup:
            self.run(repo, *command)
        return repo

    def machine(self) -> dict[str, str]:
        """The facts a reader needs to judge the figures."""
        cpu = Path("/proc/cpuinfo").read_text()
        models = [line.partition(": ")[2] for line in cpu.splitlines() if line.startswith("model name")]
        model = models[0] if models else "unknown"
        facts = {
            "cpu": f"{model}, {len(os.sched_getaffinity(0))} cores, {'with' if 'sha_ni' in cpu else 'no'} SHA-NI",
            "kernel": platform.release(),
            "file system": subprocess.check_output(["df", "--output=fstype", self.scratch], text=True).split()[-1],
        }
        for tool, argument in self.tools.items():
            output = subprocess.check_output([tool, argument], env=self.env, text=True)
            facts[Path(tool).name] = output.splitlines()[0]
        return facts


def settle() -> None:
    """Lets new files reach the disk and grow older than any tool's rule for files that may still change."""
    os.sync()
    time.sleep(3.1)


def write_random(path: Path, size: int) -> None:
    with open(path, "wb") as file:
        for start in range(0, size, MIB):
            file.write(os.urandom(min(MIB, size - start)))


def install(lab: Lab, program: str) -> str:
    """Installs the peers if need be; returns a program of theirs: its path below the cache, or a command of the system."""
    cache = Path(subprocess.check_output([PROJECT / "tests/setup", "peers"], text=True).strip())
    found = shutil.which(str(cache / program) if "/" in program else program)
    if found is None:
        raise FileNotFoundError(f"{program} is not there and could not be installed")
    lab.tools[found] = "--version"
    return found


def install_dvc(lab: Lab) -> str:
    """Installs DVC if need be; returns its program."""
    return install(lab, "dvc-3.67/bin/dvc")


def collect(name: str, case: Case, rounds: int) -> dict[str, list[float]]:
    """Runs the rounds of a case; returns its samples by name."""
    samples = defaultdict(list)
    for number in range(rounds):
        print(f"{name}: round {number + 1} of {rounds}", file=sys.stderr)
        for step in case.steps[:: -1 if number % 2 else 1]:
            for sample, value in step().items():
                samples[sample].append(value)
    return samples


def judge(limit: Limit, samples: dict[str, list[float]]) -> dict:
    """One result: medians, their ratio where the limit is one, and whether the limit holds."""
    scale = {"x": 1, "ms": 1000, "MiB": 1 / MIB}[limit.unit]
    ours = median(samples[limit.ours]) * scale
    peer = median(samples[limit.peer]) * scale if limit.peer else None
    figure = ours / peer if limit.unit == "x" else ours
    return asdict(limit) | {"median": ours, "peer_median": peer, "figure": figure, "passed": limit.most is None or figure <= limit.most}


def row(result: dict) -> str:
    """One result as a line of the table."""
    relative = result["unit"] == "x"
    unit, digits = ("s", 3) if relative else (result["unit"], 1)
    peer = f"{result['peer']}: {result['peer_median']:.{digits}f} {unit}" if result["peer"] else ""
    ratio = f"{result['figure']:.3f}" if relative else ""
    if result["most"] is None:
        return f"| {result['what']} | {result['median']:.{digits}f} {unit} | {peer} | {ratio} | | |"
    most = f"≤ {result['most']:.3g} {'×' if relative else unit}"
    verdict = "pass" if result["passed"] else "**FAIL**"
    return f"| {result['what']} | {result['median']:.{digits}f} {unit} | {peer} | {ratio} | {most} | {verdict} |"


def main(about: str, cases: dict[str, Callable[[Lab], Case]], free_space: int) -> int:
    """The command line of a benchmark: measures the cases, prints the table, returns 1 when a limit is missed."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", choices=cases, action="append", help="measure one case; may be given several times")
    parser.add_argument("--scale", type=float, default=1.0, help="take this part of the data, where a case can do with less")
    parser.add_argument("--without", metavar="TOOL", action="append", default=[], help="leave this peer out, where a case can do without it")
    parser.add_argument("--binary", type=Path, default=PROJECT / "target/release/git-model")
    parser.add_argument("--dir", type=Path, default=PROJECT / "target", help="where to work: a folder on a real disk")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write every sample to FILE")
    args = parser.parse_args()
    if not args.binary.is_file() or args.binary.name != "git-model":
        parser.error(f"{args.binary} is not a git-model binary; build one with: cargo build --release --locked")
    free_space = round(free_space * args.scale)
    if shutil.disk_usage(args.dir).free < free_space:
        parser.error(f"{args.dir} has less than {free_space / GIB:.1f} GiB free")

    # So that what was started ends, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))
    results, samples = [], {}
    with tempfile.TemporaryDirectory(prefix="bench-", dir=args.dir.resolve()) as scratch:
        lab = Lab(Path(scratch), args.binary.resolve())
        lab.scale, lab.without = args.scale, args.without
        try:
            for name in args.only or cases:
                print(f"{name}: preparing", file=sys.stderr)
                case = cases[name](lab)
                settle()
                samples[name] = collect(name, case, args.rounds)
                results += [judge(limit, samples[name]) for limit in case.limits]
            machine = lab.machine()
        finally:
            for end in lab.at_end:
                end()

    facts = [f"- {name}: {fact}" for name, fact in machine.items()]
    rounds = f"- medians of {args.rounds} rounds" + (f", {args.scale} of the data" if args.scale != 1 else "")
    print(*facts, *(f"- {remark}" for remark in lab.remarks), rounds, sep="\n")
    print("\n| what | git-model | beside | ratio | limit | |\n|---|---|---|---|---|---|")
    print(*map(row, results), sep="\n")
    if args.json:
        document = {"schema": "git-model/bench/v1", "machine": machine, "rounds": args.rounds}
        document |= {"scale": args.scale, "remarks": lab.remarks}
        args.json.write_text(json.dumps(document | {"results": results, "samples": samples}, indent=2) + "\n")
    return 0 if all(result["passed"] for result in results) else 1
