"""The tables of states: complete, consistent, and alike where the two roles meet."""

from __future__ import annotations

import pytest

from remctl.exceptions import RemctlError, RemctlProtocolError
from remctl.protocol.state import CLIENT, SERVER, V1_CLIENT, V1_SERVER, LocalProtocolError, Machine, Said, State, Table

TABLES = [
    pytest.param(CLIENT, id="client"),
    pytest.param(SERVER, id="server"),
    pytest.param(V1_CLIENT, id="client of protocol 1"),
    pytest.param(V1_SERVER, id="server of protocol 1"),
]

PAIRS = [pytest.param(CLIENT, SERVER, id="2 and 3"), pytest.param(V1_CLIENT, V1_SERVER, id="protocol 1")]

HANDSHAKE = {Said.FIRST, Said.CONTEXT, Said.ESTABLISHED}
BY_CLIENT = {Said.COMMAND, Said.FIRST_PIECE, Said.MIDDLE_PIECE, Said.LAST_PIECE, Said.NOOP, Said.QUIT}
BY_SERVER = {Said.OUTPUT, Said.STATUS, Said.ERROR, Said.VERSION, Said.NOOP_ANSWER, Said.MIC, Said.RESULT}

EXPECTED_STATES = [
    pytest.param(CLIENT, set(State) - {State.DISCARDING, State.MIC}, id="client"),
    pytest.param(SERVER, set(State) - {State.MIC}, id="server"),
    pytest.param(
        V1_CLIENT,
        {State.START, State.NEGOTIATING, State.IDLE, State.MIC, State.ANSWER, State.CLOSED},
        id="client of protocol 1",
    ),
    pytest.param(
        V1_SERVER,
        {State.START, State.NEGOTIATING, State.IDLE, State.MIC, State.ANSWER, State.CLOSED},
        id="server of protocol 1",
    ),
]


def reachable(table: Table, begin: State = State.START) -> set[State]:
    found: set[State] = set()
    todo = [begin]
    while todo:
        state = todo.pop()
        if state not in found:
            found.add(state)
            todo += table.get(state, {}).values()
    return found


def machine(table: Table, state: State) -> Machine:
    made = Machine(table)
    made.state = state
    return made


class TestTables:
    def test_everything_that_is_said_is_said_by_someone(self) -> None:
        assert set(Said) == HANDSHAKE | BY_CLIENT | BY_SERVER

    @pytest.mark.parametrize("table", TABLES)
    def test_lead_from_states_to_states(self, table: Table) -> None:
        for state, entries in table.items():
            assert isinstance(state, State)
            assert entries
            for said, following in entries.items():
                assert isinstance(said, Said)
                assert isinstance(following, State)

    @pytest.mark.parametrize(("table", "states"), EXPECTED_STATES)
    def test_reach_each_state_they_have_and_no_other(self, table: Table, states: set[State]) -> None:
        assert reachable(table) == states
        assert set(table) <= states

    @pytest.mark.parametrize("table", TABLES)
    def test_closed_has_no_way_out(self, table: Table) -> None:
        assert State.CLOSED not in table

    @pytest.mark.parametrize("table", TABLES)
    def test_closed_is_reached_from_every_state(self, table: Table) -> None:
        for state in table:
            assert State.CLOSED in reachable(table, state)

    @pytest.mark.parametrize("table", TABLES)
    def test_nothing_leads_back_to_the_handshake(self, table: Table) -> None:
        for state in set(table) - {State.START, State.NEGOTIATING}:
            assert not reachable(table, state) & {State.START, State.NEGOTIATING}

    @pytest.mark.parametrize("table", TABLES)
    def test_only_the_handshake_has_its_tokens(self, table: Table) -> None:
        for state, entries in table.items():
            assert bool(HANDSHAKE & set(entries)) == (state in (State.START, State.NEGOTIATING))

    @pytest.mark.parametrize(("client", "server"), PAIRS)
    def test_what_a_client_says_takes_both_sides_to_the_same_state(self, client: Table, server: Table) -> None:
        for state, entries in client.items():
            for said in (HANDSHAKE | BY_CLIENT) & set(entries):
                if (client, said) == (V1_CLIENT, Said.QUIT):
                    assert said not in server[state], "protocol 1 has no QUIT on the wire"
                else:
                    assert server[state][said] is entries[said]

    @pytest.mark.parametrize(("client", "server"), PAIRS)
    @pytest.mark.parametrize("state", [State.ANSWER, State.NOOP])
    def test_what_a_server_answers_takes_both_sides_to_the_same_state(
        self, client: Table, server: Table, state: State
    ) -> None:
        for said, following in server.get(state, {}).items():
            assert said in BY_SERVER
            assert client[state][said] is following

    def test_a_client_takes_a_refusal_wherever_a_server_gives_one_in_the_middle_of_a_command(self) -> None:
        assert SERVER[State.PIECES][Said.ERROR] is State.DISCARDING
        assert CLIENT[State.PIECES][Said.ERROR] is State.CLOSED
        assert CLIENT[State.ANSWER][Said.ERROR] is State.IDLE

    def test_a_server_that_discards_takes_all_that_an_idle_one_takes(self) -> None:
        assert SERVER[State.IDLE].items() <= SERVER[State.DISCARDING].items()

    @pytest.mark.parametrize("table", [CLIENT, V1_CLIENT])
    def test_a_client_speaks_when_idle_or_within_a_command(self, table: Table) -> None:
        for state, entries in table.items():
            if BY_CLIENT & set(entries):
                assert state in (State.IDLE, State.PIECES)


