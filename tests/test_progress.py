"""A learner's progress: kept where it is asked for, and many files in one table."""

import json

import pytest

from course_lib.checks import check_average_precision, check_blend
from course_lib.errors import UserError
from tests.wrong_answers import average_precision, blend
from tools.run.progress import main, overview


def right(table, threshold):
    tp, fp, fn = average_precision.parts(table, threshold)
    return tp / (tp + fp + fn)


@pytest.fixture
def kept(tmp_path, monkeypatch):
    monkeypatch.setenv("COURSE_PROGRESS", str(tmp_path / "me.jsonl"))
    return tmp_path / "me.jsonl"


def lines(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def ask(check, answer):
    try:
        check(answer)
    except AssertionError as problem:
        return str(problem)
    return None


def learner(folder, name, *answers):
    """A file as a check writes it; an answer is (exercise, what was said against it or None)."""
    rows = [{"exercise": e, "correct": said is None, "said": said, "time": n} for n, (e, said) in enumerate(answers)]
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return folder / name


def test_every_answer_is_a_line_and_a_hole_is_none(kept):
    ask(check_average_precision, average_precision.hole)
    assert not kept.exists()
    said = ask(check_average_precision, average_precision.dice)
    ask(check_average_precision, average_precision.best_of_each)
    ask(check_average_precision, right)
    first, crash, last = lines(kept)
    assert first == {"exercise": "average_precision", "correct": False, "said": said, "time": first["time"]}
    assert not crash["correct"] and "it stops" in crash["said"]
    assert last["correct"] and last["said"] is None


def test_nothing_is_kept_unasked(tmp_path, monkeypatch):
    monkeypatch.delenv("COURSE_PROGRESS", raising=False)
    monkeypatch.chdir(tmp_path)
    ask(check_average_precision, right)
    ask(check_blend, blend.added)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("COURSE_PROGRESS", str(tmp_path / "file" / "me.jsonl"))
    with pytest.raises(
        UserError, match=r"COURSE_PROGRESS names .*me.jsonl, which cannot be written \(.+\): correct it"
    ):
        check_average_precision(right)


def test_many_learners_in_one_table(tmp_path, capsys):
    files = [
        learner(tmp_path, "a", ("iou", "that is Dice"), ("iou", "that is Dice"), ("iou", None), ("dice", None)),
        learner(tmp_path, "b", ("iou", "that is Dice"), ("iou", None), ("dice", "no"), ("gate", None)),
        learner(tmp_path, "c", ("iou", "the union is missing"), ("dice", None), ("dice", "no, after all")),
    ]
    iou, dice, gate = overview(files)
    assert iou == {"exercise": "iou", "tried": 3, "correct": 2, "tries": 2.5, "said most": "that is Dice"}
    assert dice == {"exercise": "dice", "tried": 3, "correct": 2, "tries": 1, "said most": "no"}
    assert gate == {"exercise": "gate", "tried": 1, "correct": 1, "tries": 1, "said most": None}
    assert main([*map(str, files)]) == 0
    table = capsys.readouterr().out.splitlines()
    assert table[0].split()[:3] == ["exercise", "tried", "correct"] and len(table) == 4


def test_a_star_is_understood_where_the_shell_does_not(tmp_path, capsys):
    learner(tmp_path, "a.jsonl", ("iou", None))
    learner(tmp_path, "b.jsonl", ("iou", "no"))
    assert main([str(tmp_path / "*.jsonl")]) == 0
    assert capsys.readouterr().out.splitlines()[1].split()[:3] == ["iou", "2", "1"]
    assert main([str(tmp_path / "x*.jsonl")]) == 2
    assert "no file is called" in capsys.readouterr().err


ROW = {"exercise": "iou", "correct": True, "said": None}


@pytest.mark.parametrize(
    "content", ["not json", "[1]", *(json.dumps(ROW | change) for change in ({"exercise": 1}, {"correct": False}))]
)
def test_other_files_are_named(content, tmp_path, capsys):
    (tmp_path / "me.jsonl").write_text(content)
    with pytest.raises(UserError, match=r"me.jsonl is no file of COURSE_PROGRESS.*: leave it out"):
        overview([tmp_path / "me.jsonl"])
    (tmp_path / "empty.jsonl").touch()
    for name, said in (("gone", "gone.jsonl cannot be read"), ("empty", "empty.jsonl hold(s) no answer yet")):
        assert main([str(tmp_path / f"{name}.jsonl")]) == 2
        assert said in capsys.readouterr().err
