"""Firefox by its own protocol: what the tests ask of it, with the standard library.

A system's Firefox speaks Marionette: messages of JSON, each with its length before it.
"""

import json
import os
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path

PROGRAMS = (
    "firefox",
    "firefox-esr",
    "/Applications/Firefox.app/Contents/MacOS/firefox",
)
PATIENCE = 60  # seconds: busy machines start slowly
QUIET = {
    "marionette.port": 0,  # one that is free
    "browser.shell.checkDefaultBrowser": False,
    "datareporting.policy.dataSubmissionEnabled": False,
    "app.update.disabledForTesting": True,
    "network.captive-portal-service.enabled": False,
    "network.connectivity-service.enabled": False,
    "dom.webgpu.enabled": False,
    "ui.prefersReducedMotion": 1,
}
# Marionette relaxes these; a reader's Firefox does not.
AS_FOR_READERS = """
    for (const name of ["dom.navigation.navigationRateLimit.count",
        "security.fileuri.strict_origin_policy"]) Services.prefs.clearUserPref(name);
"""
KEYS = {
    "ArrowDown": "\ue015",
    "ArrowRight": "\ue014",
    "ArrowUp": "\ue013",
    "End": "\ue010",
    "Enter": "\ue007",
    "Home": "\ue011",
    "Tab": "\ue004",
}
ELEMENT = "element-6066-11e4-a52e-4f735466cecf"
ERRORS = """
    const messages = Services.console.getMessageArray();
    Services.console.reset();
    return messages
        .filter(m => m instanceof Ci.nsIScriptError && !(m.flags & m.warningFlag))
        .filter(m => arguments[0].some(place => m.sourceName.startsWith(place)))
        .map(m => `${m.sourceName}:${m.lineNumber} ${m.errorMessage}`);
"""


def find_firefox() -> str | None:
    """Path of a Firefox: FIREFOX says which, else the system's."""
    return next(
        filter(
            None,
            map(shutil.which, filter(None, (os.environ.get("FIREFOX"), *PROGRAMS))),
        ),
        None,
    )


class Firefox:
    """One headless Firefox with one tab and a profile of its own."""

    def __init__(self, program: str, preferences: dict | None = None):
        """Start it, with preferences in place of the usual, until it listens."""
        self.profile = Path(tempfile.mkdtemp(prefix="firefox-"))
        chosen = QUIET | (preferences or {})
        lines = (
            f"user_pref({json.dumps(k)}, {json.dumps(v)});" for k, v in chosen.items()
        )
        (self.profile / "user.js").write_text("\n".join(lines))
        flags = ["--headless", "--no-remote", "--marionette"]
        flags += ["--remote-allow-system-access", "--profile", str(self.profile)]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self.process = subprocess.Popen([program, *flags], **quiet)
        self.count, self.socket = (
            0,
            socket.create_connection(("127.0.0.1", self._port()), timeout=PATIENCE),
        )
        self._receive()
        self.version = self.ask("NewSession")["capabilities"]["browserVersion"]
        self.run_inside(AS_FOR_READERS)

    def _port(self) -> int:
        file = self.profile / "MarionetteActivePort"
        for _ in range(PATIENCE * 10):
            if file.exists() and file.read_text():
                return int(file.read_text())
            time.sleep(0.1)
        self.process.kill()
        raise TimeoutError("Firefox did not start")

    def _receive(self):
        size = b""
        while not size.endswith(b":"):
            size += self.socket.recv(1)
        data = b""
        while len(data) < int(size[:-1]):
            data += self.socket.recv(int(size[:-1]) - len(data))
        return json.loads(data)

    def ask(self, command: str, **arguments):
        """Send a command and return its answer."""
        self.count += 1
        name = command if ":" in command else f"WebDriver:{command}"
        data = json.dumps([0, self.count, name, arguments]).encode()
        self.socket.sendall(str(len(data)).encode() + b":" + data)
        _, _, error, answer = self._receive()
        if error:
            raise RuntimeError(f"{command}: {error['message']}")
        return answer

    def open(self, address: str, width: int = 1280) -> None:
        """Load a page."""
        self.ask("SetWindowRect", width=width, height=900)
        self.ask("Navigate", url=address)

    def run(self, script: str, *arguments):
        """Run a function's body in the page; a promise is waited for."""
        return self.ask("ExecuteScript", script=script, args=list(arguments))["value"]

    def run_inside(self, script: str, *arguments):
        """Run a function's body in the browser itself, outside of its page."""
        self.ask("Marionette:SetContext", value="chrome")
        try:
            return self.run(script, *arguments)
        finally:
            self.ask("Marionette:SetContext", value="content")

    def find(self, selector: str) -> list[str]:
        """Elements of the page."""
        found = self.ask("FindElements", using="css selector", value=selector)
        return [element[ELEMENT] for element in found]

    def press(self, element: str, key: str) -> None:
        """Press a key where an element has the focus."""
        self.ask("ElementSendKeys", id=element, text=KEYS.get(key, key))

    def type(self, *words: str) -> None:
        """Press and let go of keys where the focus is: named ones, or all of a text."""
        keys = [key for word in words for key in KEYS.get(word, word)]
        strokes = [
            {"type": kind, "value": key}
            for key in keys
            for kind in ("keyDown", "keyUp")
        ]
        source = {"type": "key", "id": "keyboard", "actions": strokes}
        self.ask("PerformActions", actions=[source])

    def click(self, element: str) -> None:
        """Click on an element."""
        self.ask("ElementClick", id=element)

    def wait_for(self, condition: str, *arguments) -> None:
        """Wait until an expression of the page is true."""
        for _ in range(PATIENCE * 5):
            if self.run(f"return Boolean({condition})", *arguments):
                return
            time.sleep(0.2)
        raise TimeoutError(condition)

    def errors(self, *places: str) -> list[str]:
        """Script errors so far, of pages whose addresses begin so, and forget them."""
        return self.run_inside(ERRORS, places)

    def close(self) -> None:
        """End the program and remove its profile."""
        self.process.terminate()
        self.process.wait(PATIENCE)
        self.socket.close()
        shutil.rmtree(self.profile, ignore_errors=True)
