"""Serves the model in a directory that `git model get` wrote. Start it with: uvicorn app:app

MODEL_DIR names the directory. Before the first request, every file that its model-info.json lists is read and compared with
its SHA-256; when one differs the process ends with an error. Then the weights are used from exactly the bytes that were
checked. Each answer names the model and its version, in the body and in the header X-Model-Version; each prediction is one
line of JSON on standard output; /metrics has an info metric to join others with.
"""

import hashlib
import json
import logging
import os
import stat
import sys
import time
import uuid
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from fastapi import FastAPI, HTTPException, Response
from pydantic import BaseModel, Field

SCHEMA = "git-model/model-info/v1"
DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2"}

log = logging.getLogger("predictions")
log.setLevel(logging.INFO)
log.propagate = False
if not log.handlers:
    log.addHandler(logging.StreamHandler(sys.stdout))


class Refused(RuntimeError):
    """The directory is not what it says it is; nothing is served from it."""


@dataclass(frozen=True)
class Model:
    info: dict
    weight: np.ndarray
    bias: float

    def predict(self, features: list[float]) -> float:
        score = float(self.weight @ np.asarray(features, dtype=np.float64) + self.bias)
        return float(0.5 * (1.0 + np.tanh(0.5 * score)))  # the logistic function, without overflow


def load(directory: Path) -> Model:
    """Checks the whole directory, then builds the model from the checked bytes."""
    info = read_info(directory)
    weights = []
    for entry in info["files"]:
        wanted = str(entry["path"]).endswith(".safetensors")
        content = check(directory, entry, keep=wanted)
        if wanted:
            weights.append(content)
    if len(weights) != 1:
        raise Refused(f"{directory}: {len(weights)} safetensors files, this service wants one")
    tensors = read_safetensors(weights[0])
    try:
        weight, bias = tensors["weight"].astype(np.float64), tensors["bias"].astype(np.float64)
    except KeyError as missing:
        raise Refused(f"the weights have no tensor {missing}") from None
    if weight.ndim != 1 or bias.size != 1:
        raise Refused("the weights are not those of a linear model")
    return Model(info, weight, float(bias.reshape(())))


def read_info(directory: Path) -> dict:
    path = directory / "model-info.json"
    try:
        info = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise Refused(f"{path}: cannot be read ({error}); git model get writes it last") from error
    if not isinstance(info, dict) or info.get("schema") != SCHEMA:
        raise Refused(f"{path}: not a document of the schema {SCHEMA}")
    if not info.get("files"):
        raise Refused(f"{path}: it lists no files, so nothing can be checked")
    return info


def check(directory: Path, entry: dict, keep: bool) -> bytes:
    """Reads a file once and compares it with its entry; returns the very bytes that were compared if `keep`."""
    name = PurePosixPath(entry["path"])
    if name.is_absolute() or ".." in name.parts:
        raise Refused(f"{name}: not a path inside of the directory")
    path = directory / name
    digest, size, kept = hashlib.sha256(), 0, []
    try:
        mode = path.lstat().st_mode
        if not stat.S_ISREG(mode):
            raise Refused(f"{path}: not a regular file")
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
                size += len(block)
                if keep:
                    kept.append(block)
    except OSError as error:
        raise Refused(f"{path}: cannot be read ({error})") from error
    if size != entry["size"] or digest.hexdigest() != entry["sha256"]:
        raise Refused(f"{path}: its SHA-256 is {digest.hexdigest()}, model-info.json says {entry['sha256']}")
    if bool(mode & 0o100) != entry.get("executable", False):
        raise Refused(f"{path}: executable or not, it is not as model-info.json says")
    return b"".join(kept)


def read_safetensors(content: bytes) -> dict[str, np.ndarray]:
    """Tensors by name: a length of 8 bytes, a JSON header, then the numbers."""
    try:
        length = int.from_bytes(content[:8], "little")
        header = json.loads(content[8 : 8 + length])
        header.pop("__metadata__", None)
        data = content[8 + length :]
        return {
            name: np.frombuffer(data[slice(*tensor["data_offsets"])], DTYPES[tensor["dtype"]]).reshape(tensor["shape"])
            for name, tensor in header.items()
        }
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Refused(f"the weights are not safetensors that this service reads ({error})") from error


def label(value: object) -> str:
    return str(value).replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def info_metric(info: dict) -> str:
    """The same labels as `git model info DIR --format prometheus`; what is not known is left out."""
    pairs = [("model_name", info["model"]), ("model_version", info.get("version")),
             ("model_digest", f"sha256:{info['digest']}"), ("model_tag", info.get("release")),
             ("git_commit", info.get("commit"))]
    if info.get("data_digest"):
        pairs.append(("model_data_digest", f"sha256:{info['data_digest']}"))
    labels = ",".join(f'{key}="{label(value)}"' for key, value in pairs if value is not None)
    return f"# HELP model_info What model this process serves.\n# TYPE model_info gauge\nmodel_info{{{labels}}} 1\n"


class Query(BaseModel):
    features: list[float] = Field(min_length=1)


def create_app(directory: Path) -> FastAPI:
    model = load(directory)
    # A commit that is no release has no version; its digest says as exactly what it is.
    version = model.info.get("version") or f"sha256:{model.info['digest']}"
    name = model.info["model"]
    app = FastAPI(title=name, version=version)
    served = {"predictions": 0}

    @app.middleware("http")
    async def say_version(request, call_next):
        response = await call_next(request)
        response.headers["X-Model-Version"] = version
        return response

    @app.post("/predict")
    def predict(query: Query) -> dict:
        if len(query.features) != model.weight.size:
            raise HTTPException(422, f"the model takes {model.weight.size} features")
        began = time.perf_counter()
        prediction = model.predict(query.features)
        served["predictions"] += 1
        request_id = str(uuid.uuid4())
        log.info(json.dumps({
            "time": time.time(), "id": request_id, "model": name, "version": version,
            "digest": model.info["digest"], "prediction": prediction,
            "milliseconds": round((time.perf_counter() - began) * 1000, 3),
        }))
        return {"id": request_id, "model": name, "version": version, "prediction": prediction}

    @app.get("/healthz")
    def healthz() -> dict:
        return {"model": name, "version": version}

    @app.get("/metrics")
    def metrics() -> Response:
        text = info_metric(model.info) + (
            "# HELP predictions_total Predictions made.\n# TYPE predictions_total counter\n"
            f"predictions_total {served['predictions']}\n"
        )
        return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")

    return app


def __getattr__(attribute: str):
    """Makes `uvicorn app:app` load the model, and importing this module for tests not."""
    if attribute == "app":
        try:
            return create_app(Path(os.environ.get("MODEL_DIR", "/models")))
        except Refused as refused:
            sys.exit(f"refused to start: {refused}")
    raise AttributeError(attribute)
