"""What an S3 server takes by itself: small objects sent by a load generator (wrk), which signs and reads nothing meanwhile."""

import hashlib
import hmac
import secrets
import subprocess
import sys
import time
from datetime import datetime, timezone
from pathlib import Path
from urllib.parse import quote

from lab import Lab, install, write_random
from store import REGION, Garage

CONNECTIONS = 256
# Sends each prepared request once, and says so when the last of them was answered. What wrk asks for besides is not counted: the
# first request only shows it what they look like and is not sent, and after the last it must go on.
SCRIPT = """
function init(args)
  urls, at, good = {}, -1, 0
  for line in io.lines(args[1]) do urls[#urls + 1] = line end
  bodies, size = io.open(args[2], "rb"), tonumber(args[3])
end

function request()
  at = at + 1
  if at == 0 or at > #urls then return wrk.format("GET", "/") end
  return wrk.format("PUT", urls[at], nil, bodies:read(size))
end

function response(status)
  if status ~= 200 then return end
  good = good + 1
  if good == #urls then
    print("all sent")
    io.stdout:flush()
  end
end
"""


def presigned(server: Garage, host: str, path: str, now: datetime) -> str:
    """A path and query by which anybody may PUT it (AWS Signature Version 4)."""
    day = now.strftime("%Y%m%d")
    scope = f"{day}/{REGION}/s3/aws4_request"
    fields = {
        "X-Amz-Algorithm": "AWS4-HMAC-SHA256",
        "X-Amz-Credential": f"{server.key}/{scope}",
        "X-Amz-Date": now.strftime("%Y%m%dT%H%M%SZ"),
        "X-Amz-Expires": "3600",
        "X-Amz-SignedHeaders": "host",
    }
    query = "&".join(f"{name}={quote(value, safe='')}" for name, value in fields.items())
    request = f"PUT\n{path}\n{query}\nhost:{host}\n\nhost\nUNSIGNED-PAYLOAD"
    text = f"AWS4-HMAC-SHA256\n{fields['X-Amz-Date']}\n{scope}\n{hashlib.sha256(request.encode()).hexdigest()}"
    key = f"AWS4{server.secret}".encode()
    for part in (day, REGION, "s3", "aws4_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    return f"{path}?{query}&X-Amz-Signature={hmac.digest(key, text.encode(), 'sha256').hex()}"


def find_wrk(lab: Lab) -> str | None:
    """The load generator, if it is to be had."""
    try:
        wrk = install(lab, "wrk")
    except FileNotFoundError as reason:
        lab.remarks.append(f"wrk was left out: {reason}")
        return None
    del lab.tools[wrk]  # its only way to tell its version fails
    return wrk


def send_alone(wrk: str, lab: Lab, server: Garage, port: int, count: int, size: int) -> float:
    """The seconds in which the server takes so many new objects of so many bytes."""
    bucket, now, host = server.bucket(), datetime.now(timezone.utc), f"127.0.0.1:{port}"
    names = sorted(secrets.token_hex(32) for _ in range(count))
    urls = [presigned(server, host, f"/{bucket}/{name[:2]}/{name[2:]}", now) for name in names]
    script, listed, bodies = (lab.scratch / name for name in ("requests.lua", "requests", "bodies"))
    script.write_text(SCRIPT)
    listed.write_text("\n".join(urls) + "\n")
    write_random(bodies, count * size)
    server.rest()
    command = [wrk, "-t1", f"-c{CONNECTIONS}", "-d300", "-s", script, f"http://{host}", "--", listed, bodies, str(size)]
    start = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as sender:
        sent = any("all sent" in line for line in sender.stdout)
        seconds = time.perf_counter() - start
        sender.kill()
    if not sent:
        sys.exit("wrk did not get all requests answered")
    return seconds
