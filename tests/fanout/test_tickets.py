"""The tickets of a run, from a real KDC."""

from __future__ import annotations

import asyncio
import itertools
import logging
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import krb5
import pytest
from aio.running import asynchronous, until

import remctl
from fanout.kerberos import SHORT, at, authenticate, dead_kdc, kadmin, mayfly, python_at
from remctl.fanout import _sources, _tickets
from remctl.fanout._auth import AuthReason, reason_of
from remctl.fanout._tickets import LEASES, Tickets
from remctl.security import Credentials, InitiatorContext
from remctl.testing import Sandbox
from remctl.testing.sandbox import Principal

THREADS: Final = 32

HOSTS: Final = [f"host/of-tickets-{number}" for number in range(LEASES)]

Maker = Callable[[Principal], Credentials]

BY_KEY: Final[dict[str, Maker]] = {
    "keytab": lambda principal: Credentials.from_keytab(principal.keytab, principal.name),
    "password": lambda principal: Credentials.from_password(principal.name, principal.password),
}

_numbers = itertools.count()


@pytest.fixture(scope="module")
def alice(box: Sandbox) -> Principal:
    return box.add_principal("alice-of-tickets")


@pytest.fixture(scope="module")
def hosts(box: Sandbox) -> list[str]:
    """Give principals of servers that nobody has a ticket for."""
    kadmin(box, *(f"addprinc -randkey {host}" for host in HOSTS))
    return HOSTS


@pytest.fixture(params=BY_KEY)
def by_key(request: pytest.FixtureRequest) -> Maker:
    """Give each of the two sources that renew themselves in turn."""
    return BY_KEY[request.param]


@pytest.fixture
def short(box: Sandbox) -> Principal:
    """Give a principal whose tickets end soon, as no other test has it."""
    return mayfly(box, f"mayfly-{next(_numbers)}")


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Give a list of when the sources were read."""
    times: list[float] = []

    def counting(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            times.append(time.monotonic())
            return function(*arguments)

        return call

    for name in ("get", "read"):
        monkeypatch.setattr(_sources, name, counting(getattr(_sources, name)))
    return times


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Have those who ask the KDC with a key wait until this is set."""
    opened, get = threading.Event(), _sources.get

    def wait(credentials: Credentials) -> _sources.Ticket:
        opened.wait(20)
        return get(credentials)

    monkeypatch.setattr(_sources, "get", wait)
    yield opened
    opened.set()


def contents(credentials: Credentials) -> list[str]:
    """Return whom the tickets in a cache are for; nothing if there is no such cache."""
    context = krb5.init_context()
    return [str(ticket.server) for ticket in krb5.cc_resolve(context, credentials._name.encode())]


def step(credentials: Credentials, host: str) -> None:
    """Do our part of a handshake, for which a ticket is asked for."""
    InitiatorContext("localhost", host, credentials).step(None)


async def whose(box: Sandbox, tickets: Tickets) -> str:
    async with tickets.lease() as credentials:
        return authenticate(box, credentials)


async def refusal(tickets: Tickets) -> remctl.RemctlAuthenticationError:
    with pytest.raises(remctl.RemctlAuthenticationError) as caught:
        async with tickets.lease():
            pass
    return caught.value


async def ended(tickets: Tickets) -> None:
    """Wait until the ticket-granting ticket has ended."""
    ticket = tickets._ticket
    assert ticket is not None
    await until(lambda: ticket.left <= 0)


