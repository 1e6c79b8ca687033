"""A class's JupyterHub, on this computer: a real hub, two users, a link, a chapter.

`make hub` installs it into .hub and runs this; without it, this is skipped.
"""

import json
import os
import subprocess
import sys
import time
import uuid
from http.cookiejar import CookieJar
from urllib.error import HTTPError, URLError
from urllib.parse import parse_qs, urlencode, urlsplit
from urllib.request import HTTPCookieProcessor, Request, build_opener

import nbformat
import pytest
from conftest import ROOT, free_ports
from tornado.httpclient import HTTPRequest
from tornado.ioloop import IOLoop
from tornado.websocket import websocket_connect

sys.path.insert(0, str(ROOT / "scripts"))
import colab
import hub_links

HUB = ROOT / ".hub" / "bin" / "jupyterhub"
PROXY = ROOT / ".hub" / "node_modules" / ".bin" / "configurable-http-proxy"
REPOSITORY = "https://github.com/someone/attn_tutorial"
CHAPTER = "self_attention"
PASSWORD = "windows, blocks and tiles"

pytestmark = pytest.mark.skipif(
    not (HUB.exists() and PROXY.exists()), reason="no JupyterHub here: run 'make hub'"
)


class Visitor:
    """Somebody with a browser's cookies and, once logged in, a token."""

    def __init__(self, address: str):
        self.address, self.jar, self.token = address, CookieJar(), None
        self.opener = build_opener(HTTPCookieProcessor(self.jar))

    def ask(self, path: str, data: bytes | None = None, **headers: str) -> str:
        """What a request answers; POST if there is data."""
        if self.token:
            headers["Authorization"] = f"token {self.token}"
        address = path if "://" in path else self.address + path
        with self.opener.open(Request(address, data, headers), timeout=120) as answer:
            return answer.read().decode()

    def xsrf(self) -> str:
        """What the hub wants back from a form that it sent."""
        found = [x.value for x in self.jar if (x.name, x.path) == ("_xsrf", "/hub/")]
        return found[0]

    def send(self, path: str, **form: str) -> str:
        """Fill in a form of the hub."""
        self.ask(path)
        return self.ask(path, urlencode({**form, "_xsrf": self.xsrf()}).encode())

    def api(self, path: str, body: dict | None = None) -> dict:
        """Ask one of the APIs; POST if there is a body."""
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"}
        headers |= {} if self.token else {"X-XSRFToken": self.xsrf()}
        return json.loads(self.ask(path, data, **headers) or "{}")

    def sign_up(self, name: str) -> None:
        """Choose a name and a password."""
        again = {"signup_password": PASSWORD, "signup_password_confirmation": PASSWORD}
        self.send("/hub/signup", username=name, **again)

    def log_in(self, name: str) -> None:
        """Log in, and take a token for the APIs."""
        self.send("/hub/login", username=name, password=PASSWORD)
        self.ask("/hub/token")
        self.token = self.api(f"/hub/api/users/{name}/tokens", {})["token"]


def write_kernel(folder) -> None:
    """A kernel of this environment, in which the package is not installed."""
    startup = folder / "ipython/profile_default/startup"
    startup.mkdir(parents=True)
    (startup / "hidden.py").write_text(colab.HIDDEN)
    place = folder / "jupyter/kernels/python3"
    place.mkdir(parents=True)
    start = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    known = {"IPYTHONDIR": str(folder / "ipython"), "PYTHONPATH": ""}
    kernel = {"argv": start, "display_name": "x", "language": "python", "env": known}
    (place / "kernel.json").write_text(json.dumps(kernel))


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    """The address of a running hub; what it writes goes into a folder."""
    folder = tmp_path_factory.mktemp("hub")
    repository = colab.stand_in(folder / "repository")
    write_kernel(folder)
    port = free_ports(3)
    known = {
        **os.environ,
        "PATH": f"{HUB.parent}{os.pathsep}{os.environ['PATH']}",
        "HUB_FOLDER": str(folder),
        "HUB_PORT": str(port),
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": f"url.{repository.as_uri()}.insteadOf",
        "GIT_CONFIG_VALUE_0": REPOSITORY,
    }
    known.pop("PYTHONPATH", None)
    command = [HUB, "-f", ROOT / "tests/hub_config.py"]
    log = (folder / "log.txt").open("w")
    server = subprocess.Popen(command, env=known, cwd=folder, stdout=log, stderr=log)
    try:
        yield wait_for(f"http://127.0.0.1:{port}", server, folder / "log.txt")
    finally:
        server.terminate()
        server.wait(60)
        log.close()


