"""Eq. 1: EV = 2 log2 F - log2 S + log2(ISO / 100)."""

import pytest

from replication.data.exposure import exposure_value, relative_ev


@pytest.mark.parametrize(
    ("f_number", "time", "iso", "ev"),
    [(1, 1, 100, 0), (4, 1 / 64, 100, 10), (4, 1 / 32, 100, 9), (4, 1 / 64, 200, 11)],
)
def test_hand_arithmetic(f_number, time, iso, ev):
    assert exposure_value(f_number, time, iso) == pytest.approx(ev)
    # DEVIATIONS D1: more time or a higher ISO brightens; the EVs of a stack count this light
    brighter = [relative_ev(f_number, 2 * time, iso), relative_ev(f_number, time, 2 * iso)]
    assert brighter == pytest.approx([relative_ev(f_number, time, iso) + 1] * 2)
