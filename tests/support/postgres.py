"""A PostgreSQL server for tests, with its own folder and socket. It fails if PostgreSQL is not installed."""

import os
import shutil
import subprocess
from collections.abc import Sequence
from itertools import count
from pathlib import Path

import psycopg

PROGRAM_FOLDERS = [
    Path("/usr/bin"),
    Path("/usr/local/bin"),
    *sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True),
]


class Postgres:
    """Run a server while the context lasts: as user `postgres` if the tests run as root, which PostgreSQL refuses."""

    def __init__(self, folder: Path, *, is_durable: bool = False) -> None:
        self._is_durable = is_durable
        self._bin = _find_programs()
        self._folder = folder
        self._database_numbers = count()

    def __enter__(self) -> "Postgres":
        if os.getuid() == 0:
            shutil.chown(self._folder, "postgres")
        data = self._folder / "data"
        self._run("initdb", "--auth=trust", "--username=postgres", "--no-sync", "-D", str(data))
        options = f"-c listen_addresses='' -c unix_socket_directories='{self._folder}'"
        options += "" if self._is_durable else " -c fsync=off"
        self._run("pg_ctl", "-D", str(data), "-w", "-l", str(self._folder / "log"), "-o", options, "start")
        return self

    def __exit__(self, *error: object) -> None:
        self._run("pg_ctl", "-D", str(self._folder / "data"), "-m", "immediate", "stop")

    def new_database(self) -> str:
        """Create an empty database and return its SQLAlchemy URL."""
        name = f"recoup_{next(self._database_numbers)}"
        with psycopg.connect(f"host={self._folder} user=postgres dbname=postgres", autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")  # type: ignore[call-overload]
        return f"postgresql+psycopg://postgres@/{name}?host={self._folder}"

    def _run(self, program: str, *arguments: str) -> None:
        command: Sequence[str] = [str(self._bin / program), *arguments]
        user = {"user": "postgres"} if os.getuid() == 0 else {}
        done = subprocess.run(command, cwd="/", capture_output=True, text=True, check=False, **user)  # type: ignore[call-overload]
        assert done.returncode == 0, f"{program}: {done.stderr or done.stdout}"


def _find_programs() -> Path:
    on_path = shutil.which("initdb")
    folders = [Path(on_path).resolve().parent, *PROGRAM_FOLDERS] if on_path else PROGRAM_FOLDERS
    found = next((folder for folder in folders if (folder / "initdb").exists() and (folder / "pg_ctl").exists()), None)
    assert found is not None, "PostgreSQL is not installed: run .ci/install-postgres."
    return found
