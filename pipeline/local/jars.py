"""The Java libraries of the broker, of Spark, and of Spark on S3: locked by SHA-256, cached, fetched when absent.

    python -m pipeline.local.jars fetch     download whatever the cache lacks (part of `make install`)
    python -m pipeline.local.jars list spark s3     where the jars of groups are, with commas: what spark-submit's --jars takes
    python -m pipeline.local.jars lock      maintainers: write jars.lock.json anew

A jar is used only if its SHA-256 is the locked one, at every call: verifying 44 MB takes a tenth of a second.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from pipeline.errors import HeadraceError, StackError
from pipeline.local.ivy import Coordinates, IvyError, retrieve
from pipeline.local.java import find_java
from pipeline.local.paths import CACHE_VARIABLE, cache_dir

LOCK_FILE = Path(__file__).with_name("jars.lock.json")
GROUPS = ("broker", "spark", "s3")
_OTHER_DOWNLOAD_TIMEOUT_S = 900

OnProgress = Callable[[int, int], None]  # jars downloaded, jars to download


@dataclass(frozen=True, slots=True)
class LockedJar:
    """One line of the lock."""

    coordinates: Coordinates
    sha256: str


def read_lock(path: Path = LOCK_FILE) -> dict[str, list[LockedJar]]:
    """Group -> its jars. Raises StackError when the lock cannot be read."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return {
            group: [LockedJar(Coordinates(jar["org"], jar["name"], jar["version"]), jar["sha256"]) for jar in jars]
            for group, jars in content.items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise StackError(f"the list of jars {path} cannot be read ({error}): reinstall headrace") from error


def ensure(group: str, *, on_progress: OnProgress | None = None) -> list[Path]:
    """The verified jars of ``group`` ("broker", "spark", "s3"), in the lock's order; downloads what the cache lacks.

    Without ``on_progress`` a download shows a bar on standard error, if that is a terminal. Raises StackError: no network,
    a download that is not the locked file, a cache that cannot be written. Safe to call from several processes at once.
    """
    locked = read_lock()
    if group not in locked:
        raise StackError(f"no group of jars is called {group!r}; there are {', '.join(sorted(locked))}")
    folder = cache_dir() / "jars"
    wrong = [jar for jar in locked[group] if not _verified(jar, folder)]
    if wrong:
        with _download_lock(folder):
            wrong = [jar for jar in wrong if not _verified(jar, folder)]  # another process may have done it meanwhile
            if wrong:
                _download(wrong, folder, group, on_progress)
    return [folder / jar.coordinates.file_name for jar in locked[group]]


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _verified(jar: LockedJar, folder: Path) -> bool:
    try:
        return sha256_of(folder / jar.coordinates.file_name) == jar.sha256
    except OSError:
        return False


@contextmanager
def _download_lock(folder: Path) -> Iterator[None]:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / ".lock")
        lock.acquire(timeout=_OTHER_DOWNLOAD_TIMEOUT_S)
    except Timeout as error:
        raise StackError(f"another process has been downloading into {folder} for a long time: end it, then try again") from error
    except OSError as error:
        raise StackError(f"cannot write the jar cache {folder}: {error.strerror or error}; set {CACHE_VARIABLE}") from error
    try:
        yield
    finally:
        lock.release()


def _download(wanted: Sequence[LockedJar], folder: Path, group: str, on_progress: OnProgress | None) -> None:
    """Fetch into a folder beside the cache, verify, then move each jar in whole."""
    java = find_java()
    try:
        staging = Path(tempfile.mkdtemp(prefix=".fetch-", dir=folder))
    except OSError as error:
        raise StackError(f"cannot write the jar cache {folder}: {error.strerror or error}; set {CACHE_VARIABLE}") from error
    try:
        with _progress(group, len(wanted), on_progress) as advance:
            try:
                found = retrieve(
                    java,
                    [jar.coordinates for jar in wanted],
                    staging,
                    transitive=False,
                    on_line=lambda line: advance() if "[SUCCESSFUL ]" in line else None,
                )
            except IvyError as error:
                raise StackError(_why_not(wanted, folder, error)) from error
        for jar in wanted:
            _take(jar, found.get(jar.coordinates), folder)
    except OSError as error:
        raise StackError(
            f"cannot write the jar cache {folder}: {error.strerror or error}; free space there, or set {CACHE_VARIABLE}"
        ) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _take(jar: LockedJar, fetched: Path | None, folder: Path) -> None:
    name = jar.coordinates.file_name
    if fetched is None:
        raise StackError(f"the download of {name} brought no file: try again, or report it if it stays")
    actual = sha256_of(fetched)
    if actual != jar.sha256:
        raise StackError(
            f"the downloaded {name} is not the locked file (SHA-256 {actual}, expected {jar.sha256}) and was thrown away: "
            "check what stands between this machine and the repository, then try again"
        )
    fetched.replace(folder / name)


def _why_not(wanted: Sequence[LockedJar], folder: Path, error: IvyError) -> str:
    damaged = [jar.coordinates.file_name for jar in wanted if (folder / jar.coordinates.file_name).exists()]
    missing = len(wanted) - len(damaged)
    parts = []
    if missing:
        parts.append(f"{missing} of the jars that are needed are not in the cache {folder}")
    if damaged:
        parts.append(f"{', '.join(damaged)} there differs from its locked SHA-256")
    cause = next((line.strip() for line in error.lines if "Exception" in line or "SERVER ERROR" in line), str(error).strip())
    return (
        f"{' and '.join(parts)}, and the download failed ({cause}): connect to the network, then run `make install` or this again"
    )


@contextmanager
def _progress(group: str, total: int, on_progress: OnProgress | None) -> Iterator[Callable[[], None]]:
    done = 0
    if on_progress is not None:
        report = on_progress

        def advance() -> None:
            nonlocal done
            done += 1
            report(done, total)

        yield advance
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    console = Console(stderr=True)
    columns = (TextColumn(f"Downloading the {group}'s jars"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as bar:
        task = bar.add_task("jars", total=total)
        yield lambda: bar.advance(task)


def main(arguments: Sequence[str]) -> int:
    """The maintainers' command; see the module's docstring."""
    if list(arguments) not in (["fetch"], ["lock"]) and not (arguments[:1] == ["list"] and arguments[1:]):
        sys.stderr.write("usage: python -m pipeline.local.jars fetch|list GROUP…|lock\n")
        return 2
    try:
        if arguments[0] == "list":
            sys.stdout.write(",".join(str(jar) for group in arguments[1:] for jar in ensure(group)) + "\n")
            return 0
        if arguments[0] == "lock":
            from pipeline.local.relock import relock

            counts = relock()
        else:
            counts = {group: len(ensure(group)) for group in GROUPS}
    except HeadraceError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write(f"jars: {', '.join(f'{count} for {group}' for group, count in counts.items())}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
