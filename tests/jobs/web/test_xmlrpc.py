"""Bytes of XML-RPC: whatever a client can write is read as it was meant, or refused with the number that says why."""

from __future__ import annotations

import xmlrpc.client
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remctl.jobs.web._xmlrpc import DEPTH, ELEMENTS, Call, FaultCode, fault, read_call, write_answer

CONTROLS = "".join(chr(number) for number in range(32) if chr(number) not in "\t\n")

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters=f"{CONTROLS}\ufffe\uffff"))
"""What XML can carry as it is; a carriage return becomes another line end."""

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**31), 2**31 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    TEXT,
    st.binary(),
)

VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4))


def call_of(*values: str, method: str = "name") -> bytes:
    """Write a call with values that are XML already."""
    params = "".join(f"<param>{each}</param>" for each in values)
    return f"<methodCall><methodName>{method}</methodName><params>{params}</params></methodCall>".encode()


def value(xml: str) -> Any:
    """Read one value."""
    (found,) = read_call(call_of(f"<value>{xml}</value>")).arguments
    return found


def code(body: bytes) -> FaultCode:
    """Read a body that is refused; return why."""
    with pytest.raises(xmlrpc.client.Fault) as caught:
        read_call(body)
    assert len(caught.value.faultString) < 600
    return FaultCode(caught.value.faultCode)


