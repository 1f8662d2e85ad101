"""What is wrong with which node, and what follows from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

EXIT_WELL, EXIT_MISTAKE, EXIT_UNFIT = 0, 2, 3


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that is wrong."""

    node: str | None
    """Where; None if that cannot be told."""
    check: str
    """What was looked at, a word: findings of the same check on all nodes are one fault that all share."""
    reason: str
    """What is wrong, for people."""
    is_fault: bool = True
    """Whether the job should not start so; else a warning."""
    is_of_machine: bool = False
    """Whether another node would surely do better, even if all here have this fault: a broken GPU, and not a
    full disk."""


@dataclass(frozen=True)
class Verdict:
    """Whether the job can start."""

    exit_code: int
    """EXIT_WELL; EXIT_UNFIT: without some nodes; EXIT_MISTAKE: what is wrong goes wherever the job goes."""
    excluded: tuple[str, ...] = ()
    """The unfit nodes, for EXIT_UNFIT."""


def verdict(findings: Sequence[Finding], nodes: Sequence[str]) -> Verdict:
    """What findings about `nodes` amount to."""
    faults = [finding for finding in findings if finding.is_fault]
    if not faults:
        return Verdict(EXIT_WELL)
    shared = {fault.check for fault in faults if not fault.is_of_machine}
    for check in shared:
        if set(nodes) <= {fault.node for fault in faults if fault.check == check}:
            return Verdict(EXIT_MISTAKE)
    unfit = {fault.node for fault in faults}
    excluded = tuple(node for node in nodes if node in unfit)
    if not excluded and not any(fault.is_of_machine for fault in faults):
        return Verdict(EXIT_MISTAKE)
    return Verdict(EXIT_UNFIT, excluded)


def blamed(stage: str, failed: list[int], missing: list[int]) -> tuple[list[int], list[int]]:
    """Of the ranks that failed in a stage and those that did not finish it, who is the cause.

    In joining, those that failed: the others wait for them. Else the fewer: many wait for one that failed, or
    fail for one that is gone.
    """
    if stage == "joining" and failed:
        return failed, []
    return (
        failed if len(failed) <= len(missing) else [],
        missing if not failed or len(missing) <= len(failed) else [],
    )


def ranks_in_words(ranks: Sequence[int]) -> str:
    """Some ranks, the first eight by number."""
    if len(ranks) == 1:
        return f"rank {ranks[0]}"
    more = f" and {len(ranks) - 8} more" if len(ranks) > 8 else ""
    return f"ranks {', '.join(map(str, ranks[:8]))}{more}"


def counted(number: int, word: str) -> str:
    """A number of things."""
    return f"{number} {word}{'' if number == 1 else 's'}"
