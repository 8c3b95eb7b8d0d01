"""The table of what attacks cost; `make short` runs one of them, and `python -m reliability.attacks` all."""

import pytest

from reliability.attacks.__main__ import held
from reliability.attacks.attack import Outcome
from reliability.attacks.report import section
from reliability.attacks.table import ATTACKS
from reliability.faults.report import PAGE, attacks_of, with_attacks

SCANS = next(attack for attack in ATTACKS if "scans" in attack.name and "MPO" in attack.name)
OUTCOME = Outcome(answers="2 x 400", cpu_s=0.5, asked=20, refused=0, slowest_s=0.4)


def test_the_page_has_every_attack_and_none_cost_more_than_it_may() -> None:
    text = attacks_of(PAGE.read_text())
    for attack in ATTACKS:
        (row,) = [line for line in text.splitlines() if line.startswith(f"| {attack.name} |")]
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        assert float(cells[3]) <= attack.max_cpu_s
        assert cells[6].startswith("none refused")
        assert attack.before.asked, "the outcome before"


def test_the_section_is_replaced_in_the_page() -> None:
    text = section({SCANS.name: OUTCOME}, "a machine, load 0.3 before the runs; Python")
    assert f"| {SCANS.name} | " in text
    assert "| 0.5 | 2 x 400 |" in text
    assert "none refused, 0.4 s at most |" in text
    assert "Machine: a machine; Python." in text
    page = with_attacks("# Title\n\ntext\n", "old")
    assert attacks_of(page) == "old"
    assert with_attacks(page, "new") == with_attacks("# Title\n\ntext\n", "new")


@pytest.mark.parametrize("change", [{"cpu_s": 1000.0}, {"refused": 1}, {"cut_off": True}])
def test_a_costly_attack_or_a_refused_user_does_not_hold(change: dict[str, float]) -> None:
    assert held(SCANS, OUTCOME)
    assert not held(SCANS, Outcome(**{**OUTCOME.__dict__, **change}))
