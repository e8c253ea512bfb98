"""A throw-away Kerberos realm with real servers: krb5kdc and remctld on loopback, in one temporary folder.

What this project's own tests, its demonstration and its benchmarks run on, and what users' test suites may run on (see
`remctl.testing.plugin`).  The realm is made with the k5test library, which the extra `remctl-cffi[testing]` brings.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import subprocess
import tempfile
import weakref
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Final, NamedTuple, Self

from remctl.testing.programs import PACKAGES, SandboxError, find
from remctl.testing.server import Server, free_port

_ADDRESS: Final = "127.0.0.1"

_PORT_ATTEMPTS: Final = 20

_KRB5_CONF: Final = {
    "libdefaults": {
        "rdns": "false",
        "dns_canonicalize_hostname": "false",
        "dns_lookup_realm": "false",
        "dns_uri_lookup": "false",
    },
    "realms": {"$realm": {"kdc": f"{_ADDRESS}:$port0", "admin_server": f"{_ADDRESS}:$port1"}},
    "domain_realm": {"localhost": "$realm", _ADDRESS: "$realm", "::1": "$realm"},
}

_KDC_CONF: Final = {"realms": {"$realm": {"kdc_listen": f"{_ADDRESS}:$port0", "kdc_tcp_listen": f"{_ADDRESS}:$port0"}}}


class Principal(NamedTuple):
    """A principal of the sandbox's realm."""

    name: str
    """With its realm: name@REALM."""
    password: str
    keytab: str
    """Path of a keytab with the principal's key."""