def always_ending(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have every ticket be about to end, and another one looked for each time."""
    monkeypatch.setattr(_sources.Ticket, "ending", True)
    monkeypatch.setattr(_tickets, "LOOK", 0)


def log_of_kdc(box: Sandbox, principal: str) -> int:
    """Return how many ticket-granting tickets the KDC says that it gave a principal."""
    lines = (box.path / "kdc.log").read_text().splitlines()
    return sum("AS_REQ" in line and "ISSUE" in line and f" {principal} for krbtgt/" in line for line in lines)


class TestLeases:
    @asynchronous
    async def test_of_each_source_authenticate_as_its_principal(self, box: Sandbox, alice: Principal) -> None:
        each = {
            Credentials.default(): box.user,
            Credentials.from_ccache(box.ccache): box.user,
            Credentials.from_ccache(box.kinit(alice)): alice.name,
            **{make(alice): alice.name for make in BY_KEY.values()},
        }
        for source, name in each.items():
            async with Tickets(source) as tickets:
                assert await whose(box, tickets) == name
                assert tickets.principal == name

    @asynchronous
    async def test_begin_with_nothing_but_the_ticket_granting_ticket(self, box: Sandbox, hosts: list[str]) -> None:
        step(Credentials.from_ccache(box.ccache), hosts[0])
        async with Tickets(Credentials.default()) as tickets, tickets.lease() as credentials:
            assert contents(credentials) == [f"krbtgt/{box.realm}@{box.realm}"]

    @asynchronous
    async def test_share_a_cache_a_number_at_a_time(self, box: Sandbox) -> None:
        async with Tickets(Credentials.default(), leases=3) as tickets:
            names, given = [], set()
            for _ in range(8):
                async with tickets.lease() as credentials:
                    names.append(credentials._name)
                    given.add(credentials)
            assert [len(list(group)) for _, group in itertools.groupby(names)] == [3, 3, 2]
            assert len(set(names)) == 3
            assert len(given) == 8

    @asynchronous
    async def test_a_cache_is_gone_when_the_last_of_its_leases_is_back(self, box: Sandbox) -> None:
        async with Tickets(Credentials.default(), leases=2) as tickets:
            first, second, third = (tickets.lease() for _ in range(3))
            old = await first.__aenter__()
            await second.__aenter__()
            await third.__aenter__()
            await first.__aexit__(None, None, None)
            assert contents(old)
            await second.__aexit__(None, None, None)
            assert not contents(old)
            await third.__aexit__(None, None, None)

    @asynchronous
    async def test_no_cache_is_left_in_the_end(self, box: Sandbox, hosts: list[str]) -> None:
        async with Tickets(Credentials.default(), leases=2) as tickets:
            given = []
            for host in hosts[:5]:
                async with tickets.lease() as credentials:
                    step(credentials, host)
                    given.append(credentials)
            late = tickets.lease()
            given.append(await late.__aenter__())
        assert contents(given[-1])
        await late.__aexit__(None, None, None)
        assert not any(map(contents, given))

    @asynchronous
    async def test_a_lease_of_a_task_that_is_cancelled_is_back(self, box: Sandbox) -> None:
        given: list[Credentials] = []

        async def work(tickets: Tickets) -> None:
            async with tickets.lease() as credentials:
                given.append(credentials)
                await asyncio.Event().wait()

        async with Tickets(Credentials.default()) as tickets:
            task = asyncio.create_task(work(tickets))
            await until(lambda: given)
            task.cancel()
            await asyncio.wait({task})
        assert not contents(given[0])

    @asynchronous
    async def test_write_nothing_into_the_source(self, box: Sandbox, hosts: list[str]) -> None:
        before = Path(box.ccache).read_bytes()
        async with Tickets(Credentials.default()) as tickets:
            for host in hosts:
                async with tickets.lease() as credentials:
                    step(credentials, host)
        assert Path(box.ccache).read_bytes() == before

    @asynchronous
    async def test_read_the_source_once(self, box: Sandbox, asked: list[float]) -> None:
        async with Tickets(Credentials.default(), leases=1) as tickets:
            for _ in range(100):
                async with tickets.lease():
                    pass
        assert len(asked) == 1

    @asynchronous
    async def test_of_service_tickets_alone_are_the_source_itself(self, box: Sandbox, tmp_path: Path) -> None:
        async with Tickets(_services_alone(box, tmp_path)) as tickets:
            assert await tickets.check(60)
            assert not await tickets.check(10**7)
            assert await whose(box, tickets) == box.user
            async with tickets.lease() as one, tickets.lease() as other:
                assert one is other
            assert tickets.principal is None

    @asynchronous
    async def test_may_be_used_by_many_threads_at_once(self, box: Sandbox, hosts: list[str]) -> None:
        with ThreadPoolExecutor(THREADS) as pool:
            async with Tickets(Credentials.default()) as tickets:

                async def work() -> None:
                    for host in hosts:
                        async with tickets.lease() as credentials:
                            await asyncio.get_running_loop().run_in_executor(pool, step, credentials, host)

                await asyncio.gather(*(work() for _ in range(THREADS)))


def _services_alone(box: Sandbox, folder: Path) -> Credentials:
    """Make a cache with a ticket for the first server, and no other."""
    whole = folder / "whole"
    whole.write_bytes(Path(box.ccache).read_bytes())
    step(Credentials.from_ccache(whole), box.principal)
    context = krb5.init_context()
    source, target = (krb5.cc_resolve(context, f"FILE:{folder}/{name}".encode()) for name in ("whole", "alone"))
    krb5.cc_initialize(context, target, krb5.cc_get_principal(context, source))
    for ticket in source:
        if str(ticket.server) == box.principal:
            krb5.cc_store_cred(context, target, ticket)
    return Credentials.from_ccache(folder / "alone")


class TestRenewal:
    @asynchronous
    async def test_with_a_key_or_a_password_goes_on_and_on(self, box: Sandbox, short: Principal, by_key: Maker) -> None:
        async with Tickets(by_key(short)) as tickets:
            assert await tickets.check(3600)
            assert await whose(box, tickets) == short.name
            await ended(tickets)
            assert await whose(box, tickets) == short.name

    @asynchronous
    async def test_is_one_for_all_who_wait(self, box: Sandbox, short: Principal, by_key: Maker) -> None:
        async with Tickets(by_key(short)) as tickets:
            await asyncio.gather(*(tickets.check() for _ in range(20)))
            assert log_of_kdc(box, short.name) == 1

    @asynchronous
    async def test_goes_on_when_one_of_those_who_wait_is_cancelled(
        self, box: Sandbox, alice: Principal, gate: threading.Event
    ) -> None:
        async with Tickets(BY_KEY["keytab"](alice)) as tickets:
            first, second = (asyncio.create_task(whose(box, tickets)) for _ in range(2))
            await until(lambda: tickets._looking)
            first.cancel()
            await asyncio.wait({first})
            gate.set()
            assert await second == alice.name

    @asynchronous
    async def test_that_is_under_way_ends_with_the_run(self, alice: Principal, gate: threading.Event) -> None:
        async with Tickets(BY_KEY["keytab"](alice)) as tickets:
            task = asyncio.create_task(tickets.check())
            await until(lambda: tickets._looking)
            task.cancel()
            await asyncio.wait({task})

    @asynchronous
    async def test_of_the_default_cache_by_somebody_else_is_picked_up(
        self, box: Sandbox, alice: Principal, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("KRB5CCNAME", box.kinit(alice, lifetime=f"{SHORT}s"))
        async with Tickets(Credentials.default()) as tickets:
            assert await whose(box, tickets) == alice.name
            await ended(tickets)
            assert reason_of(await refusal(tickets)) is AuthReason.EXPIRED
            box.kinit(alice, ccache=krb5.cc_default_name(krb5.init_context()).decode())
            monkeypatch.setattr(tickets, "_next", 0.0)
            assert await whose(box, tickets) == alice.name

    @asynchronous
    async def test_of_a_cache_is_picked_up_before_its_end(
        self, box: Sandbox, alice: Principal, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        ccache = box.kinit(alice, lifetime="5m")
        always_ending(monkeypatch)
        async with Tickets(Credentials.from_ccache(ccache)) as tickets:
            async with tickets.lease() as old:
                pass
            box.kinit(alice, ccache=ccache)
            assert await tickets.check(3600)
            async with tickets.lease() as new:
                assert new._name != old._name
            assert not contents(old)

    @asynchronous
    async def test_of_a_cache_is_looked_for_once_a_second(
        self, box: Sandbox, alice: Principal, monkeypatch: pytest.MonkeyPatch, asked: list[float]
    ) -> None:
        monkeypatch.setattr(_sources.Ticket, "ending", True)
        async with Tickets(Credentials.from_ccache(box.kinit(alice))) as tickets:
            begin = time.monotonic()
            for _ in range(200):
                await tickets.check()
            assert len(asked) <= 1 + (time.monotonic() - begin) / _tickets.LOOK

    @asynchronous
    async def test_never_makes_another_principal_of_the_run(
        self, box: Sandbox, alice: Principal, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        ccache = box.kinit(alice, lifetime=f"{SHORT}s")
        always_ending(monkeypatch)
        async with Tickets(Credentials.from_ccache(ccache)) as tickets:
            await tickets.check()
            box.kinit(box.add_principal("mallory"), ccache=ccache)
            for _ in range(3):
                assert await whose(box, tickets) == alice.name
            await ended(tickets)
            said = f"the ticket cache is now that of mallory@{box.realm}, and the run is that of {alice.name}"
            assert (await refusal(tickets)).reason == said
        assert [record.getMessage() for record in caplog.records if said in record.getMessage()] == [
            f"no new ticket, and that of {alice.name} ends soon: {said}; use a cache of its own for the run"
        ]


class TestFailure:
    @asynchronous
    async def test_of_a_ticket_that_ends_in_the_middle_is_told_to_each_host_without_asking_again(
        self, box: Sandbox, alice: Principal, asked: list[float]
    ) -> None:
        async with Tickets(Credentials.from_ccache(box.kinit(alice, lifetime=f"{SHORT}s"))) as tickets:
            await tickets.check()
            await ended(tickets)
            asked.clear()
            errors = [await refusal(tickets) for _ in range(300)]
        assert {reason_of(error) for error in errors} == {AuthReason.EXPIRED}
        assert {error.hint for error in errors} == {"the ticket has expired: run kinit"}
        assert len(set(map(id, errors))) == len(errors)
        assert len(asked) <= 4  # two for each look, of which there is one in a second

    @asynchronous
    async def test_of_a_cache_that_keeps_service_tickets_alone_is_that_the_ticket_has_ended(
        self, box: Sandbox, alice: Principal, tmp_path: Path
    ) -> None:
        ccache = box.kinit(alice, lifetime=f"{SHORT}s")
        async with Tickets(Credentials.from_ccache(ccache)) as tickets:
            await tickets.check()
            await ended(tickets)
            _services_alone(box, tmp_path)
            Path(ccache).write_bytes((tmp_path / "alone").read_bytes())
            assert reason_of(await refusal(tickets)) is AuthReason.EXPIRED

    @asynchronous
    async def test_of_the_kdc_is_told_to_each_host_until_it_is_there_again(
        self, box: Sandbox, short: Principal, by_key: Maker, asked: list[float], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async with Tickets(by_key(short)) as tickets:
            await tickets.check()
            with dead_kdc(box):
                await ended(tickets)
                asked.clear()
                for _ in range(300):
                    assert reason_of(await refusal(tickets)) is AuthReason.NO_KDC
                assert len(asked) == 1
            monkeypatch.setattr(tickets, "_next", 0.0)
            assert await whose(box, tickets) == short.name

    @asynchronous
    async def test_of_the_kdc_leaves_the_ticket_that_has_not_ended(
        self, box: Sandbox, alice: Principal, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        always_ending(monkeypatch)
        monkeypatch.setattr(_tickets, "RETRY", 0)
        async with Tickets(BY_KEY["keytab"](alice)) as tickets:
            await tickets.check()
            async with tickets.lease() as before:
                with dead_kdc(box):
                    for _ in range(3):
                        async with tickets.lease() as credentials:
                            assert credentials._name == before._name
        (record,) = (each for each in caplog.records if each.name == _tickets.__name__)
        assert record.levelno == logging.WARNING
        assert f"no new ticket, and that of {alice.name} ends soon: " in record.getMessage()
        assert "no KDC answers for the realm" in record.getMessage()

    @asynchronous
    async def test_that_lasts_holds_up_no_host(
        self, box: Sandbox, short: Principal, gate: threading.Event, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(_tickets, "RETRY", 0)
        monkeypatch.setattr(_tickets, "PATIENCE", 0.05)
        async with Tickets(BY_KEY["keytab"](short)) as tickets:
            gate.set()
            await tickets.check()
            await ended(tickets)
            with dead_kdc(box):
                await refusal(tickets)
            gate.clear()  # as a KDC that takes its time
            for _ in range(3):
                assert reason_of(await refusal(tickets)) is AuthReason.NO_KDC
            gate.set()
            await until(lambda: tickets._looking is None)
            assert await whose(box, tickets) == short.name

    @asynchronous
    async def test_of_a_wrong_password_is_final_since_tries_lock_accounts(
        self, alice: Principal, asked: list[float], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(_tickets, "RETRY", 0)
        async with Tickets(Credentials.from_password(alice.name, "s3cret")) as tickets:
            for _ in range(3):
                error = await refusal(tickets)
                assert reason_of(error) is AuthReason.WRONG_KEY
                assert error.hint == "the password, or the key in the keytab, is not the principal's"
                assert "s3cret" not in f"{error!r} {vars(error)} {error.__cause__!r}"
        assert len(asked) == 1

    @asynchronous
    async def test_that_is_no_refusal_reaches_all_who_wait(
        self, alice: Principal, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def broken(_: Credentials) -> None:
            raise ZeroDivisionError

        monkeypatch.setattr(_sources, "get", broken)
        async with Tickets(BY_KEY["keytab"](alice)) as tickets:
            found = await asyncio.gather(*(tickets.check() for _ in range(3)), return_exceptions=True)
        assert list(map(type, found)) == [ZeroDivisionError] * 3


class TestCheck:
    @asynchronous
    async def test_says_when_the_tickets_end_before_the_run(
        self, box: Sandbox, alice: Principal, caplog: pytest.LogCaptureFixture
    ) -> None:
        async with Tickets(Credentials.from_ccache(box.kinit(alice, lifetime="10m"))) as tickets:
            assert await tickets.check()
            assert await tickets.check(500)
            assert not caplog.records
            assert not await tickets.check(3600)
        (record,) = caplog.records
        assert record.levelno == logging.WARNING
        assert record.getMessage().endswith(" s, and may be needed for 3600 s: renew them in time")

    @pytest.mark.parametrize(
        ("source", "reason"),
        [
            (Credentials.from_ccache("/nowhere/cache"), AuthReason.NO_TICKET),
            (Credentials.from_ccache("NOSUCH:cache"), AuthReason.NO_TICKET),
            (Credentials.from_keytab("/nowhere/keytab", "nobody"), AuthReason.OTHER),
            (Credentials.from_keytab(__file__, "nobody"), AuthReason.OTHER),
            (Credentials.from_keytab("/nowhere/keytab", "a@b@c"), AuthReason.OTHER),
            (Credentials.from_password("nobody", "x"), AuthReason.UNKNOWN_CLIENT),
            (Credentials.from_password("nobody@NO.SUCH.REALM", "x"), AuthReason.NO_KDC),
        ],
        ids=repr,
    )
    @asynchronous
    async def test_says_what_is_missing(self, box: Sandbox, source: Credentials, reason: AuthReason) -> None:
        async with Tickets(source) as tickets:
            with pytest.raises(remctl.RemctlAuthenticationError, match=r"^authentication failed: ") as caught:
                await tickets.check(60)
            assert reason_of(caught.value) is reason

    @asynchronous
    async def test_says_that_a_keytab_has_no_such_key(self, box: Sandbox, alice: Principal) -> None:
        async with Tickets(Credentials.from_keytab(alice.keytab, "somebody-else")) as tickets:
            error = await refusal(tickets)
        assert reason_of(error) is AuthReason.WRONG_KEY
        assert error.hint == "klist -k shows whether the keytab has a key of the principal"

    @asynchronous
    async def test_gets_what_the_default_client_keytab_is_for(
        self, box: Sandbox, short: Principal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("KRB5CCNAME", str(tmp_path / "cache"))
        monkeypatch.setenv("KRB5_CLIENT_KTNAME", short.keytab)
        async with Tickets(Credentials.default()) as tickets:
            assert await whose(box, tickets) == short.name
            await ended(tickets)
            assert await whose(box, tickets) == short.name
            assert tickets.principal == short.name
            await ended(tickets)
            with dead_kdc(box):
                assert reason_of(await refusal(tickets)) is AuthReason.EXPIRED


CLOCK: Final = """
import asyncio, os, sys
from fanout.kerberos import authenticate
from remctl.fanout._tickets import Tickets
from remctl.security import Credentials, InitiatorContext

async def main(credentials):
    async with Tickets(credentials) as tickets:
        assert await tickets.check(3600)
        async with tickets.lease() as leased:
            InitiatorContext("localhost", os.environ["REMCTL_SANDBOX_PRINCIPAL"], leased).step(None)
            print(tickets.principal)

asyncio.run(main(getattr(Credentials, sys.argv[1])(*sys.argv[2:])))
"""


class TestClock:
    """libkrb5 takes note of how far the clock here is off when it gets a ticket-granting ticket, and bears with it."""

    @pytest.mark.parametrize("clock", ["+1h", "-1h"])
    def test_that_is_wrong_does_not_matter_with_a_key(self, box: Sandbox, alice: Principal, clock: str) -> None:
        assert python_at(clock, CLOCK, box, "from_keytab", alice.keytab, alice.name) == alice.name

    @pytest.mark.parametrize("clock", ["+1h", "-1h"])
    def test_that_was_as_wrong_when_the_cache_was_made_does_not_matter(
        self, box: Sandbox, alice: Principal, clock: str, tmp_path: Path
    ) -> None:
        ccache = str(tmp_path / "ccache")
        at(clock, ["kinit", "-c", ccache, "-kt", alice.keytab, alice.name], box)
        assert python_at(clock, CLOCK, box, "from_ccache", ccache) == alice.name
