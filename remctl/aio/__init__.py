"""remctl for asyncio: `Remctl` and `remctl()` as the blocking ones, awaited, and `serve()`, a server in the program.

    >>> async with remctl.aio.Remctl("host.example.org") as session:
    ...     await session.run(["test", "hello"])
    Result(stdout=b'hello world\\n', stderr=b'', status=0)

All stand on `remctl.protocol` and `remctl.security`; libremctl has no part in it.  Needs python-gssapi:
`pip install 'remctl-cffi[aio]'`.
"""

from remctl.aio._many import run_many
from remctl.aio.client import Remctl, remctl
from remctl.aio.server import Request, Server, serve

__all__ = ["Remctl", "Request", "Server", "remctl", "run_many", "serve"]
