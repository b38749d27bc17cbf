"""Every TensorRT name that the code uses exists in the real bindings of each version.

The bindings are on the package index, the libraries are not. So stub libraries, which only define the symbols
that the bindings require, let the bindings be imported and inspected.
"""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import qexp

pytestmark = [pytest.mark.slow, pytest.mark.network]
FILES = ("engine.py", "build.py", "execution.py")
OWNERS = {
    "builder": "Builder",
    "config": "IBuilderConfig",
    "network": "INetworkDefinition",
    "parser": "OnnxParser",
    "profile": "IOptimizationProfile",
    "engine": "ICudaEngine",
    "_engine": "ICudaEngine",
    "context": "IExecutionContext",
    "inspector": "EngineInspector",
    "cache": "ITimingCache",
}
"""What class of TensorRT's the code's variables hold."""
OURS = {"profile": {"rows", "length"}, "context": {"stream"}, "cache": {"read_bytes"}}
"""Attributes of variables of the same name that hold something of our own."""
VERSIONS = {
    "8.6.1": ("tensorrt-bindings", "8"),
    "10.16.1.11": ("tensorrt-cu13-bindings", "10"),
    "11.4.0.106": ("tensorrt-cu13-bindings", "11"),
}
SYMBOLS = (
    "createInferBuilder_INTERNAL",
    "createInferRefitter_INTERNAL",
    "createInferRuntime_INTERNAL",
    "createNvOnnxParserRefitter_INTERNAL",
    "createNvOnnxParser_INTERNAL",
    "getBuilderPluginRegistry",
    "getNvOnnxParserVersion",
    "getPluginRegistry",
    "initLibNvInferPlugins",
    "getInferLibVersion",
    "_ZN11nvuffparser15createUffParserEv",
    "_ZN11nvuffparser8FieldMapC1EPKcPKvNS_9FieldTypeEi",
    "_ZN14nvcaffeparser117createCaffeParserEv",
    "_ZN14nvcaffeparser123shutdownProtobufLibraryEv",
)
LIBRARIES = ("libnvinfer", "libnvonnxparser", "libnvinfer_plugin", "libnvparsers")
LOOK = """
import functools, json, sys
import tensorrt_bindings as trt
names = json.load(sys.stdin)
def known(name):
    place = trt
    for part in name.split("."):
        if not hasattr(place, part):
            return False
        place = getattr(place, part)
    return True
print(json.dumps([trt.__version__, [name for name in names if not known(name)]]))
"""


def _chain(node: ast.Attribute) -> list[str]:
    parts, inner = [node.attr], node.value
    while isinstance(inner, ast.Attribute):
        parts.insert(0, inner.attr)
        inner = inner.value
    return [inner.id, *parts] if isinstance(inner, ast.Name) else []


def _names(major: int) -> list[str]:
    """What the code asks of a version, leaving out functions that are for others."""
    other = "_10" if major < 10 else "_8"
    matches: set[str] = set()
    for file in FILES:
        tree = ast.parse(
            (Path(qexp.__file__).parent / "deploy" / "runtimes" / "tensorrt" / file).read_text(
                encoding="utf-8"
            )
        )
        waiting: list[ast.AST] = [tree]
        while waiting:
            node = waiting.pop()
            if isinstance(node, ast.FunctionDef) and node.name.endswith(other):
                continue
            if isinstance(node, ast.Attribute) and (parts := _chain(node)):
                matches |= _asked(parts)
            waiting.extend(ast.iter_child_nodes(node))
    return sorted(matches)


def _asked(parts: list[str]) -> set[str]:
    if "trt" in parts[:2] or "_trt" in parts[:2]:
        start = parts.index("trt" if "trt" in parts else "_trt") + 1
        rest = parts[start:]
        return {".".join(rest)} if rest and not rest[0].startswith("__") else set()
    for index, part in enumerate(parts[:-1]):
        if part in OWNERS and parts[index + 1] not in OURS.get(part, ()):
            return {f"{OWNERS[part]}.{parts[index + 1]}"}
    return set()


@pytest.fixture(params=VERSIONS)
def bindings(request, tmp_path):
    package, major = VERSIONS[request.param]
    if shutil.which("gcc") is None:
        pytest.skip("no gcc")
    download = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--only-binary=:all:"]
    target = ["--target", str(tmp_path / "site"), f"{package}=={request.param}"]
    if subprocess.run([*download, *target], capture_output=True, check=False).returncode:
        pytest.skip(f"the package index does not give {package} {request.param}")
    source = tmp_path / "shim.c"
    source.write_text("".join(f"void *{name}(void) {{ return 0; }}\n" for name in SYMBOLS), encoding="utf-8")
    for library in LIBRARIES:
        name = f"{library}.so.{major}"
        command = ["gcc", "-shared", "-fPIC", f"-Wl,-soname,{name}", "-o", str(tmp_path / name), str(source)]
        subprocess.run(command, check=True)
    return request.param, int(major), tmp_path


def test_every_name_is_there(bindings):
    version, major, folder = bindings
    names = _names(major)
    environment = os.environ | {"LD_LIBRARY_PATH": str(folder), "PYTHONPATH": str(folder / "site")}
    done = subprocess.run(
        [sys.executable, "-c", LOOK], input=json.dumps([*names, "NoSuch.name"]), env=environment,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [version, ["NoSuch.name"]]


def test_names_are_found_at_all_and_differ_by_version():
    old, new = set(_names(8)), set(_names(10))
    both = {
        "Builder",
        "Runtime",
        "OnnxParser",
        "IExecutionContext.execute_async_v3",
        "ITimingCache.serialize",
    }
    assert both <= old & new
    assert {"BuilderFlag.INT8", "NetworkDefinitionCreationFlag.EXPLICIT_BATCH"} <= old - new
    assert "NetworkDefinitionCreationFlag.STRONGLY_TYPED" in new - old
