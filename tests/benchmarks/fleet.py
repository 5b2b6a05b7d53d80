"""A simulation of a fleet of silo replicas behind a balancer, call by call, with service times that were measured.

A pod has one worker, which answers one query after the other. It holds public keys and leases of rows, and loses both
when it is replaced. Leases come from one ledger, which does some at once. Clients and pods behave as those of
Sealign do: a client whose key is unknown sends it with that call and 15 more; a pod leases 256 rows at a time, keeps
at most 64 queries waiting, of one identity at most 48, and refuses the rest at once.
"""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush, heapreplace

import numpy as np
from numpy.typing import NDArray

LEASE, SENDS = 256, 16
ROOM, ROOM_OF_ONE = 64, 48
_RETRY = 0.1
"""Seconds after which a refused client asks again, doubled each time."""


@dataclass(frozen=True)
class Costs:
    """Seconds of one core.

    Attributes:
        query: samples, of queries under a known key.
        key: of taking a key, besides.
        refusal: of a refused call.
        lease: of a transaction of the ledger.
        at_once: transactions that the ledger does at the same time, of different clients.
    """

    query: NDArray[np.float64]
    key: float
    refusal: float
    lease: float
    at_once: int


@dataclass(frozen=True)
class Load:
    """What comes, and where it goes.

    Attributes:
        pods: replicas of one worker.
        clients: that send equally often; a flood is one more.
        rate: queries per second of all of them.
        seconds: simulated; the first tenth is not counted if ``warm``.
        affine: pods that a client's calls go to; None for all. Of these, the less busy of two is taken.
        warm: whether keys and leases are there at the beginning.
        restart: seconds between the replacements of two pods, each once; None for none.
        flood: queries per second of one more client, which does not wait for answers.
        limit: queries per second that a pod answers to one client, by its policy; None for no limit.
    """

    pods: int
    clients: int
    rate: float
    seconds: float
    affine: int | None = None
    warm: bool = True
    restart: float | None = None
    flood: float = 0.0
    limit: float | None = None


@dataclass
class Outcome:
    """What happened to the clients, the flood aside.

    Attributes:
        milliseconds: from the first attempt to the answer.
        attempts: calls at pods.
        keyed, unknown, refused: calls that brought a key, that lacked one, that found no room or were over a limit.
        leases: transactions of the ledger.
        ledger_wait: longest time of one, ms.
        flood_answered: queries of the flood that were answered.
    """

    milliseconds: list[float] = field(default_factory=list)
    attempts: int = 0
    keyed: int = 0
    unknown: int = 0
    refused: int = 0
    leases: int = 0
    ledger_wait: float = 0.0
    flood_answered: int = 0
    busy: float = 0.0


@dataclass
class _Pod:
    free: float = 0.0
    waiting: deque[tuple[float, int]] = field(default_factory=deque)
    by_client: Counter[int] = field(default_factory=Counter)
    keys: set[int] = field(default_factory=set)
    leases: dict[int, int] = field(default_factory=dict)
    leasing: dict[int, float] = field(default_factory=dict)
    tokens: dict[int, tuple[float, float]] = field(default_factory=dict)

    def settle(self, now: float) -> None:
        """Forget what has been answered."""
        while self.waiting and self.waiting[0][0] <= now:
            self.by_client[self.waiting.popleft()[1]] -= 1

    def within(self, client: int, now: float, limit: float) -> bool:
        """Return whether a client is within its rate; a burst is one second's."""
        left, since = self.tokens.get(client, (limit, now))
        left = min(limit, left + (now - since) * limit)
        self.tokens[client] = (left - 1 if left >= 1 else left, now)
        return left >= 1


@dataclass(order=True)
class _Call:
    at: float
    number: int
    client: int = field(compare=False)
    born: float = field(compare=False)
    tries: int = field(default=0, compare=False)
    pod: int | None = field(default=None, compare=False)
    keyed: bool = field(default=False, compare=False)


