"""A headless Chromium, driven over a pair of pipes by its DevTools protocol."""
import base64
import json
import os
import select
import shutil
import signal
import subprocess
import tempfile
import time


class Navigated(RuntimeError):
    """The page went to another address while an expression was evaluated."""


class Page:
    def __init__(self):
        self.is_shown = False
        self.errors = []


class Browser:
    """Use it in a `with` statement: the browser and its profile end with it."""

    LIMIT = 60

    def __enter__(self):
        self.profile = tempfile.mkdtemp(prefix="site-browser-")
        to_browser, self.output = os.pipe()
        self.input, from_browser = os.pipe()
        self.log = tempfile.TemporaryFile()
        # The protocol's descriptors are 3 and 4. The pages are this project's own, and a container may allow no sandbox.
        self.process = subprocess.Popen(
            ["bash", "-c", f'exec "$0" "$@" 3<&{to_browser} 4>&{from_browser}', "chromium-headless-shell", "--headless", "--no-sandbox",
             "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars", "--remote-debugging-pipe",
             f"--user-data-dir={self.profile}", "about:blank"],
            pass_fds=(to_browser, from_browser), stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log,
            start_new_session=True)
        os.close(to_browser)
        os.close(from_browser)
        self.received, self.count, self.session, self.page = b"", 0, None, Page()
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")
        self.call("Emulation.setDeviceMetricsOverride", width=1280, height=900, deviceScaleFactor=1, mobile=False)
        return self

    def __exit__(self, *_):
        # A browser ends with its pipes. The program may be a script, so whatever is left ends with its group.
        os.close(self.output)
        os.close(self.input)
        try:
            self.process.wait(timeout=self.LIMIT)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        self.log.close()
        shutil.rmtree(self.profile, ignore_errors=True)

    def call(self, method, **parameters):
        self.count += 1
        message = {"id": self.count, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self.output, data):]
        reply = self.until(lambda message: message.get("id") == self.count, method)
        if "navigated" in reply.get("error", {}).get("message", ""):
            raise Navigated(method)
        if "error" in reply:
            raise RuntimeError(f"{method}: {reply['error']}")
        return reply["result"]

    def until(self, is_awaited, what):
        """The next message that is awaited; takes note of errors that are reported before it."""
        end = time.monotonic() + self.LIMIT
        while True:
            while b"\0" in self.received:
                data, _, self.received = self.received.partition(b"\0")
                message = json.loads(data)
                self.note(message)
                if is_awaited(message):
                    return message
            left = end - time.monotonic()
            if left <= 0 or not select.select([self.input], [], [], left)[0]:
                raise TimeoutError(f"no answer within {self.LIMIT} s: {what}")
            data = os.read(self.input, 1 << 20)
            if not data:
                self.log.seek(0)
                raise RuntimeError(f"the browser has ended:\n{self.log.read().decode()}")
            self.received += data

    def note(self, message):
        parameters = message.get("params", {})
        match message.get("method"):
            case "Runtime.exceptionThrown":
                details = parameters["exceptionDetails"]
                self.page.errors.append(details.get("exception", {}).get("description") or details["text"])
            case "Runtime.consoleAPICalled" if parameters["type"] in ("error", "assert"):
                self.page.errors.append(" ".join(str(each.get("value", each.get("description"))) for each in parameters["args"]))
            case "Log.entryAdded" if parameters["entry"]["level"] == "error":
                entry = parameters["entry"]
                self.page.errors.append(f"{entry['text']} {entry.get('url', '')}")

    def open(self, address, until):
        """Opens an address, and waits until this expression is true there, or where the page leads to."""
        self.page = Page()
        failure = self.call("Page.navigate", url=address).get("errorText")
        if failure:
            self.page.errors.append(failure)
            return self.page
        wait = f"""new Promise(resolve => {{
            const timer = setInterval(() => {{ if ({until}) {{ clearInterval(timer); resolve(); }} }}, 20);
        }})"""
        try:
            while not self.page.is_shown:
                try:
                    self.evaluate(wait)
                    self.page.is_shown = True
                except Navigated:
                    pass
        except TimeoutError as error:
            self.page.errors.append(str(error))
        return self.page

    def evaluate(self, expression):
        answer = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(answer["exceptionDetails"]["text"])
        return answer["result"].get("value")

    def screenshot(self):
        return base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"])
