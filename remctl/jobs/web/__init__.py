"""What the jobs say over HTTP: reports of scripts by XML-RPC, jobs for robots, and the page for people.

Each subject is a module with a function `routes`; `application` is all of them together, and `serving` has a server
speak it.
"""

from remctl.jobs.web._application import application
from remctl.jobs.web._serving import ServingError, serving

__all__ = ["ServingError", "application", "serving"]