class Fleet:
    """A fleet under a load.

    Args:
        costs: measured.
        load: of the clients.
        seed: of what is drawn.
    """

    def __init__(self, costs: Costs, load: Load, seed: int = 0) -> None:
        self._costs, self._load = costs, load
        self._rng = np.random.default_rng(seed)
        self._pods = [_Pod() for _ in range(load.pods)]
        self._sends: defaultdict[int, int] = defaultdict(lambda: 0 if load.warm else 1)
        self._ledger = [0.0] * costs.at_once  # a heap: when each transaction ends
        self._later: list[_Call] = []
        self._numbers = 0
        self.outcome = Outcome()
        if load.warm:
            for number, pod in enumerate(self._pods):
                mine = [client for client in range(load.clients + 1) if number in self._homes(client)]
                pod.keys.update(mine)
                pod.leases.update({client: int(left) for client, left in zip(mine, self._left(len(mine)), strict=True)})

    def run(self) -> Outcome:
        """Simulate all calls, and return what happened."""
        services = self._endless(lambda: self._rng.choice(self._costs.query, 1 << 16))
        picks = self._endless(lambda: self._rng.random(1 << 16))
        restarted = 0
        for call in self._calls():
            while self._load.restart and restarted < min(len(self._pods), int(call.at / self._load.restart)):
                pod = self._pods[restarted]  # the new one is there before the old one goes
                pod.keys, pod.leases, pod.leasing = set(), {}, {}
                restarted += 1
            self._serve(call, next(services), (next(picks), next(picks)))
        return self.outcome

    def _calls(self) -> Iterator[_Call]:
        """Yield calls in the order of time, those that are sent again included."""
        load = self._load
        fresh = self._poisson(load.rate, load.clients, 0)
        if load.flood:
            fresh = sorted([*fresh, *self._poisson(load.flood, 1, load.clients)])
        for at, client in fresh:
            while self._later and self._later[0].at <= at:
                yield heappop(self._later)
            self._numbers += 1
            yield _Call(at, self._numbers, client, at)
        while self._later:
            yield heappop(self._later)

    def _poisson(self, rate: float, clients: int, first: int) -> list[tuple[float, int]]:
        count = self._rng.poisson(rate * self._load.seconds)
        times = np.sort(self._rng.random(count)) * self._load.seconds
        return list(zip(times.tolist(), (first + self._rng.integers(0, clients, count)).tolist(), strict=True))

    def _serve(self, call: _Call, service: float, picks: tuple[float, float]) -> None:
        if call.pod is None:
            call.pod = self._chosen(call.client, picks)
            call.keyed = self._sends[call.client] > 0
            self._sends[call.client] -= call.keyed
        pod, now, is_flood = self._pods[call.pod], call.at, call.client == self._load.clients
        pod.settle(now)
        self.outcome.attempts += not is_flood
        full = len(pod.waiting) >= ROOM or pod.by_client[call.client] >= ROOM_OF_ONE
        if full or (self._load.limit is not None and not pod.within(call.client, now, self._load.limit)):
            self._refuse(call, pod, is_flood)
        elif call.client not in pod.keys and not call.keyed:
            self._work(pod, now, self._costs.refusal)
            self._sends[call.client] = SENDS
            self.outcome.unknown += not is_flood
            self._again(call, pod.free)
        elif (ready := self._leased(pod, call.client, now)) > now:
            self.outcome.attempts -= not is_flood  # the same call, when its lease is there
            call.at = ready
            heappush(self._later, call)
        else:
            pod.leases[call.client] -= 1
            pod.keys.add(call.client)
            self._work(pod, now, service + call.keyed * self._costs.key)
            pod.waiting.append((pod.free, call.client))
            pod.by_client[call.client] += 1
            self._answered(call, pod.free, is_flood)

    def _answered(self, call: _Call, at: float, is_flood: bool) -> None:
        if is_flood:
            self.outcome.flood_answered += 1
        elif not self._load.warm or call.born >= 0.1 * self._load.seconds:
            self.outcome.milliseconds.append((at - call.born) * 1e3)
            self.outcome.keyed += call.keyed

    def _leased(self, pod: _Pod, client: int, now: float) -> float:
        """Return when a client has a row at a pod; now if it does."""
        if pod.leases.get(client, 0) > 0:
            return now
        ready = pod.leasing.get(client, 0.0)
        if ready and ready <= now:
            pod.leases[client] = LEASE
            del pod.leasing[client]
            return now
        if not ready:
            ready = max(now, self._ledger[0]) + self._costs.lease
            heapreplace(self._ledger, ready)
            pod.leasing[client] = ready
            self.outcome.leases += 1
            self.outcome.ledger_wait = max(self.outcome.ledger_wait, (ready - now) * 1e3)
        return ready

    def _refuse(self, call: _Call, pod: _Pod, is_flood: bool) -> None:
        self._work(pod, call.at, self._costs.refusal)
        if not is_flood:
            self.outcome.refused += 1
            self._again(call, call.at + _RETRY * 2**call.tries)

    def _again(self, call: _Call, at: float) -> None:
        self._numbers += 1
        heappush(self._later, _Call(at, self._numbers, call.client, call.born, call.tries + 1))

    def _work(self, pod: _Pod, now: float, seconds: float) -> None:
        pod.free = max(pod.free, now) + seconds
        self.outcome.busy += seconds

    def _chosen(self, client: int, picks: tuple[float, float]) -> int:
        homes = self._homes(client)
        first, second = (homes[int(pick * len(homes))] for pick in picks)
        return first if self._pods[first].free <= self._pods[second].free else second

    def _homes(self, client: int) -> Sequence[int]:
        pods, affine = self._load.pods, self._load.affine
        return range(pods) if affine is None else [(client * 7919 + step * 31) % pods for step in range(affine)]

    def _left(self, count: int) -> NDArray[np.int64]:
        return self._rng.integers(1, LEASE + 1, count)

    @staticmethod
    def _endless(draw: Callable[[], NDArray[np.float64]]) -> Iterator[float]:
        while True:
            yield from draw().tolist()
