"""A PostgreSQL server for tests, in a folder of its own, on a socket of its own. It fails where there is none."""

import os
import shutil
import subprocess
from collections.abc import Sequence
from itertools import count
from pathlib import Path

import psycopg

PLACES = [Path("/usr/bin"), Path("/usr/local/bin"), *sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)]


class Postgres:
    """A server while the context lasts. As root it runs as `postgres`, since PostgreSQL refuses to run as root."""

    def __init__(self, folder: Path, *, is_durable: bool = False) -> None:
        self._is_durable = is_durable
        self._bin = _programs()
        self._folder = folder
        self._numbers = count()

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
        """The address of an empty database, as SQLAlchemy writes it."""
        name = f"recoup_{next(self._numbers)}"
        with psycopg.connect(f"host={self._folder} user=postgres dbname=postgres", autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")  # type: ignore[call-overload]
        return f"postgresql+psycopg://postgres@/{name}?host={self._folder}"

    def _run(self, program: str, *arguments: str) -> None:
        command: Sequence[str] = [str(self._bin / program), *arguments]
        user = {"user": "postgres"} if os.getuid() == 0 else {}
        done = subprocess.run(command, cwd="/", capture_output=True, text=True, check=False, **user)  # type: ignore[call-overload]
        assert done.returncode == 0, f"{program}: {done.stderr or done.stdout}"


def _programs() -> Path:
    on_path = shutil.which("initdb")
    places = [Path(on_path).resolve().parent, *PLACES] if on_path else PLACES
    found = next((place for place in places if (place / "initdb").exists() and (place / "pg_ctl").exists()), None)
    assert found is not None, "No PostgreSQL server is installed; .ci/install-postgres installs one."
    return found
