"""The race of addresses, with attempts that a test lets win or fail, on a Clock (RFC 8305)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectBindError, NoRouteError, TCPTimedOutError, UserError
from twisted.internet.error import ConnectError as TwistedConnectError
from twisted.internet.error import ConnectionRefusedError as TwistedRefused
from twisted.internet.protocol import Protocol
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from scrapy_poolplus.core.errors import ConnectError, ConnectRefusedError, Phase, PhaseTimeoutError, TLSError
from scrapy_poolplus.net.race import Race, interleaved


@dataclass
class Attempt:
    """What connectTCP was asked for; also the connector that it returns."""

    address: str
    port: int
    factory: Any
    bind: tuple[str, int] | None
    at: float
    stopped: bool = False

    def stopConnecting(self) -> None:
        self.stopped = True
        self.fail(UserError())

    def fail(self, error: Exception) -> None:
        self.factory.clientConnectionFailed(self, Failure(error))

    def connect(self) -> Protocol | None:
        protocol: Protocol | None = self.factory.buildProtocol(IPv4Address("TCP", self.address, self.port))
        return protocol


@dataclass
class Network(Clock):
    """A reactor that connects when the test says so."""

    attempts: list[Attempt] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()

    def connectTCP(self, host: str, port: int, factory: Any, **options: Any) -> Attempt:
        assert options["timeout"] is None  # The dial has one; another would be one more timer per attempt.
        attempt = Attempt(host, port, factory, options["bindAddress"], self.seconds())
        self.attempts.append(attempt)
        if "nosuch" in host:
            raise OSError("no such zone")
        return attempt

    def tried(self) -> list[tuple[str, float]]:
        return [(attempt.address, attempt.at) for attempt in self.attempts]


class Scene:
    def __init__(self, *addresses: str, bind: tuple[str, int] | None = None, build: Any = Protocol) -> None:
        self.network = Network()
        self.race = Race(
            self.network, addresses, 443, binds=(bind,) if bind else (), place="a.example:443", build=build
        )
        self.results: list[Any] = []
        self.race.result.addBoth(self.results.append)

    @property
    def error(self) -> Exception:
        (failure,) = self.results
        error: Exception = failure.value
        return error


def test_families_take_turns_and_the_resolvers_first_begins() -> None:
    assert interleaved(["::1", "::2", "::3", "10.0.0.1", "10.0.0.2"]) == ["::1", "10.0.0.1", "::2", "10.0.0.2", "::3"]
    assert interleaved(["10.0.0.1", "10.0.0.2", "::1"]) == ["10.0.0.1", "::1", "10.0.0.2"]
    assert interleaved(["10.0.0.1"]) == ["10.0.0.1"]
    assert interleaved([]) == []


def test_one_more_address_is_tried_each_quarter_of_a_second() -> None:
    scene = Scene("::1", "::2", "10.0.0.1")
    scene.network.pump([0.24, 0.01, 0.25, 0.25])
    assert scene.network.tried() == [("::1", 0.0), ("10.0.0.1", 0.25), ("::2", 0.5)]
    assert scene.network.getDelayedCalls() == []


def test_the_first_to_connect_wins_and_the_others_are_stopped() -> None:
    scene = Scene("::1", "10.0.0.1", "10.0.0.2")
    scene.network.advance(0.25)
    first, second = scene.network.attempts
    protocol = second.connect()
    assert isinstance(protocol, Protocol)
    assert scene.results == [None]
    assert (first.stopped, second.stopped) == (True, False)
    assert scene.network.getDelayedCalls() == []


def test_a_second_that_connects_all_the_same_is_closed() -> None:
    scene = Scene("::1", "10.0.0.1")
    scene.network.advance(0.25)
    first, second = scene.network.attempts
    first.connect()
    assert second.connect() is None  # Twisted closes what has no protocol.


def test_a_failure_brings_the_next_address_at_once_and_starts_the_delay_anew() -> None:
    scene = Scene("10.0.0.1", "10.0.0.2", "10.0.0.3")
    scene.network.advance(0.1)
    scene.network.attempts[0].fail(TwistedRefused())
    scene.network.advance(0.24)
    assert scene.network.tried() == [("10.0.0.1", 0.0), ("10.0.0.2", 0.1)]
    scene.network.advance(0.02)
    assert len(scene.network.attempts) == 3


def test_a_failure_of_the_last_waits_for_those_under_way() -> None:
    scene = Scene("10.0.0.1", "10.0.0.2")
    scene.network.advance(0.25)
    scene.network.attempts[1].fail(TwistedRefused(111, "Connection refused"))
    assert scene.results == []
    scene.network.attempts[0].connect()
    assert scene.results == [None]


@pytest.mark.parametrize("order", [1, -1])
def test_of_several_failures_the_most_telling_gives_the_error_and_all_are_named(order: int) -> None:
    scene = Scene("10.0.0.1", "10.0.0.2", "::1")
    errors = [
        TwistedRefused(111, "Connection refused"),
        TCPTimedOutError(110, "Connection timed out"),
        NoRouteError(101, "Network is unreachable"),
    ]
    for number, error in enumerate(errors[::order]):
        scene.network.attempts[number].fail(error)
    assert isinstance(scene.error, ConnectRefusedError)
    assert scene.error.__cause__ is errors[0]
    text = str(scene.error)
    assert text.startswith("connecting to a.example:443 failed: 10.0.0.1: ")
    for part in ("Connection refused", "Connection timed out", "Network is unreachable", "; ::1: "):
        assert part in text


def test_the_systems_own_time_out_is_a_time_out_and_beats_a_missing_network() -> None:
    scene = Scene("10.0.0.1", "::1")
    scene.network.attempts[0].fail(NoRouteError(101, "Network is unreachable"))
    scene.network.advance(127)
    scene.network.attempts[1].fail(TCPTimedOutError(110, "Connection timed out"))
    assert isinstance(scene.error, PhaseTimeoutError)
    assert (scene.error.phase, scene.error.seconds) == (Phase.CONNECT, 127)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (NoRouteError(101, "Network is unreachable"), "Network is unreachable"),
        (ConnectBindError(99, "Cannot assign"), "the bind address cannot be used (Cannot assign)"),
        (TwistedConnectError(113, "No route to host"), "No route to host"),
        (TwistedConnectError(), "An error occurred while connecting"),
    ],
)
def test_other_failures_are_connect_errors_in_the_systems_words(error: Exception, reason: str) -> None:
    scene = Scene("10.0.0.1")
    scene.network.attempts[0].fail(error)
    assert type(scene.error) is ConnectError
    assert str(scene.error) == f"connecting to a.example:443 failed: 10.0.0.1: {reason}"


def test_an_attempt_that_cannot_even_begin_counts_as_failed() -> None:
    scene = Scene("fe80::1%nosuch", "fe80::2%nosuch", "10.0.0.1")
    assert [attempt.address for attempt in scene.network.attempts] == ["fe80::1%nosuch", "10.0.0.1"]
    scene.network.attempts[1].fail(TwistedRefused(111, "Connection refused"))
    assert "fe80::2%nosuch: no such zone" in str(scene.error)
    assert isinstance(scene.error, ConnectRefusedError)


def test_a_cancel_stops_every_attempt_and_the_delay() -> None:
    scene = Scene("10.0.0.1", "10.0.0.2", "10.0.0.3")
    scene.network.advance(0.25)
    scene.race.result.cancel()
    assert [attempt.stopped for attempt in scene.network.attempts] == [True, True]
    assert scene.network.getDelayedCalls() == []
    scene.network.advance(10)
    assert len(scene.network.attempts) == 2
    assert len(scene.results) == 1


def test_the_bind_address_and_port_go_with_each_attempt() -> None:
    scene = Scene("10.0.0.1", bind=("10.0.0.9", 0))
    (attempt,) = scene.network.attempts
    assert (attempt.port, attempt.bind) == (443, ("10.0.0.9", 0))


def test_an_error_while_the_protocol_is_built_is_the_result() -> None:
    error = TLSError("no options", phase=Phase.TLS)

    def build() -> Protocol:
        raise error

    scene = Scene("10.0.0.1", build=build)
    assert scene.network.attempts[0].connect() is None
    assert scene.error is error