class Sandbox:
    """A realm, a remctld, a keytab and a ticket, gone at the end.

        >>> with Sandbox() as box:
        ...     box.add_command("test", "hello", "#!/bin/sh\\necho hello world\\n")
        ...     remctl.remctl(box.host, box.port, box.principal, ["test", "hello"])

    Args:
        realm: the realm's name.
        user: the principal whose ticket the sandbox's cache holds, without realm.
        export: whether the block of a `with` sees the sandbox's environment in `os.environ`, so that libraries in this
            process find the realm.  Several sandboxes may live side by side, but a process is in one realm at a time:
            the last exported one.  See `exported()`, and `env` for other processes.

    Servers listen on 127.0.0.1, on ports that are free.  `stop`, the end of a `with`, and the end of the program stop
    every process by its pid and remove the folder, after an exception or Ctrl-C too.

    Raises:
        SandboxError: a program is missing (the text names Debian's package), or a server did not start.
    """

    def __init__(self, *, realm: str = "SANDBOX.TEST", user: str = "user", export: bool = True) -> None:
        self.realm = realm
        self.user = f"{user}@{realm}"
        self._export = export
        self._user = user
        self._servers: list[Server] = []
        self._exits = contextlib.ExitStack()
        self._k5: Any = None
        self._pid = os.getpid()

    # Life

    def start(self) -> None:
        """Start the realm and its first server; `with` does this, and exports the environment besides."""
        if self._k5 is not None:
            raise SandboxError("the sandbox is running already")
        for program in PACKAGES:
            find(program)
        self._pid = os.getpid()
        self._exits = contextlib.ExitStack()
        weakref.finalize(self, _close, self._exits, self._pid)
        try:
            self._start_realm()
            self.add_server()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop every process and remove the folder; stopping twice is harmless."""
        if self._pid != os.getpid():
            return
        self._exits.close()
        self._servers.clear()
        self._k5 = None

    def __enter__(self) -> Self:
        self.start()
        if self._export:
            self._exits.enter_context(self.exported())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    # Where everything is

    @property
    def server(self) -> Server:
        """The first server; `host`, `port`, `principal`, `add_command` and `add_config` are its own."""
        if not self._servers:
            raise SandboxError("the sandbox is not running")
        return self._servers[0]

    @property
    def host(self) -> str:
        """The host to connect to."""
        return self.server.host

    @property
    def port(self) -> int:
        """The first server's TCP port."""
        return self.server.port

    @property
    def principal(self) -> str:
        """The first server's principal, which is the default one for the host."""
        return self.server.principal

    @property
    def path(self) -> Path:
        """The temporary folder with everything in it."""
        return Path(self._realm().tmpdir)

    @property
    def keytab(self) -> str:
        """Path of the keytab with the keys of the servers' principals."""
        return str(self._realm().keytab)

    @property
    def ccache(self) -> str:
        """Path of the ticket cache, which holds a ticket for `user`."""
        return str(self._realm().ccache)

    @property
    def env(self) -> dict[str, str]:
        """The environment in which another process finds the realm, its ticket and the first server."""
        return {
            **os.environ,
            **self._environment(),
            "REMCTL_SANDBOX_HOST": self.host,
            "REMCTL_SANDBOX_PORT": str(self.port),
            "REMCTL_SANDBOX_PRINCIPAL": self.principal,
        }

    @contextlib.contextmanager
    def exported(self) -> Iterator[None]:
        """Put the sandbox's environment into `os.environ` for the length of a `with`."""
        environment = self._environment()
        before = {name: os.environ.get(name) for name in environment}
        os.environ.update(environment)
        try:
            yield
        finally:
            for name, value in before.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value

    # What tests add

    def add_command(
        self, command: str, subcommand: str, program: str | os.PathLike[str], *, acl: str = "ANYUSER", **options: str
    ) -> None:
        """Add a command to the first server; see `Server.add_command`."""
        self.server.add_command(command, subcommand, program, acl=acl, **options)

    def add_config(self, text: str) -> None:
        """Add configuration lines to the first server; see `Server.add_config`."""
        self.server.add_config(text)

    def add_examples(self) -> None:
        """Add the command `example` to the first server; see `Server.add_examples`."""
        self.server.add_examples()

    def add_principal(self, name: str) -> Principal:
        """Make a principal with a random password, and a keytab for it.

        Args:
            name: without realm: alice, host/other.example.org.
        """
        realm = self._realm()
        principal = Principal(
            f"{name}@{self.realm}", secrets.token_hex(), str(self.path / f"{name.replace('/', '_')}.keytab")
        )
        with _clearly(f"cannot add the principal {name!r}"):
            if self._knows(principal.name):
                raise SandboxError(f"the realm has a principal {principal.name} already")
            realm.addprinc(principal.name, principal.password)
            realm.extract_keytab(principal.name, principal.keytab)
        return principal

    def kinit(self, principal: Principal, *, ccache: str | None = None, lifetime: str | None = None) -> str:
        """Get a ticket, into a cache of its own.

        Args:
            principal: whose, from `add_principal`.
            ccache: the cache; None makes a new file in the sandbox's folder.
            lifetime: as kinit takes it: "30s", "2h"; None is the realm's default.

        Returns:
            The cache's name.
        """
        ccache = ccache or str(self.path / f"ccache-{secrets.token_hex(8)}")
        flags = ["-c", ccache, *(["-l", lifetime] if lifetime is not None else [])]
        with _clearly(f"cannot get a ticket for {principal.name}"):
            self._realm().kinit(principal.name, principal.password, flags)
        return ccache

    def add_server(self, *, principal: str = "host/localhost", address: str = _ADDRESS) -> Server:
        """Start a further server, with no commands yet; it ends with the sandbox, or with its own `stop`.

        Args:
            principal: its principal without realm, made if the realm does not know it.
            address: the loopback address to listen on.
        """
        realm = self._realm()
        full = f"{principal}@{self.realm}"
        keytab = self.keytab
        with _clearly(f"cannot make the principal {full}"):
            if not self._knows(full):
                realm.addprinc(full)
                realm.extract_keytab(full, keytab)
        folder = Path(tempfile.mkdtemp(prefix="server-", dir=self.path))
        server = Server(folder, full, keytab, {**os.environ, **self._environment()}, address)
        self._exits.callback(server.stop)
        server.start()
        self._servers.append(server)
        return server

    def _start_realm(self) -> None:
        for attempt in range(_PORT_ATTEMPTS):
            realm = _make_realm(self.realm)
            undo = self._exits.enter_context(contextlib.ExitStack())
            undo.callback(realm.stop)
            with _clearly("the realm cannot be set up"):
                realm.create_kdb()
                realm.addprinc(self.user, realm.password(self._user))
            try:
                _start_kdc(realm, undo)
            except Exception as error:
                log = Path(realm.tmpdir, "kdc.log")
                text = log.read_text() if log.exists() else ""
                if "in use" in text and attempt + 1 < _PORT_ATTEMPTS:
                    undo.close()
                    continue
                raise SandboxError(f"krb5kdc did not start: {text.strip().rpartition(chr(10))[2]}") from error
            with _clearly(f"cannot get a ticket for {self.user}"):
                realm.kinit(self.user, realm.password(self._user))
            self._k5 = realm
            return

    def _knows(self, principal: str) -> bool:
        """Whether the realm has the principal; kadmin.local exits with 0 either way."""
        return "Expiration date" in self._realm().run_kadminl(["getprinc", principal]).decode()

    def _realm(self) -> Any:
        if self._k5 is None:
            raise SandboxError("the sandbox is not running")
        return self._k5

    def _environment(self) -> dict[str, str]:
        return {str(name): str(value) for name, value in self._realm().env.items()}


def _make_realm(name: str) -> Any:
    try:
        import k5test
    except ImportError as error:
        raise SandboxError("the k5test library is missing", hint="pip install 'remctl-cffi[testing]'") from error
    return k5test.K5Realm(
        realm=name,
        portbase=min(free_port(_ADDRESS), 65535 - 9),
        krb5_conf=_KRB5_CONF,
        kdc_conf=_KDC_CONF,
        create_kdb=False,
    )


def _close(exits: contextlib.ExitStack, pid: int) -> None:
    if pid == os.getpid():
        exits.close()


def _start_kdc(realm: Any, undo: contextlib.ExitStack) -> None:
    """In a session of its own, so that a terminal's Ctrl-C does not reach it, and known before it is waited for."""
    process = subprocess.Popen(
        [realm.krb5kdc, "-n"],
        env=realm.env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )

    def stop() -> None:
        process.kill()
        process.communicate()

    undo.callback(stop)
    assert process.stdout is not None
    if not any(b"starting..." in line for line in process.stdout):
        raise RuntimeError("krb5kdc has ended")


@contextlib.contextmanager
def _clearly(what: str) -> Iterator[None]:
    """k5test raises bare exceptions; say what was being done."""
    try:
        yield
    except SandboxError:
        raise
    except Exception as error:
        raise SandboxError(f"{what}: {error}") from error
