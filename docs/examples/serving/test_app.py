"""Shows the service on a tiny model directory, as `git model get` would write it: pytest docs/examples/serving"""

import hashlib
import json
import sys

import numpy as np
import pytest
from fastapi.testclient import TestClient

import app as service


def safetensors(tensors: dict[str, list[float]]) -> bytes:
    header, data = {}, b""
    for name, values in tensors.items():
        content = np.asarray(values, "<f4").tobytes()
        header[name] = {"dtype": "F32", "shape": [len(values)], "data_offsets": [len(data), len(data) + len(content)]}
        data += content
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


@pytest.fixture
def directory(tmp_path):
    files = {
        "m/weights.safetensors": safetensors({"weight": [1.0, -2.0], "bias": [0.5]}),
        "src/pre.py": b"print('one')\n",
    }
    entries = []
    for name, content in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        entries.append({"path": name, "sha256": hashlib.sha256(content).hexdigest(), "size": len(content)})
    info = {
        "schema": "git-model/model-info/v1", "model": "churn", "version": "1.4.0", "release": "churn@v1.4.0",
        "digest": "c3" * 32, "commit": "b3" * 20, "data_digest": None, "files": entries,
    }
    (tmp_path / "model-info.json").write_text(json.dumps(info))
    return tmp_path


@pytest.fixture
def client(directory):
    return TestClient(service.create_app(directory))


def change_info(directory, **changes):
    path = directory / "model-info.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_a_prediction_says_what_made_it(client, capsys):
    service.log.handlers[0].setStream(sys.stdout)
    answer = client.post("/predict", json={"features": [2.0, 1.0]})
    assert answer.status_code == 200
    body = answer.json()
    assert (body["model"], body["version"]) == ("churn", "1.4.0")
    assert body["prediction"] == pytest.approx(1 / (1 + np.exp(-0.5)))
    assert answer.headers["X-Model-Version"] == "1.4.0"
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1
    logged = json.loads(lines[0])
    assert (logged["model"], logged["version"], logged["id"]) == ("churn", "1.4.0", body["id"])


def test_metrics_say_what_is_served(client):
    text = client.get("/metrics").text
    digest = "c3" * 32
    assert f'model_info{{model_name="churn",model_version="1.4.0",model_digest="sha256:{digest}",' in text
    assert 'model_tag="churn@v1.4.0",git_commit="' in text and 'data_digest' not in text
    assert '"} 1\n' in text and text.endswith("predictions_total 0\n")


def test_a_wrong_request_names_the_version_too(client):
    answer = client.post("/predict", json={"features": [1.0]})
    assert answer.status_code == 422 and answer.headers["X-Model-Version"] == "1.4.0"


@pytest.mark.parametrize("name", ["m/weights.safetensors", "src/pre.py"])
def test_one_changed_byte_is_refused(directory, name):
    path = directory / name
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(service.Refused, match="its SHA-256 is"):
        service.create_app(directory)


def test_a_directory_that_is_not_complete_is_refused(directory):
    (directory / "src/pre.py").unlink()
    with pytest.raises(service.Refused, match="cannot be read"):
        service.create_app(directory)
    (directory / "model-info.json").unlink()
    with pytest.raises(service.Refused, match="writes it last"):
        service.create_app(directory)


def test_paths_stay_inside(directory):
    entry = {"path": "../x", "sha256": "0" * 64, "size": 0}
    change_info(directory, files=[entry])
    with pytest.raises(service.Refused, match="not a path inside"):
        service.create_app(directory)


def test_another_schema_is_refused(directory):
    change_info(directory, schema="git-model/model-info/v2")
    with pytest.raises(service.Refused, match="schema"):
        service.create_app(directory)