class TestMachine:
    @pytest.mark.parametrize("table", TABLES)
    @pytest.mark.parametrize("state", list(State))
    def test_goes_where_the_table_says_and_nowhere_else(self, table: Table, state: State) -> None:
        for said in Said:
            following = table.get(state, {}).get(said)
            speaker, hearer = machine(table, state), machine(table, state)
            assert speaker.allows(said) == (following is not None)
            if following is None:
                with pytest.raises(LocalProtocolError, match=f"{said.value} cannot be sent: .*'{state.value}'"):
                    speaker.say(said)
                with pytest.raises(RemctlProtocolError, match=f"{said.value} came that nobody had asked for"):
                    hearer.hear(said)
            else:
                speaker.say(said)
                hearer.hear(said)
            assert speaker.state is hearer.state is (following or state)

    def test_begins_at_the_start_and_keeps_the_connection(self) -> None:
        made = Machine(CLIENT)
        assert made.state is State.START
        assert made.keep_alive

    @pytest.mark.parametrize("table", [CLIENT, SERVER])
    @pytest.mark.parametrize("end", [Said.STATUS, Said.ERROR])
    @pytest.mark.parametrize(("keep_alive", "following"), [(True, State.IDLE), (False, State.CLOSED)])
    def test_keep_alive_decides_what_follows_an_answer(
        self, table: Table, end: Said, keep_alive: bool, following: State
    ) -> None:
        made = machine(table, State.ANSWER)
        made.keep_alive = keep_alive
        made.say(Said.OUTPUT) if table is SERVER else made.hear(Said.OUTPUT)
        assert made.state is State.ANSWER
        made.say(end) if table is SERVER else made.hear(end)
        assert made.state is following

    def test_keep_alive_is_about_answers_alone(self) -> None:
        made = machine(SERVER, State.NOOP)
        made.keep_alive = False
        made.say(Said.NOOP_ANSWER)
        assert made.state is State.IDLE

    @pytest.mark.parametrize("state", list(State))
    def test_closing_ends_it_from_anywhere(self, state: State) -> None:
        made = machine(SERVER, state)
        made.close()
        assert made.state is State.CLOSED
        assert not any(made.allows(said) for said in Said)

    def test_a_programs_mistake_is_an_error_of_this_package_and_not_the_peers(self) -> None:
        assert issubclass(LocalProtocolError, RemctlError)
        assert not issubclass(LocalProtocolError, RemctlProtocolError)
