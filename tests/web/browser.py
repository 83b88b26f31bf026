"""The browser that the tests of this folder drive; as a program: install one where it may.

usage: python tests/web/browser.py
"""

import os
import shutil
import subprocess
import sys

NAMES = ("chromium", "chromium-browser", "google-chrome")
PACKAGE = "chromium"
MISSING = f"no browser: install {PACKAGE}, or set FTLEARN_BROWSER to the path of one"
# Nothing is asked of the network, and no name but the loopback's is ever looked up.
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-sync",
    "--disable-background-networking",
    "--disable-component-update",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
]


def find():
    """Path of the browser: the one that FTLEARN_BROWSER names, else the first on PATH, or None."""
    if named := os.environ.get("FTLEARN_BROWSER"):
        if not (path := shutil.which(named)):
            raise ValueError(
                f"FTLEARN_BROWSER is {named!r}, which is no program: correct or unset it."
            )
        return path
    return next((path for name in NAMES if (path := shutil.which(name))), None)


def privilege():
    """What goes before a command that needs root: nothing, sudo without a password, or None."""
    if os.geteuid() == 0:
        return []
    asks_nothing = (
        shutil.which("sudo")
        and subprocess.run(["sudo", "-n", "true"], capture_output=True).returncode == 0
    )
    return ["sudo", "-n"] if asks_nothing else None


def install():
    """Install Debian's chromium; return whether it is there now."""
    before = privilege()
    if before is None or not shutil.which("apt-get"):
        return False
    silent = ["env", "DEBIAN_FRONTEND=noninteractive"]
    get = [*before, *silent, "apt-get", "-qq", "-y", "--no-install-recommends"]
    subprocess.run([*get, "update"], check=False)
    done = subprocess.run([*get, "install", PACKAGE], check=False)
    return done.returncode == 0 and find() is not None


if __name__ == "__main__":
    if find():
        print(f"browser: {find()}")
    elif install():
        print(f"browser installed: {find()}")
    else:
        print(f"{MISSING}; its tests are skipped until then.")
    sys.exit(0)
