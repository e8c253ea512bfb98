"""What the protocol needs of GSS-API, as an interface: the core is handed an object that has it.

`remctl.security` has the real ones; a test, or a program with another GSS-API library, brings its own.
"""

from __future__ import annotations

from typing import Protocol


class SecurityContext(Protocol):
    """One side of a security context that two peers set up, and then protect their messages with.

    Every method raises `RemctlAuthenticationError` when GSS-API refuses.  The protocol uses a context from one thread
    at a time, and wraps messages in the order in which they are sent.
    """

    @property
    def complete(self) -> bool:
        """Whether both sides have authenticated.

        Raises the error of a step that failed and had a token to tell the other side so.
        """

    @property
    def lacking(self) -> tuple[str, ...]:
        """Which of mutual authentication, confidentiality and integrity a complete context does not give."""

    def step(self, token: bytes | None) -> bytes | None:
        """Take the other side's context token (None: there is none yet), and return this side's next, if any.

        May block: the initiator's first step asks a KDC, the acceptor's reads the keytab.
        """

    def wrap(self, message: bytes) -> bytes:
        """Return the message encrypted and authenticated (gss_wrap, with confidentiality)."""

    def unwrap(self, token: bytes) -> bytes:
        """Return the message, if it was encrypted, is authentic, and is the next one (gss_unwrap)."""

    def sign(self, message: bytes) -> bytes:
        """Return the MIC of a message (gss_get_mic); protocol 1 alone."""

    def verify(self, message: bytes, mic: bytes) -> None:
        """Check the MIC of a message (gss_verify_mic); protocol 1 alone."""
