"""What the tests of the page share: people of the realm, a folder with scripts, a server, and clients like browsers."""

from __future__ import annotations

import base64
import html
import re
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from typing import Any, Final, NamedTuple

import gssapi
import httpx

from jobs.attempts import LIMIT
from jobs.web.served import Served, ServedSite
from remctl.testing import Sandbox
from remctl.testing.programs import find
from remctl.testing.sandbox import Principal

HOST: Final = "localhost"

ECHO: Final = 'printf "%s\\n" "$JOB_PARAM_TEXT"; echo done >&2'

HEADER: Final = (
    "[parameters.text]",
    'type = "text"',
    'description = "What is said."',
    "[parameters.count]",
    'type = "integer"',
    "minimum = 1",
    "maximum = 10",
    "default = 2",
    "[parameters.lines]",
    'type = "text"',
    "multiline = true",
    "required = false",
    "[parameters.loud]",
    'type = "boolean"',
    "default = false",
    "[parameters.colour]",
    'type = "choice"',
    'choices = ["red", "green <&>"]',
    'default = "red"',
    "[parameters.word]",
    'type = "text"',
    "pattern = '[a-z]+'",
    'default = "hello"',
    "[parameters.key]",
    'type = "secret"',
    "required = false",
)
"""A parameter of each kind."""


class People(NamedTuple):
    """Who there is in the realm, for the page."""

    keytab: str
    """The key of HTTP/localhost."""
    ada: Principal
    bob: Principal
    olga: Principal
    """An operator."""
    eve: Principal
    """Whose account has expired."""


@cache
def http_keytab(box: Sandbox) -> str:
    """Make the principal of a web server on this machine, once for each realm; return its keytab."""
    return box.add_principal(f"HTTP/{HOST}").keytab


@cache
def people(box: Sandbox) -> People:
    """Make them, once for each realm."""
    keytab = http_keytab(box)
    found = People(keytab, *(box.add_principal(f"page-{name}") for name in ("ada", "bob", "olga", "eve")))
    administer(box, "modprinc", "-expire", "yesterday", found.eve.name)
    for person in (found.ada, found.bob):
        administer(box, "modprinc", "+requires_preauth", person.name)
    return found


def administer(box: Sandbox, *words: str) -> None:
    """Have kadmin.local do something in the realm."""
    subprocess.run([find("kadmin.local"), *words], env=box.env, check=True, stdout=subprocess.DEVNULL)


class Pages:
    """A server with the page, and the folder of its jobs."""

    def __init__(self, site: ServedSite, served: Served, people: People) -> None:
        self.site = site
        self.people = people
        self.url = f"http://{HOST}:{served.port}"

    @contextmanager
    def client(self, person: Principal | None = None) -> Iterator[Browser]:
        """Give a client like a browser; one for a person has signed in with the password."""
        with Browser(self.url) as made:
            if person is not None:
                assert made.sign_in(person.name, person.password).status_code == 303
            yield made

    def ticket(self, ccache: str, host: str = HOST) -> dict[str, str]:
        """Return the header with which a browser sends a ticket."""
        credentials = gssapi.Credentials(usage="initiate", store={"ccache": ccache})
        name = gssapi.Name(f"HTTP@{host}", gssapi.NameType.hostbased_service)
        spnego = gssapi.OID.from_int_seq("1.3.6.1.5.5.2")
        token = gssapi.SecurityContext(name=name, creds=credentials, mech=spnego, usage="initiate").step()
        assert token is not None
        return {"authorization": f"Negotiate {base64.b64encode(token).decode()}"}


class Browser(httpx.Client):
    """Keeps cookies, and sends forms as browsers do."""

    def __init__(self, url: str, **options: Any) -> None:
        super().__init__(base_url=url, timeout=LIMIT, **options)
        self.origin = {"origin": url}

    def sign_in(self, name: str, password: str, back: str = "/", **headers: str) -> httpx.Response:
        """Send the form to sign in."""
        form = {"name": name, "password": password, "next": back}
        return self.post("/sign-in", data=form, headers=headers or self.origin)

    def fields(self, path: str) -> dict[str, str]:
        """Return the hidden fields of the last form of a page."""
        page = self.get(path)
        assert page.status_code == 200, page.text
        return hidden(page.text)

    def submit(self, script: str, **parameters: str) -> int:
        """Submit a job by its form; return its number."""
        form = self.fields(f"/scripts/{script}") | {f"p.{name}": text for name, text in parameters.items()}
        answer = self.post(f"/scripts/{script}", data=form, headers=self.origin)
        assert answer.status_code == 303, answer.text
        return int(answer.headers["location"].rpartition("/")[2])

    def act(self, job: int, move: str) -> httpx.Response:
        """Press a button of a job's page."""
        form = self.fields(f"/jobs/{job}") | {"move": move}
        return self.post(f"/jobs/{job}", data=form, headers=self.origin)


def hidden(page: str) -> dict[str, str]:
    """Return the hidden fields of a page."""
    found = re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)">', page)
    return {name: html.unescape(value) for name, value in found}


@contextmanager
def opened(box: Sandbox, folder: Path, database: str | None = None, **server: Any) -> Iterator[Pages]:
    """Serve the page of a folder, with the script `echo` of all parameters; by default on an SQLite of its own."""
    known = people(box)
    with ExitStack() as stack:
        site = ServedSite(folder, database or f"sqlite:///{folder}/jobs.db", poll=0.1, lease=3)
        stack.callback(site.close)
        access = f'[access]\nusers = ["princ:{known.ada.name} princ:{known.bob.name}"]\n'
        site.file.write_text(f'{site.file.read_text()}\n{access}operators = ["princ:{known.olga.name}"]\n')
        site.serve_as(**{"port": 0, "url": f"http://{HOST}", "keytab": known.keytab, **server})
        site.install(ECHO, *HEADER, name="echo")
        yield Pages(site, stack.enter_context(Served(site.service)), known)
