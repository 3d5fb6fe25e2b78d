"""Files as other programs write them are read exactly or refused in a sentence, never misread in silence."""

import pytest

from tests.foreign import CASES, happens


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_read_exactly_or_refused(case, tmp_path):
    said, found, wrong = happens(case, tmp_path)
    assert not wrong, f"load: {said}; the doctor: {found}"


def test_every_case_has_a_name_of_its_own():
    assert len({case.name for case in CASES}) == len(CASES)