def wait_for(address: str, server: subprocess.Popen, log) -> str:
    """Give the hub a minute to answer."""
    for _ in range(120):
        try:
            build_opener().open(f"{address}/hub/health", timeout=5).close()
            return address
        except (URLError, ConnectionError):
            if server.poll() is not None:
                break
            time.sleep(0.5)
    pytest.fail(f"the hub did not start:\n{log.read_text()[-3000:]}")


@pytest.fixture(scope="module")
def student(hub):
    """A student whom the teacher has let in, and whose server runs."""
    teacher, student = Visitor(hub), Visitor(hub)
    teacher.sign_up("teacher")
    student.sign_up("ada")
    with pytest.raises(HTTPError):
        Visitor(hub).log_in("ada")  # not yet
    teacher.log_in("teacher")
    assert "ada" in teacher.ask("/hub/authorize")
    teacher.ask("/hub/authorize/ada")
    student.log_in("ada")
    student.api("/hub/api/users/ada/server", {})
    for _ in range(120):
        if (
            student.api("/hub/api/users/ada")
            .get("servers", {})
            .get("", {})
            .get("ready")
        ):
            return student
        time.sleep(0.5)
    pytest.fail("the student's server did not start")


@pytest.fixture(scope="module")
def pulled(student):
    """What following a chapter's link brings: the place that it opens."""
    link = hub_links.link(student.address, REPOSITORY, "main", CHAPTER)
    token, student.token = student.token, None
    page = student.ask(link)
    student.token = token
    assert "git-pull" in page and REPOSITORY in page
    wanted = parse_qs(urlsplit(link).query)
    asked = urlencode({"repo": REPOSITORY, "branch": wanted["branch"][0]})
    events = student.ask(f"/user/ada/git-pull/api?{asked}", Accept="text/event-stream")
    assert '"phase": "finished"' in events, events
    return wanted["urlpath"][0].removeprefix("lab/tree/")


def test_a_link_brings_the_chapter(student, pulled):
    assert pulled == f"attn_tutorial/notebooks/{CHAPTER}.ipynb"
    found = student.api(f"/user/ada/api/contents/{pulled}?content=0")
    assert found["type"] == "notebook"


def message(kind: str, **content: object) -> dict:
    """A message to a kernel."""
    header = {"msg_id": uuid.uuid4().hex, "msg_type": kind, "version": "5.3"}
    header |= {"username": "ada", "session": "class", "date": "2026-01-01T00:00:00Z"}
    parts = {"parent_header": {}, "metadata": {}, "channel": "shell"}
    return {"header": header, "content": content, **parts}


async def run_cells(address: str, token: str, sources: list[str]) -> list[str]:
    """Run cells by a kernel's channels; return what each printed.

    Raises:
        AssertionError: If a cell fails.
    """
    known = {"Authorization": f"token {token}"}
    printed = []
    kernel = await websocket_connect(HTTPRequest(address, headers=known))
    for source in sources:
        asked = message("execute_request", code=source, silent=False)
        await kernel.write_message(json.dumps(asked))
        printed.append(await answers(kernel, asked["header"]["msg_id"]))
    kernel.close()
    return printed


async def answers(kernel, asked: str) -> str:
    """What is printed until the kernel is idle again."""
    text = ""
    while True:
        said = json.loads(await kernel.read_message())
        if said["parent_header"].get("msg_id") != asked:
            continue
        kind, content = said["msg_type"], said["content"]
        assert kind != "error", "\n".join(content["traceback"])
        text += content["text"] if kind == "stream" else ""
        if kind == "status" and content["execution_state"] == "idle":
            return text


def test_a_chapter_runs_on_the_student_s_server(student, pulled):
    kernel = {"path": pulled, "name": CHAPTER, "type": "notebook",
              "kernel": {"name": "python3"}}  # fmt: skip
    session = student.api("/user/ada/api/sessions", kernel)
    place = f"/user/ada/api/kernels/{session['kernel']['id']}/channels"
    notebook = nbformat.read(ROOT / f"notebooks/{CHAPTER}.ipynb", as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    sources = [cell.source for cell in code] + [colab.WHERE]
    address = student.address.replace("http", "ws", 1) + place
    printed = IOLoop().run_sync(lambda: run_cells(address, student.token, sources))
    assert "homes/ada/attn_tutorial/attn_tutorial/__init__.py" in printed.pop()
    for cell, text in zip(code, printed, strict=True):
        stored = [o.text for o in cell.outputs if o.output_type == "stream"]
        assert text == "".join(stored)
