"""Writes a small model with the layers `body` (2 x 3) and `head` (4) in a format of weights: weights.py FORMAT FILE HEAD.

Every format is put together here as its own specification says; `head` holds the number HEAD four times.
"""

import io
import pickle
import struct
import sys
import types
import zipfile
from collections import OrderedDict

BODY = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]


def floats(values):
    return struct.pack(f"<{len(values)}f", *values)


def gguf(layers):
    def text(value):
        return struct.pack("<Q", len(value)) + value.encode()

    metadata = text("general.architecture") + struct.pack("<I", 8) + text("bert")
    infos, data = b"", b""
    for name, shape, values in layers:
        data += bytes(-len(data) % 32)
        infos += text(name) + struct.pack("<I", len(shape))
        infos += b"".join(struct.pack("<Q", size) for size in reversed(shape)) + struct.pack("<IQ", 0, len(data))
        data += floats(values)
    head = b"GGUF" + struct.pack("<IQQ", 3, len(layers), 1) + metadata + infos
    return head + bytes(-len(head) % 32) + data + bytes(-len(data) % 32)


def onnx(layers):
    def varint(value):
        out = b""
        while value > 127:
            out, value = out + bytes([value & 127 | 128]), value >> 7
        return out + bytes([value])

    def number(field, value):
        return varint(field << 3) + varint(value)

    def field(at, value):
        return varint(at << 3 | 2) + varint(len(value)) + value

    graph = field(2, b"graph")
    for name, shape, values in layers:
        tensor = b"".join(number(1, size) for size in shape) + number(2, 1)
        graph += field(5, tensor + field(8, name.encode()) + field(9, floats(values)))
    opset = field(1, b"") + number(2, 17)
    return number(1, 8) + field(2, b"by hand") + field(7, graph) + field(8, opset)


def npz(layers):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, shape, values in layers:
            header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {tuple(shape)}, }}"
            header += " " * (-(len(header) + 11) % 64) + "\n"
            magic = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header))
            archive.writestr(f"{name}.npy", magic + header.encode() + floats(values))
    return out.getvalue()


class Tensor:
    def __init__(self, key, shape, values):
        self.key, self.shape, self.values = key, tuple(shape), values

    def __reduce_ex__(self, protocol):
        strides, step = [], 1
        for size in reversed(self.shape):
            strides.insert(0, step)
            step *= size
        storage = Storage(self)
        return rebuild, (storage, 0, self.shape, tuple(strides), False, OrderedDict())


class Storage:
    def __init__(self, tensor):
        self.tensor = tensor


class Pickler(pickle.Pickler):
    def persistent_id(self, value):
        if isinstance(value, Storage):
            kind = sys.modules["torch"].FloatStorage
            return "storage", kind, value.tensor.key, "cpu", len(value.tensor.values)
        return None


def rebuild(*_):
    raise AssertionError("nothing is ever unpickled")


def torch(layers):
    """What torch.save writes for a state dict, without torch: its names are what counts."""
    modules = {name: types.ModuleType(name) for name in ("torch", "torch._utils")}
    sys.modules.update(modules)
    kind = type("FloatStorage", (), {"__module__": "torch"})
    modules["torch"].FloatStorage = kind
    modules["torch"]._utils = modules["torch._utils"]
    rebuild.__module__, rebuild.__qualname__, rebuild.__name__ = "torch._utils", "_rebuild_tensor_v2", "_rebuild_tensor_v2"
    modules["torch._utils"]._rebuild_tensor_v2 = rebuild
    state, pickled, out = OrderedDict(), io.BytesIO(), io.BytesIO()
    for key, (name, shape, values) in enumerate(layers):
        state[name] = Tensor(str(key), shape, values)
    Pickler(pickled, 2).dump(state)
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:

        def put(name, content):
            entry = zipfile.ZipInfo(f"archive/{name}")
            # Contents start at multiples of 64, which a field of padding sees to.
            padding = -(archive.fp.tell() + 30 + len(entry.filename) + 4) % 64
            entry.extra = b"FB" + struct.pack("<H", padding) + b"Z" * padding
            archive.writestr(entry, content)

        put("data.pkl", pickled.getvalue())
        put("byteorder", b"little")
        for key, (_, _, values) in enumerate(layers):
            put(f"data/{key}", floats(values))
        put("version", b"3\n")
    return out.getvalue()


def main():
    form, file, head = sys.argv[1:]
    layers = [("body", [2, 3], BODY), ("head", [4], [float(head)] * 4)]
    with open(file, "wb") as out:
        out.write({"gguf": gguf, "onnx": onnx, "npz": npz, "torch": torch}[form](layers))


main()
