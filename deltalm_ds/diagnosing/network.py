"""How fast ranks reduce together: two by two, which shows who is slow, and all at once."""

from __future__ import annotations

import statistics
import time
from collections import defaultdict
from collections.abc import Sequence

import torch
import torch.distributed as dist

NUM_ROUNDS = 3
"""Partners of a rank. A healthy rank beside a sick one has two others to show itself with."""
_NUM_REPETITIONS = 5


def pairings(nodes: Sequence[str]) -> list[list[tuple[int, int]]]:
    """Rounds of pairs of ranks, from the node of every rank; in a round, no rank has two partners.

    Partners are on different nodes where there are several. Nodes meet as in a round-robin tournament (circle
    method), in each round with the ranks shifted by one more, so that two nodes give several rounds too.
    """
    ranks_of: dict[str, list[int]] = defaultdict(list)
    for rank, node in enumerate(nodes):
        ranks_of[node].append(rank)
    units = list(ranks_of.values()) if len(ranks_of) > 1 else [[rank] for rank in range(len(nodes))]
    rounds: list[list[tuple[int, int]]] = []
    for number in range(NUM_ROUNDS):
        pairs = []
        for one, other in _tournament(len(units), number):
            ours, theirs = units[one], units[other]
            for place, rank in enumerate(ours[: len(theirs)]):
                pairs.append((rank, theirs[(place + number) % len(theirs)]))
        if pairs and pairs not in rounds:
            rounds.append(pairs)
    return rounds


def _tournament(size: int, number: int) -> list[tuple[int, int]]:
    """Who meets whom in a round: the first stays, the others turn; with an odd size, one has no partner."""
    if size < 2:
        return []
    players: list[int | None] = [*range(size), *([None] if size % 2 else [])]
    turn = number % (len(players) - 1)
    players = [players[0], *players[1 + turn :], *players[1 : 1 + turn]]
    half = len(players) // 2
    pairs = zip(players[:half], reversed(players[half:]), strict=True)
    whole = [(one, other) for one, other in pairs if one is not None and other is not None]
    return [(min(pair), max(pair)) for pair in whole]


def measure_pair(
    pairs: Sequence[tuple[int, int]], rank: int, device: torch.device, num_bytes: int
) -> float | None:
    """Bus bandwidth in bytes/s of `rank` with its partner of this round; nothing if it has none."""
    pair = next((list(pair) for pair in pairs if rank in pair), None)
    if pair is None:
        return None
    # Made by the two alone: a communicator of all may be what does not come up.
    group = dist.new_group(pair, use_local_synchronization=True)
    return measure_all_reduce(device, num_bytes, 2, group)


def measure_all_reduce(
    device: torch.device, num_bytes: int, num_ranks: int, group: dist.ProcessGroup | None = None
) -> float:
    """Bus bandwidth in bytes/s of an all-reduce over a group, all ranks by default: the median of some.

    2 (n - 1) / n times the message by the time, as nccl-tests has it: what a link carries, whatever n.
    """
    message = torch.ones(max(1, num_bytes // 4), dtype=torch.float32, device=device)
    times = []
    for _ in range(1 + _NUM_REPETITIONS):
        message.fill_(1)
        if device.type != "cpu":
            torch.cuda.synchronize(device)
        start = time.perf_counter()
        dist.all_reduce(message, group=group)
        if device.type != "cpu":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - start)
    if not bool((message == num_ranks).all()):
        raise RuntimeError("an all-reduce of ones gave something else than the number of ranks")
    return 2 * (num_ranks - 1) / num_ranks * message.nbytes / statistics.median(times[1:])
