from __future__ import annotations

from deltalm_ds.diagnosing.findings import Finding, Verdict, blamed, ranks_in_words, verdict

NODES = ["n1", "n2", "n3"]


def finding(node: str | None, check: str = "space", **more: bool) -> Finding:
    return Finding(node=node, check=check, reason="it is so", **more)


def test_well_without_findings_and_with_warnings() -> None:
    assert verdict([], NODES) == Verdict(0)
    assert verdict([finding("n1", is_fault=False)], NODES) == Verdict(0)


def test_unfit_nodes_in_their_order_once() -> None:
    found = [finding("n3"), finding("n1", "clock"), finding("n3", "clock")]
    assert verdict(found, NODES) == Verdict(3, ("n1", "n3"))


def test_what_all_nodes_have_is_nobodys_fault() -> None:
    assert verdict([finding(node) for node in NODES], NODES) == Verdict(2)
    different = [finding(node, check) for node, check in zip(NODES, "abc", strict=True)]
    assert verdict(different, NODES) == Verdict(3, tuple(NODES))


def test_broken_machines_are_excluded_even_if_all_are() -> None:
    assert verdict([finding(node, is_of_machine=True) for node in NODES], NODES) == Verdict(3, tuple(NODES))


def test_a_fault_of_no_node() -> None:
    assert verdict([finding(None)], NODES) == Verdict(2)
    assert verdict([finding(None), finding("n2", "clock")], NODES) == Verdict(3, ("n2",))
    late = finding(None, "arrival", is_of_machine=True)
    assert verdict([late], NODES) == Verdict(3), "who did not come from where nobody knows"


def test_who_is_to_blame_where_some_fail_and_some_hang() -> None:
    assert blamed("pairs", [], [3]) == ([], [3])
    assert blamed("all_reduce", [0, 1, 2], [3]) == ([], [3]), "they lost the one that is gone"
    assert blamed("all_reduce", [3], [0, 1, 2]) == ([3], []), "they wait for the one that failed"
    assert blamed("pairs", [0], [3]) == ([0], [3]), "it may be either"
    assert blamed("joining", [1], [0]) == ([1], [])


def test_ranks_in_words() -> None:
    assert ranks_in_words([3]) == "rank 3"
    assert ranks_in_words([3, 4]) == "ranks 3, 4"
    assert ranks_in_words(range(20)) == "ranks 0, 1, 2, 3, 4, 5, 6, 7 and 12 more"
