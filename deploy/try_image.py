"""Build and run the image without a container engine: as root, on Debian with debootstrap.

    python deploy/try_image.py

Runs each instruction of the Dockerfile in a folder instead of a layer. In place of the base image
is Debian with its own Python, in var/try-image/. Then starts the image twice as its user, as
process 1, with a read-only root and /data, against the sandbox of the same image: it has to become
ready, sign its first administrator in, stream, and end within seconds of SIGTERM. What this cannot
show: the base image, layers, the network of containers, and how an engine reads the Dockerfile.
"""

import http.client
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from fnmatch import fnmatch
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "bench"))
from processes import ROOT, Browser, wait_for

WORK = ROOT / "var" / "try-image"
BASE, DATA, SECRETS, LOG = (WORK / name for name in ("base", "data", "secrets", "log"))
PACKAGES = "python3,python3-venv,ca-certificates"
PORT, SANDBOX_PORT = 8180, 8181
# How this machine reaches the package registry.
NETWORK_FILES = (Path("/etc/ssl/certs/ca-certificates.crt"), Path("/etc/resolv.conf"))
NETWORK_VARIABLES = {"PIP_INDEX_URL", "HTTPS_PROXY"} & os.environ.keys()
PASSWORD = "correct-horse-battery"
# One of each kind of file that a page needs.
PAGES = ("/", "/help/guide/", "/help/api/", "/static/dashboard.css")


class Image:
    """The stages of the Dockerfile as folders, and what the last one says about running it."""

    def __init__(self) -> None:
        self.folders: dict[str, Path] = {}
        self.folder, self.workdir, self.user = BASE, "/", "0:0"
        self.variables: dict[str, str] = {}
        self.commands: dict[str, list[str]] = {}

    def build(self) -> None:
        text = re.sub(r"^#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE)
        for line in re.sub(r"\\\n", " ", text).splitlines():
            if line.strip():
                name, _, rest = line.strip().partition(" ")
                print(f"{name} {' '.join(rest.split())[:90]}", flush=True)
                getattr(self, f"_{name.lower()}")(rest.strip())

    def _from(self, rest: str) -> None:
        name = rest.split()[2] if " AS " in rest else "image"
        self.folder, self.workdir, self.user = WORK / name, "/", "0:0"
        self.variables = {"PATH": "/usr/local/bin:/usr/bin:/bin"}
        self.folders[name] = self.folder
        shutil.rmtree(self.folder, ignore_errors=True)
        subprocess.run(["cp", "-a", "--reflink=auto", BASE, self.folder], check=True)

    def _run(self, rest: str) -> None:
        network = {name: os.environ[name] for name in NETWORK_VARIABLES}
        script = f"{self._mounts()}; {self._chroot(rest)}"
        unshare = ["unshare", "--mount", "sh", "-ec", script]
        subprocess.run(unshare, env=network | self.variables, check=True)

    def _copy(self, rest: str) -> None:
        *options, source, target = rest.split()
        destination = (
            self.folder / (self.workdir + "/" + target if target[0] != "/" else target)[1:]
        )
        if options:
            stage = self.folders[options[0].removeprefix("--from=")]
            subprocess.run(["cp", "-a", stage / source[1:], destination], check=True)
            return
        for path in context():
            if source == "." or str(path) == source:
                file = destination / (path if source == "." else path.name)
                file.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / path, file)

    def _workdir(self, rest: str) -> None:
        self.workdir = rest
        (self.folder / rest[1:]).mkdir(exist_ok=True)

    def _env(self, rest: str) -> None:
        for pair in shlex.split(rest):
            name, _, value = pair.partition("=")
            self.variables[name] = value.replace("$PATH", self.variables["PATH"])

    def _user(self, rest: str) -> None:
        self.user = rest

    def _healthcheck(self, rest: str) -> None:
        self.commands["HEALTHCHECK"] = json.loads(rest.partition(" CMD ")[2])

    def _entrypoint(self, rest: str) -> None:
        self.commands["ENTRYPOINT"] = json.loads(rest)

    def _cmd(self, rest: str) -> None:
        self.commands["CMD"] = json.loads(rest)

    def _nothing(self, rest: str) -> None:
        """What only an engine acts on."""

    _arg = _label = _volume = _expose = _stopsignal = _nothing

    def _mounts(self) -> str:
        return f"mount --bind /dev {self.folder}/dev; mount -t proc proc {self.folder}/proc"

    def _chroot(self, script: str) -> str:
        shell = f"/bin/sh -c {shlex.quote(f'cd {self.workdir} && {script}')}"
        return f"exec /usr/sbin/chroot --userspec={self.user} {self.folder} {shell}"

    def start(self, command: list[str], **variables: str) -> subprocess.Popen[bytes]:
        """Start a command as process 1 of a container with a read-only root and /data."""
        folder = self.folder
        script = (
            f"mount --bind {folder} {folder}; {self._mounts()}; mount --bind {DATA} {folder}/data; "
            f"mount --bind {SECRETS} {folder}/mnt; mount -o remount,ro,bind {folder}; "
            + self._chroot(f"exec {shlex.join(command)}")
        )
        unshare = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-ec", script]
        with LOG.open("ab") as log:
            return subprocess.Popen(unshare, env=self.variables | variables, stderr=log)

    def serve(self, variables: dict[str, str]) -> subprocess.Popen[bytes]:
        """Start what the image starts by itself."""
        return self.start(self.commands["ENTRYPOINT"] + self.commands["CMD"], **variables)


