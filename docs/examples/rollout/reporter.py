"""Takes reports of rollouts and records them with `git model outcome`. Part of docs/rollout.md; standard library only.

Runs beside a clone of the repository (REPORTER_REPO) whose git remote it may push tags to, and takes POSTs from jobs and
Argo Rollouts ({"model", "stage", "version", "outcome"}) and from Flagger ({"phase", "metadata": {"model", "stage", "version"}}).
REPORTER_ALLOW lists what it may report on: "churn#prod ranker#prod". Keep others from reaching it with a network policy.
"""

import json
import os
import re
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock

REPO = os.environ.get("REPORTER_REPO", "/repo")
ALLOWED = set(os.environ.get("REPORTER_ALLOW", "").split())
PHASES = {"Succeeded": "ok", "Failed": "aborted"}
WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/+-]{0,199}")
MAX_BODY = 64 * 1024

lock = Lock()
reported: dict[str, tuple[str, str]] = {}  # controllers notify more than once


def understand(body: bytes):
    """(model, stage, version, outcome) of a report; None for one that says nothing final."""
    report = json.loads(body)
    if "phase" in report:
        facts, outcome = report.get("metadata") or {}, PHASES.get(report["phase"])
        if outcome is None:
            return None
    else:
        facts, outcome = report, report.get("outcome")
    model, stage, version = (str(facts.get(key, "")) for key in ("model", "stage", "version"))
    if outcome not in ("ok", "aborted") or not all(WORD.fullmatch(word) for word in (model, stage, version)):
        raise ValueError("not a report")
    return model, stage, version, outcome


def record(model: str, stage: str, version: str, outcome: str) -> int:
    """Records it; returns an HTTP status."""
    name = f"{model}#{stage}"
    if name not in ALLOWED:
        return 403
    with lock:
        if reported.get(name) == (version, outcome):
            return 200
        command = ["git-model", "outcome", model, stage, outcome, "--version", version, "--actor", "rollout"]
        code = subprocess.run(command, cwd=REPO, check=False).returncode
        if code == 0:
            reported[name] = (version, outcome)
    # 3: git-model refuses, as for a version that is not in the stage; to ask again is no use.
    return {0: 200, 2: 400, 3: 409}.get(code, 503)


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        try:
            length = int(self.headers.get("Content-Length", 0))
            if not 0 <= length <= MAX_BODY:
                raise ValueError("too large")
            report = understand(self.rfile.read(length))
        except (ValueError, TypeError, AttributeError):
            self.answer(400)
            return
        self.answer(record(*report) if report else 200)

    def do_GET(self):
        self.answer(200 if self.path == "/healthz" else 404)

    def answer(self, status: int):
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()


if __name__ == "__main__":
    host, port = os.environ.get("REPORTER_HOST", "0.0.0.0"), int(os.environ.get("REPORTER_PORT", "8080"))
    server = ThreadingHTTPServer((host, port), Handler)
    print(f"listening on {server.server_address[1]}", flush=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        sys.exit(0)
