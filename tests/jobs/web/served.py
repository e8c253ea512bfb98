"""What the tests of the server share: a server on a thread of its own, and clients that say what no library would."""

from __future__ import annotations

import asyncio
import base64
import json
import threading
import xmlrpc.client
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import httpx

from jobs.attempts import LIMIT
from jobs.runners import Site
from remctl.jobs.scripts import Language, Limits, Parameters, Script
from remctl.jobs.service import Service
from remctl.jobs.settings import load
from remctl.jobs.states import Reason
from remctl.jobs.store import Claim, Ended, Taker, account_of, new_bid
from remctl.jobs.web import serving

ACCOUNT: Final = "externalscript"
PASSWORD: Final = "canary of the account"

ADA: Final = "ada@EXAMPLE.ORG"
RUNNER: Final = Taker("runner", "11111111-1111-4111-8111-111111111111")


class ServedSite(Site):
    """A folder with a configuration that has a `[server]`, too."""

    def serve_as(self, **server: Any) -> None:
        """Give the server other settings than it has by default."""
        runner = self.file.read_text().partition("[server]")[0]
        lines = [f"{key} = {json.dumps(value)}" for key, value in server.items()]
        self.file.write_text("\n".join([f"{runner.rstrip()}\n\n[server]", *lines, ""]))
        self.settings = load(self.file)

    @property
    def service(self) -> Service:
        """What is served."""
        return Service(self.settings, self.store)


class Served:
    """A server on a thread of its own: starts with `with`, and stops at its end.

    Args:
        service: what is served.
    """

    url: str

    def __init__(self, service: Service) -> None:
        self._service = service
        self._started = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._started.wait(LIMIT)
        if self._failure is not None:
            self._thread.join(LIMIT)
            raise self._failure
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.ask_to_stop()
        self._thread.join(LIMIT)
        assert not self._thread.is_alive()
        if self._failure is not None:
            raise self._failure

    def ask_to_stop(self) -> None:
        """Have it stop, and do not wait for that."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._end.set)

    @property
    def port(self) -> int:
        """Where it listens."""
        port = httpx.URL(self.url).port
        assert port is not None
        return port

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:
            self._failure = error
        finally:
            self._started.set()

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._end = asyncio.Event()
        async with serving(self._service) as self.url:
            self._started.set()
            await self._end.wait()


class Client:
    """Calls a server's methods as an account.

    Args:
        url: the server's.
        account: its name.
        password: its password.
    """

    def __init__(self, url: str, account: str = ACCOUNT, password: str = PASSWORD) -> None:
        token = base64.b64encode(f"{account}:{password}".encode()).decode()
        self._headers = {"Authorization": f"Basic {token}", "Content-Type": "text/xml"}
        self._url = f"{url}/api/xmlrpc"
        self._client = httpx.Client(timeout=LIMIT)

    def send(self, body: Any, **headers: str) -> httpx.Response:
        """Send a body as it is; underscores in names of headers are hyphens."""
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        return self._client.post(self._url, content=body, headers={**self._headers, **given})

    def call(self, method: str, *arguments: Any) -> Any:
        """Call a method as Python's own library would.

        Raises:
            xmlrpc.client.Fault: the server refused.
        """
        response = self.send(xmlrpc.client.dumps(arguments, method, allow_none=True).encode())
        assert response.status_code == 200, response.text
        ((answer,), _) = xmlrpc.client.loads(response.content)
        return answer

    def fault(self, body: bytes) -> int:
        """Send a body that is refused with a fault; return its number."""
        response = self.send(body)
        assert response.status_code == 200, response.text
        try:
            xmlrpc.client.loads(response.content)
        except xmlrpc.client.Fault as fault:
            return fault.faultCode
        raise AssertionError("it was not refused")

    def close(self) -> None:
        """Close its connections."""
        self._client.close()


class Reported(ServedSite):
    """A site with a job whose attempt runs, without a runner; its reports are what `kept` says."""

    def __init__(self, folder: Path, url: str) -> None:
        super().__init__(folder, url)
        self.serve_as(port=0)
        script = Script("work", Language.BASH, "Work.", b"", "0" * 64, Parameters({}), Limits())
        self.store.scripts.install(script, "root@EXAMPLE.ORG")
        self.store.accounts.set_password(ACCOUNT, PASSWORD)

    def begin(self) -> tuple[Claim, str]:
        """Submit a job and let its attempt begin; return it and its password."""
        self.store.jobs.submit("work", {}, ADA)
        return self.go_on()

    def go_on(self) -> tuple[Claim, str]:
        """Let the attempt of the next job begin; return it and its password."""
        bid = new_bid()
        (claim,) = self.store.attempts.claim(RUNNER, [bid], 3600)
        self.store.attempts.start(claim.attempt, "5f0c7a0e-0000-4000-8000-000000000000", 4711, 99, 3600)
        return claim, bid.password

    def end(self, claim: Claim, status: int = 0) -> None:
        """Let an attempt end."""
        self.store.attempts.settle(claim.attempt, Ended(Reason.EXIT, status))

    def kept(self, claim: Claim) -> tuple[bool | None, str | None, int]:
        """Return what is kept: success, information, and how many reports came too late."""
        found = self.store.jobs.attempts(claim.job.id)[claim.number - 1]
        return found.reported_success, found.report, found.late_reports


def account(claim: Claim) -> str:
    """Return the name of an attempt's account."""
    return account_of(claim.attempt)