def context() -> list[Path]:
    """Return the files that .dockerignore lets into the build; of its syntax, what ours uses."""
    patterns = re.findall(r"^!(.+)$", (ROOT / ".dockerignore").read_text(), re.MULTILINE)
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    files = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return [
        Path(file)
        for file in files.splitlines()
        if any(fnmatch(file, pattern) or file.startswith(f"{pattern}/") for pattern in patterns)
    ]


def make_base() -> None:
    if not (BASE / "usr/local/bin/python").is_symlink():
        shutil.rmtree(BASE, ignore_errors=True)
        options = ("--variant=minbase", f"--include={PACKAGES}")
        subprocess.run(["debootstrap", *options, "trixie", BASE], check=True)
        (BASE / "usr/local/bin/python").symlink_to("/usr/bin/python3")
    for file in NETWORK_FILES:
        shutil.copy(file, BASE / str(file)[1:])


def is_ready() -> bool:
    client = http.client.HTTPConnection("127.0.0.1", PORT, timeout=5)
    try:
        client.request("GET", "/readyz")
        return client.getresponse().status == 200
    except OSError:
        return False


def stop(process: subprocess.Popen[bytes]) -> float:
    """Send SIGTERM to process 1; return the seconds until it has ended, without an error."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    started = time.monotonic()
    os.kill(int(children[0]), signal.SIGTERM)
    assert process.wait(30) == 0, f"ended with {process.returncode}"
    return time.monotonic() - started


def try_run(image: Image, variables: dict[str, str], password: str) -> None:
    started = time.monotonic()
    process = image.serve(variables)
    wait_for(lambda: process.poll() is not None or is_ready(), "/readyz", 0.1)
    assert process.poll() is None, f"did not start: {LOG.read_text()[-2000:]}"
    print(f"ready after {time.monotonic() - started:.1f} s")
    health = image.start(image.commands["HEALTHCHECK"], **variables)
    assert health.wait(10) == 0, "HEALTHCHECK fails"
    browser = Browser(f"http://127.0.0.1:{PORT}")
    assert browser.request("/accounts/login/").status == 200
    response = browser.request("/accounts/login/", {"username": "admin", "password": password})
    assert response.status == 302, f"sign-in: {response.status}"
    statuses = {path: browser.request(path).status for path in PAGES}
    assert statuses == dict.fromkeys(PAGES, 200), statuses
    page = browser.request("/")
    [stream_url] = re.findall(r'(/live/[^"]+)"', page.text)[:1]
    cookie = "; ".join(f"{name}={value}" for name, value in browser.cookies.items())
    stream = http.client.HTTPConnection("127.0.0.1", PORT, timeout=30)
    stream.request("GET", stream_url.replace("&amp;", "&"), headers={"Cookie": cookie})
    events = stream.getresponse()
    assert events.status == 200
    assert events.read(1), "the stream sends nothing"
    seconds = stop(process)
    events.read()  # to its end: it was closed, not cut off
    print(f"signed in; stream open; SIGTERM: status 0 after {seconds:.1f} s, stream ended")


def main() -> None:
    """Build, run, and say what was seen; raise at the first that is wrong."""
    WORK.mkdir(parents=True, exist_ok=True)
    make_base()
    image = Image()
    image.build()
    subprocess.run(["du", "-shc", image.folder / "app", image.folder / "venv"], check=True)
    LOG.unlink(missing_ok=True)
    for folder in (DATA, SECRETS):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
    user, _, group = image.user.partition(":")
    os.chown(DATA, int(user), int(group))  # as an engine does with a new volume
    for name, secret in {"token": "sandbox", "password": PASSWORD}.items():
        (SECRETS / name).write_text(f"{secret}\n")
    sandbox = image.start([*image.commands["ENTRYPOINT"], "sandbox", "--port", str(SANDBOX_PORT)])
    variables = {
        "NORTHFLANK_API_TOKEN_FILE": "/mnt/token",
        "NORTHFLANK_API_BASE_URL": f"http://127.0.0.1:{SANDBOX_PORT}",
        "ADMIN_PASSWORD_FILE": "/mnt/password",
        "PORT": str(PORT),
    }
    unsafe = image.serve(variables | {"ALLOWED_HOSTS": "example.com"})
    assert unsafe.wait(30) == 1, "started with unsafe settings"
    assert "dashboard.W003" in LOG.read_text()
    print("refused: other machines by plain HTTP")
    touch = image.start(["touch", "/app/x"])
    assert touch.wait(10) == 1, "the root can be written"
    try_run(image, variables, PASSWORD)
    (SECRETS / "password").write_text("another-password\n")
    try_run(image, variables, PASSWORD)  # the account is there already
    stop(sandbox)
    subprocess.run(["ls", "-ln", DATA], check=True)


if __name__ == "__main__":
    main()