class TestRead:
    @given(st.lists(VALUES, max_size=4))
    def test_gives_all_that_a_client_can_write(self, values: list[Any]) -> None:
        written = xmlrpc.client.dumps(tuple(values), "some.method", allow_none=True)
        assert repr(read_call(written.encode())) == repr(Call("some.method", values))

    @given(st.integers(-(2**63), 2**63 - 1))
    def test_gives_integers_of_64_bits(self, number: int) -> None:
        assert value(f"<i8>{number}</i8>") == number

    def test_gives_what_other_clients_write(self) -> None:
        assert value("no type") == "no type"
        assert value("") == ""
        assert value("\n  <string> kept </string>\n") == " kept "
        assert value("<string/>") == ""
        assert value("<i4> +7 </i4>") == 7
        assert value("<double>-.5</double>") == -0.5
        assert value("<base64>\n YWJj\n ZGVm \n</base64>") == b"abcdef"
        assert value("<string><![CDATA[<&]]></string>") == "<&"
        assert value("<string>a<!-- no -->b</string>") == "ab"
        assert value('<string xml:space="preserve">a</string>') == "a"
        assert value("<array><data/></array>") == []
        assert value("<struct/>") == {}
        assert value("<dateTime.iso8601>20260102T03:04:05</dateTime.iso8601>") == "20260102T03:04:05"
        assert read_call(b"<methodCall><methodName> a </methodName></methodCall>") == Call("a", [])

    def test_gives_a_line_end_for_each_kind_of_line_end(self) -> None:
        assert value("<string>a\r\nb\rc\nd&#13;e</string>") == "a\nb\nc\nd\re"

    @pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "iso-8859-1", "utf-16", "cp1252"])
    def test_gives_text_in_the_encoding_that_the_xml_declares(self, encoding: str) -> None:
        declared = encoding.removesuffix("-sig")
        body = f"<?xml version='1.0' encoding='{declared}'?>" + call_of("<value>größer</value>").decode()
        assert read_call(body.encode(encoding)).arguments == ["größer"]

    @pytest.mark.parametrize(
        "xml",
        [
            "<unknown/>",
            "<int/>",
            "<int>1.5</int>",
            "<int>0x10</int>",
            "<int>1_000</int>",
            "<int>\N{ARABIC-INDIC DIGIT ONE}</int>",
            f"<i8>{2**63}</i8>",
            f"<int>{'9' * 100_000}</int>",
            "<boolean>true</boolean>",
            "<boolean>2</boolean>",
            "<double>nan</double>",
            "<double>inf</double>",
            "<double>1e999</double>",
            f"<double>{'1' * 100_000}</double>",
            "<double>.</double>",
            "<base64>a</base64>",
            "<base64>ä</base64>",
            "<base64>!!!!</base64>",
            "<nil>x</nil>",
            "<array/>",
            "<array><data/><data/></array>",
            "<array><value/></array>",
            "<array><data>x</data></array>",
            "<array><data><int>1</int></data></array>",
            "<struct><member/></struct>",
            "<struct><name>a</name></struct>",
            "<struct><member><value/><name>a</name></member></struct>",
            "<struct><member><name>a</name><value/></member><member><name>a</name><value/></member></struct>",
            "<struct><member><name><b/></name><value/></member></struct>",
            "text<int>1</int>",
            "<int>1</int><int>2</int>",
            "<string><b/></string>",
            "<x:int xmlns:x='urn:x'>1</x:int>",
        ],
    )
    def test_refuses_a_value_that_is_none(self, xml: str) -> None:
        assert code(call_of(f"<value>{xml}</value>")) is FaultCode.NOT_XMLRPC

    @pytest.mark.parametrize(
        "body",
        [
            b"<a/>",
            b"<methodCall/>",
            b"<methodCall><params/></methodCall>",
            b"<methodCall>x<methodName>a</methodName></methodCall>",
            b"<methodCall><methodName>a</methodName><methodName>a</methodName></methodCall>",
            b"<methodCall><methodName>a</methodName><params/><params/></methodCall>",
            b"<methodCall><methodName>a</methodName><params><value/></params></methodCall>",
            b"<methodCall><methodName>a</methodName><params><param/></params></methodCall>",
            b"<methodCall><methodName>a</methodName><params><param><value/><value/></param></params></methodCall>",
            b"<methodResponse><params/></methodResponse>",
            b"<" + b"a" * 100_000 + b"/>",
        ],
    )
    def test_refuses_what_is_no_call(self, body: bytes) -> None:
        assert code(body) is FaultCode.NOT_XMLRPC

    @pytest.mark.parametrize(
        "body",
        [
            b"",
            b"\0",
            b"not XML",
            b"\x1f\x8b\x08\0\0",
            b"<a>&nothing;</a>",
            b"<a>&#0;</a>",
            b"<a>&#1;</a>",
            b"<a>&#xD800;</a>",
            b"<a>\x01</a>",
            b"<a>\xff</a>",
            b"<a>\xed\xa0\x80</a>",
            b"<?xml version='1.0' encoding='nothing'?><a/>",
            b"<?xml version='1.0' encoding='utf-7'?><a/>",
            b"<?xml version='1.0' encoding='hex'?><a/>",
            b"<!DOCTYPE a><a/>",
            b"<!DOCTYPE a SYSTEM 'file:///etc/passwd'><a/>",
            b"<!DOCTYPE a [<!ENTITY b SYSTEM 'file:///etc/passwd'>]><a>&b;</a>",
            b"<!DOCTYPE a [<!ENTITY b 'bb'><!ENTITY c '&b;&b;'><!ENTITY d '&c;&c;'>]><a>&d;</a>",
            b"<!DOCTYPE a [<!ENTITY % b SYSTEM 'http://127.0.0.1:1/'>%b;]><a/>",
            call_of("<value>") + b"<a>" * 300_000,
            call_of("<value><array><data>" * 100 + "</data></array></value>" * 100),
            call_of("<value/>" * ELEMENTS),
        ],
        ids=lambda body: repr(body[:40]),
    )
    def test_refuses_what_is_no_xml_or_too_much_of_it(self, body: bytes) -> None:
        assert code(body) is FaultCode.NOT_XML

    @given(st.binary() | st.text("<>/!?&;#[] ='abcdmethodCallvue0", max_size=200).map(str.encode))
    def test_refuses_anything_else(self, body: bytes) -> None:
        code(body)

    @given(st.data())
    def test_refuses_a_call_that_is_cut_off(self, data: st.DataObject) -> None:
        whole = xmlrpc.client.dumps((17, True, {"a": [1.5, b"bytes"]}), "postInformation").strip().encode()
        size = data.draw(st.integers(0, len(whole) - 1))
        assert code(whole[:size]) is FaultCode.NOT_XML

    def test_takes_arrays_within_each_other_up_to_the_limit(self) -> None:
        depth = (DEPTH - 4) // 3
        nested = value("<array><data><value>" * depth + "</value></data></array>" * depth)
        for _ in range(depth):
            (nested,) = nested
        assert nested == ""


class TestWrite:
    @given(st.recursive(TEXT | st.booleans() | st.floats(allow_nan=False), lambda inner: st.lists(inner, max_size=3)))
    def test_gives_what_a_client_reads(self, answer: Any) -> None:
        assert xmlrpc.client.loads(write_answer(answer)) == ((answer,), None)

    @given(st.text(st.characters(exclude_characters="\r")))
    def test_gives_text_that_xml_can_carry(self, text: str) -> None:
        ((found,), _) = xmlrpc.client.loads(write_answer(text))
        assert isinstance(found, str)

    def test_shows_what_xml_cannot_carry(self) -> None:
        assert xmlrpc.client.loads(write_answer("a\0b\x1b[1m\ud800\uffff"))[0] == (r"a\x00b\x1b[1m\ud800\uffff",)

    def test_gives_a_fault_that_a_client_raises(self) -> None:
        with pytest.raises(xmlrpc.client.Fault, match="<no> & \\.\\.\\.") as caught:
            xmlrpc.client.loads(write_answer(fault(FaultCode.NO_SUCH_JOB, "<no> & ...")))
        assert caught.value.faultCode == 1
