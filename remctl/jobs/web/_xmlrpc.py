"""XML-RPC as bytes: reads what clients call, and writes answers; knows nothing of jobs.

What is read is strict, and limited in size, depth and number before anything is made of it: there are no entities and
no document types.  Two common extensions are known, `<nil/>` and `<i8>`.  Answers are written by the standard library.
"""

from __future__ import annotations

import base64
import binascii
import enum
import math
import re
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple, TypeAlias
from xmlrpc.client import Fault, dumps

from defusedxml.ElementTree import DefusedXMLParser, ParseError

Value: TypeAlias = "str | bytes | bool | int | float | list[Value] | dict[str, Value] | None"
"""A value of a call; dates are text, as they were written."""

Answer: TypeAlias = str | bool | int | float | list[Any] | dict[str, Any]
"""A value of an answer; integers have 32 bits."""

DEPTH: Final = 100
"""Elements within each other; an array within an array needs three more."""

ELEMENTS: Final = 10_000


class FaultCode(enum.IntEnum):
    """The numbers of faults: the negative ones are those that XML-RPC servers have agreed on."""

    NOT_XML = -32700
    """The body is no XML, has a document type, or is deeper or has more elements than is read."""
    NOT_XMLRPC = -32600
    """It is XML, and no call."""
    NO_SUCH_METHOD = -32601
    INVALID_ARGUMENTS = -32602
    NO_SUCH_JOB = 1
    """There is no such job that has run, or it is not the account's."""
    TOO_LONG = 2
    """There is more information than is kept."""


class Call(NamedTuple):
    """What a client wants."""

    method: str
    arguments: list[Value]


def fault(code: FaultCode, text: str) -> Fault:
    """Return an answer to a call that cannot be done, to be raised; the text is cut off where it is long."""
    return Fault(int(code), text if len(text) <= _SHOWN else f"{text[:_SHOWN]}...")


def read_call(data: bytes) -> Call:
    """Read a call.

    Raises:
        Fault: it is none.
    """
    root = _parsed(data)
    if root.tag != "methodCall" or [each.tag for each in root.children] not in _CALLS or root.text.strip():
        raise _invalid("a methodCall with a methodName, and params if there are any")
    arguments = [_only(param, "param", "value") for param in _children(root.children[1])] if root.children[1:] else []
    return Call(_text(root.children[0]).strip(), [_value(each) for each in arguments])


def write_answer(answer: Answer | Fault) -> bytes:
    """Write an answer; characters that XML cannot carry are written as Python's escapes."""
    text = dumps(answer if isinstance(answer, Fault) else (answer,), methodresponse=True)
    return _UNCARRIED.sub(lambda found: ascii(found[0])[1:-1], text).encode()


_SHOWN: Final = 500
"""Characters of a fault's text: clients may have put much into what it quotes."""

_CALLS: Final = (["methodName"], ["methodName", "params"])

_UNCARRIED: Final = re.compile("[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


# The tree


class _Element:
    """An element; attributes mean nothing in XML-RPC."""

    def __init__(self, tag: str) -> None:
        self.tag = tag
        self.children: list[_Element] = []
        self.texts: list[str] = []

    @property
    def text(self) -> str:
        return "".join(self.texts)


class _Tree:
    """Makes a tree of what a parser finds, as long as it has a sane size."""

    def __init__(self) -> None:
        self._open = [_Element("")]
        self._count = 0

    def start(self, tag: str, _: Mapping[str, str]) -> None:
        self._count += 1
        if self._count > ELEMENTS:
            raise fault(FaultCode.NOT_XML, f"there are more than {ELEMENTS} elements")
        if len(self._open) > DEPTH:
            raise fault(FaultCode.NOT_XML, f"more than {DEPTH} elements are within each other")
        element = _Element(tag)
        self._open[-1].children.append(element)
        self._open.append(element)

    def end(self, _: str) -> None:
        self._open.pop()

    def data(self, text: str) -> None:
        self._open[-1].texts.append(text)

    def close(self) -> None:
        pass

    @property
    def root(self) -> _Element:
        return self._open[0].children[0]


def _parsed(data: bytes) -> _Element:
    tree = _Tree()
    parser = DefusedXMLParser(target=tree, forbid_dtd=True)
    try:
        parser.feed(data)
        parser.close()
    except (ParseError, LookupError, ValueError) as error:  # an unknown encoding; what defusedxml refuses
        raise fault(FaultCode.NOT_XML, f"the body cannot be read as XML: {error}") from None
    return tree.root


# Values


def _value(element: _Element) -> Value:
    if not element.children:
        return element.text  # a value without a type is a string
    typed = _children(element)[0]
    if len(element.children) > 1 or typed.tag not in _READERS:
        raise _invalid("one known type in each value")
    return _READERS[typed.tag](typed)


def _integer(element: _Element) -> int:
    text = _text(element).strip()
    if not re.fullmatch(r"[+-]?[0-9]{1,19}", text) or not -(2**63) <= int(text) < 2**63:
        raise _invalid("an integer of 64 bits")
    return int(text)


def _boolean(element: _Element) -> bool:
    text = _text(element).strip()
    if text not in ("0", "1"):
        raise _invalid("a boolean of 0 or 1")
    return text == "1"


def _double(element: _Element) -> float:
    text = _text(element).strip()
    if len(text) > _LONGEST or not re.fullmatch(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?", text):
        raise _invalid("a double of decimal digits")
    if not math.isfinite(number := float(text)):
        raise _invalid("a double of 64 bits")
    return number


def _base64(element: _Element) -> bytes:
    try:
        return base64.b64decode("".join(_text(element).split()), validate=True)
    except (binascii.Error, ValueError):
        raise _invalid("base64") from None


def _array(element: _Element) -> list[Value]:
    data = _only(element, "array", "data")
    return [_value(each) for each in _children(data, "value")]


def _struct(element: _Element) -> dict[str, Value]:
    members: dict[str, Value] = {}
    for member in _children(element, "member"):
        if [each.tag for each in _children(member)] != ["name", "value"]:
            raise _invalid("a name and a value in each member")
        name, value = member.children
        if (key := _text(name)) in members:
            raise _invalid(f"each member once, and not {key!r} twice")
        members[key] = _value(value)
    return members


def _nil(element: _Element) -> None:
    if _text(element).strip():
        raise _invalid("nothing in nil")


def _text(element: _Element) -> str:
    if element.children:
        raise _invalid(f"text alone in {element.tag}")
    return element.text


def _children(element: _Element, tag: str | None = None) -> list[_Element]:
    """The elements in one that holds no text; None is any elements."""
    if element.text.strip() or any(each.tag != tag for each in element.children if tag is not None):
        raise _invalid(f"{tag or 'element'}s alone in {element.tag}")
    return element.children


def _only(element: _Element, tag: str, child: str) -> _Element:
    if element.tag != tag or len(_children(element, child)) != 1:
        raise _invalid(f"one {child} in each {tag}")
    return element.children[0]


def _invalid(expected: str) -> Fault:
    return fault(FaultCode.NOT_XMLRPC, f"the body is no XML-RPC: there must be {expected}")


_LONGEST: Final = 1000
"""Characters of a double."""

_READERS: Final[Mapping[str, Callable[[_Element], Value]]] = {
    "string": _text,
    "int": _integer,
    "i4": _integer,
    "i8": _integer,
    "boolean": _boolean,
    "double": _double,
    "dateTime.iso8601": _text,
    "base64": _base64,
    "array": _array,
    "struct": _struct,
    "nil": _nil,
}
