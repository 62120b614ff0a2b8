#!/usr/bin/env python3
"""Leads Chromium through the pages of passkeys: drive.py PORT E-MAIL PASSWORD.

PORT is where the Identity Service answers without TLS. This ends TLS before it and tells the browser that the host of the
Platform is here. Whatever is not as it should be is an exception, and so the exit code.
"""
import base64
import contextlib
import hashlib
import http.client
import json
import os
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time

HOST = "acme.platform.localhost"
BASE = f"https://{HOST}:8443/identity"
WAIT_S = 60


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def certificate(where):
    """Key and certificate of the host, and the mark by which the browser trusts it."""
    key, cert = os.path.join(where, "key.pem"), os.path.join(where, "cert.pem")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
         "-subj", f"/CN={HOST}", "-addext", f"subjectAltName=DNS:{HOST}", "-keyout", key, "-out", cert],
        check=True, capture_output=True)
    public = subprocess.run(["openssl", "x509", "-in", cert, "-pubkey", "-noout"], check=True, capture_output=True)
    der = subprocess.run(["openssl", "pkey", "-pubin", "-outform", "der"], input=public.stdout, check=True,
                         capture_output=True)
    return key, cert, base64.b64encode(hashlib.sha256(der.stdout).digest()).decode()


def carry(source, target):
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)


def end_tls(key, cert, to):
    """A port at which TLS ends before the port `to`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    context.set_alpn_protocols(["http/1.1"])
    listener = socket.create_server(("127.0.0.1", 0))

    def serve(plain):
        with contextlib.suppress(OSError):
            outside = context.wrap_socket(plain, server_side=True)
            inside = socket.create_connection(("127.0.0.1", to))
            threading.Thread(target=carry, args=(inside, outside), daemon=True).start()
            carry(outside, inside)

    def accept():
        while True:
            threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    return listener.getsockname()[1]


class Browser:
    """A session of WebDriver."""

    def __init__(self, driver, profile, port, mark):
        self.driver = driver
        arguments = [
            "--headless=new", "--no-sandbox", "--disable-dev-shm-usage", f"--user-data-dir={profile}",
            f"--host-resolver-rules=MAP {HOST}:8443 127.0.0.1:{port}",
            f"--ignore-certificate-errors-spki-list={mark}",
        ]
        options = {"args": arguments}
        wanted = {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"},
                  "webauthn:virtualAuthenticators": True}
        self.path = ""
        made = self.ask("POST", "/session", {"capabilities": {"alwaysMatch": wanted}})
        self.path = f"/session/{made['sessionId']}"
        self.authenticator = self.ask("POST", "/webauthn/authenticator", {
            "protocol": "ctap2", "transport": "internal", "hasResidentKey": True, "hasUserVerification": True,
            "isUserConsenting": True, "isUserVerified": True})

    def ask(self, method, path, body=None):
        connection = http.client.HTTPConnection("127.0.0.1", self.driver, timeout=WAIT_S)
        text = json.dumps(body) if body is not None else None
        connection.request(method, self.path + path, text, {"content-type": "application/json"})
        answer = json.loads(connection.getresponse().read())["value"]
        if isinstance(answer, dict) and "error" in answer:
            raise RuntimeError(f"{method} {path}: {answer['error']}: {answer['message']}")
        return answer

    def go(self, path):
        self.ask("POST", "/url", {"url": f"{BASE}/{path}"})

    def run(self, script, *arguments):
        return self.ask("POST", "/execute/sync", {"script": script, "args": list(arguments)})

    def find(self, selector):
        found = self.ask("POST", "/element", {"using": "css selector", "value": selector})
        return next(iter(found.values()))

    def type(self, selector, text):
        self.ask("POST", f"/element/{self.find(selector)}/value", {"text": text})

    def press(self, selector):
        self.ask("POST", f"/element/{self.find(selector)}/click", {})

    def text(self):
        return self.run("return document.body ? document.body.innerText : ''")

    def see(self, words):
        end = time.monotonic() + WAIT_S
        while words not in (text := self.text()):
            if time.monotonic() > end:
                raise RuntimeError(f"“{words}” is not on the page at {self.ask('GET', '/url')}:\n{text}\n{self.log()}")
            time.sleep(0.1)

    def forget(self):
        self.ask("DELETE", "/cookie")

    def verifies(self, good):
        self.ask("POST", f"/webauthn/authenticator/{self.authenticator}/uv", {"isUserVerified": good})

    def log(self):
        return "\n".join(entry["message"] for entry in self.ask("POST", "/se/log", {"type": "browser"}))


def walk(browser, email, password):
    sign_in = "button[formaction]"
    browser.go("account/passkeys")
    browser.type("#username", email)
    browser.type("#password", password)
    browser.press("button:not([formaction])")
    browser.see("Name of a new one")
    browser.type("#password", password)
    browser.type("#name", "Chromium")
    browser.press("button[value=add]")
    browser.see("not used yet")
    print("made")

    browser.forget()
    browser.go("account/sessions")
    browser.press(sign_in)
    browser.see("You are signed in as")
    print("signed in with it alone")

    # The same device gets no second one.
    browser.go("account/passkeys")
    browser.press("button[value=add]")
    browser.see("has a passkey of yours already")
    print("no second one on the same device")

    browser.forget()
    browser.go("account/sessions")
    browser.type("#username", email)
    browser.type("#password", password)
    browser.press("button:not([formaction])")
    browser.see("Second step")
    browser.press("button[value=second]")
    browser.see("You are signed in as")
    print("shown after the password")

    browser.forget()
    browser.verifies(False)
    browser.go("account/sessions")
    browser.press(sign_in)
    browser.see("gave no passkey")
    browser.verifies(True)
    browser.press("button")
    browser.see("You are signed in as")
    print("an unverified user is not signed in, and may try again")

    # Nothing but our one script runs on that page.
    browser.forget()
    browser.verifies(False)
    browser.go("account/sessions")
    browser.press(sign_in)
    browser.see("gave no passkey")
    # The log begins here.
    browser.log()
    browser.run("""
        const foreign = document.createElement("script");
        foreign.src = "/identity/style.css?script";
        document.head.append(foreign);
        const inline = document.createElement("script");
        inline.textContent = "document.title = 'taken over'";
        document.head.append(inline);
    """)
    title = browser.run("return document.title")
    assert title != "taken over", title
    end = time.monotonic() + WAIT_S
    log = browser.log()
    while log.count("Content Security Policy") < 2:
        assert time.monotonic() < end, log
        time.sleep(0.1)
        log += browser.log()
    print("no other script runs there")


def main():
    port, email, password = int(sys.argv[1]), sys.argv[2], sys.argv[3]
    with tempfile.TemporaryDirectory() as where:
        key, cert, mark = certificate(where)
        outside, driver = end_tls(key, cert, port), free_port()
        process = subprocess.Popen(["chromedriver", f"--port={driver}"], stdout=subprocess.DEVNULL)
        browser = None
        try:
            end = time.monotonic() + WAIT_S
            while True:
                with contextlib.suppress(OSError):
                    socket.create_connection(("127.0.0.1", driver), 1).close()
                    break
                assert time.monotonic() < end, "chromedriver does not answer"
                time.sleep(0.1)
            browser = Browser(driver, os.path.join(where, "profile"), outside, mark)
            walk(browser, email, password)
        finally:
            with contextlib.suppress(Exception):
                if browser is not None:
                    browser.ask("DELETE", "")
            process.terminate()
            process.wait()


main()
