"""What the tests of the robots' interface share: a served folder, and a client as plain as can be."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any, Final

import httpx
from sqlalchemy import update

from jobs.attempts import LIMIT
from jobs.web.served import ADA, ServedSite
from remctl.jobs.scripts import Language, Limits, Parameters, Script
from remctl.jobs.states import JobState
from remctl.jobs.store import Job, Order, Robot
from remctl.jobs.store._schema import attempts

SHA: Final = "7" * 64
SECRET: Final = "canary of the job"


class RobotSite(ServedSite):
    """A folder with a script for robots, and a robot of the pool `night`."""

    def __init__(self, folder: Path, url: str, **runner: Any) -> None:
        super().__init__(folder, url, **runner)
        self.serve_as(port=0)
        script = Script("work", Language.PYTHON, "Work.", b"", SHA, Parameters({}), Limits())
        self.store.scripts.install(script, "root@EXAMPLE.ORG")
        self.robot = self.store.robots.add("R2", pool="night")

    def order(self, robot: Robot | None = None, *, pool: str | None = None) -> Job:
        """Submit a job for a robot, which is the one if no other or a pool is named."""
        chosen = None if pool else (robot or self.robot).id
        order = Order("work", {"city": "Göteborg"}, ADA, {"key": SECRET}, chosen, pool)
        (job,) = self.store.jobs.submit_all([order])
        return job

    def state(self, job: Job) -> JobState:
        """Return where a job stands."""
        return self.store.jobs.get(job.id).state

    def overdue(self) -> None:
        """Have all leases run out."""
        with self.store.database.write() as connection:
            connection.execute(update(attempts).values(lease_until=0))


def authorization(guid: str) -> dict[str, str]:
    """Return the header of a robot."""
    return {"Authorization": "Basic " + base64.b64encode(guid.encode()).decode()}


class Agent:
    """A robot whose program is the interface's own example.

    Args:
        url: the server's.
        guid: the robot's.
        options: for the client of HTTP.
    """

    def __init__(self, url: str, guid: str, **options: Any) -> None:
        self.guid = guid
        self.client = httpx.Client(base_url=url, headers=authorization(guid), timeout=LIMIT, **options)

    def beat(self, status: int = 2, job: str = "", **fields: Any) -> httpx.Response:
        """Say how it is."""
        form = {"RobotGUID": self.guid, "Machine": "pc7", "IP": "192.0.2.7", "MAC": "00:11:22:33:44:55"}
        named = {"Status": status, "JobGUID": job, "JobName": "work" if job else "", "JobType": 1}
        return self.client.post("/api/robot/heartbeat", data={**form, **named, **fields})

    def heard(self, status: int = 2, job: str = "") -> tuple[int, int]:
        """Say how it is; return the error code, and whether there is a new job."""
        response = self.beat(status, job)
        assert response.status_code == 200, response.text
        found = json.loads(response.text)
        assert isinstance(found["ErrorText"], str)
        return found["HeartbeatErrorCode"], found["HasNewJob"]

    def consume(self) -> dict[str, Any]:
        """Ask for a job."""
        response = self.client.post("/api/robot/consumeNextJob", data={"RobotGUID": self.guid})
        assert response.status_code == 200, response.text
        found: dict[str, Any] = json.loads(response.text)
        return found

    def take(self) -> str:
        """Take a job; return its GUID."""
        found = self.consume()
        assert found["ConsumeJobErrorCode"] == 0, found
        guid: str = json.loads(found["Job"])["GUID"]
        return guid

    def update(self, job: str, status: int) -> tuple[int, int, int | None]:
        """Say where a job stands; return the status of HTTP, the error code, and where it stands."""
        response = self.client.put("/api/job/update", data={"guid": job, "status": status})
        found = response.json()
        assert isinstance(found["ErrorText"], str)
        assert bool(found["ErrorText"]) == bool(found["ErrorCode"])
        return response.status_code, found["ErrorCode"], found["Status"]

    def begin(self) -> str:
        """Take a job and begin it; return its GUID."""
        job = self.take()
        assert self.update(job, 8) == (200, 0, 8)
        return job

    def close(self) -> None:
        """Close its connections."""
        self.client.close()
