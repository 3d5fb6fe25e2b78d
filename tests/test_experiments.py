"""What an experiment leaves behind: its table, with where it was measured, and a line for each finished run."""

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from threading import Barrier
from time import sleep
from typing import ClassVar

import pytest
import torch

from benchmarks import experiments
from benchmarks.experiments import EXPERIMENTS, Experiment, fresh, read_lines
from course_lib import results
from course_lib.data import draw
from course_lib.errors import UserError
from course_lib.files import append
from course_lib.grid import NestedUNet
from course_lib.measure import macs, matched_widths, parameters
from course_lib.results.race import POPULAR
from tests.weights import same_weights


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """runs/ and data/results of this test alone."""
    store = results.store
    monkeypatch.setattr(experiments, "RUNS", tmp_path / "runs")
    monkeypatch.setattr(results, "store", lambda *given, **named: store(*given, **named, folder=tmp_path / "results"))
    return tmp_path


def counting(monkeypatch, breaks_at=None):
    """An experiment of three runs that counts how often it measures."""
    measured = []

    def measure(net, seed):
        if len(measured) == breaks_at:
            raise KeyboardInterrupt
        measured.append((net, seed))
        return {"iou_pooled": seed / 8}

    runs = [{"net": "unet", "seed": seed} for seed in (1, 2, 3)]
    monkeypatch.setitem(EXPERIMENTS, "tiny", Experiment("Eighths.", runs, measure))
    return measured


def test_a_finished_experiment_is_stored_with_its_origin(folders, monkeypatch):
    counting(monkeypatch)
    path = experiments.run("tiny")
    content = json.loads(path.read_text(encoding="utf-8"))
    assert path == folders / "results/tiny.json"
    assert (content["about"], content["command"]) == ("Eighths.", "python -m benchmarks.experiments tiny")
    assert content["rows"] == [{"net": "unet", "seed": s, "iou_pooled": s / 8} for s in (1, 2, 3)]
    assert {"device", "torch", "date", "commit"} <= set(content["measured"])
    assert list((folders / "runs").iterdir()) == []  # the next call measures anew


def test_a_broken_experiment_goes_on_behind_its_last_finished_run(folders, monkeypatch):
    first = counting(monkeypatch, breaks_at=2)
    with pytest.raises(KeyboardInterrupt):
        experiments.run("tiny")
    assert first == [("unet", 1), ("unet", 2)] and not (folders / "results").exists()
    with (folders / "runs/tiny.jsonl").open("a") as file:
        file.write('{"net": "unet", "se')  # a kill in the middle of a line
    second = counting(monkeypatch)
    content = json.loads(experiments.run("tiny").read_text(encoding="utf-8"))
    assert second == [("unet", 3)]
    assert [row["seed"] for row in content["rows"]] == [1, 2, 3]


def test_half_a_line_is_cut_off_and_what_follows_is_read(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_text('{"a": 1}\n{"a": 2')
    assert read_lines(path) == [{"a": 1}]
    append(path, json.dumps({"a": 3}) + "\n")
    assert read_lines(path) == [{"a": 1}, {"a": 3}]


def test_weights_depend_on_the_seed_alone():
    first = fresh(3, widths=(2, 3), wiring="unet")
    torch.rand(5)
    assert same_weights(first, fresh(3, widths=(2, 3), wiring="unet"))
    assert not same_weights(first, fresh(4, widths=(2, 3), wiring="unet"))


ELSEWHERE = ("costs", "tuning", "decision", "sweeps", "decision_gpu", "decision_tiny")  # tested in test_decide.py
HERE = [name for name in EXPERIMENTS if name not in ELSEWHERE]


@pytest.mark.parametrize("name", HERE)
def test_no_two_runs_of_an_experiment_are_the_same(name):
    runs = EXPERIMENTS[name].runs
    assert len({json.dumps(values) for values in runs}) == len(runs)
    assert EXPERIMENTS[name].alone or {"seed"} <= set.intersection(*map(set, runs))


def tiny_splits(*_, seed=0, look=None, progress=True):
    """A handful of built-in images in place of every data set."""
    return draw(5, 32, seed=seed, look=look)


@pytest.fixture
def small(monkeypatch):
    """Every experiment on a few images, at a few channels, for one epoch."""
    monkeypatch.setattr(experiments, "load", tiny_splits)
    monkeypatch.setattr(experiments, "draw", tiny_splits)
    make, train = experiments.fresh, experiments.train_and_score
    monkeypatch.setattr(experiments, "fresh", lambda seed, widths, **config: make(
        seed, widths=(1, 2, 2, 2, 3)[: len(widths)], **config))  # fmt: skip
    monkeypatch.setattr(experiments, "train_and_score", lambda net, splits, *, epochs, **options: train(
        net, splits, epochs=1, **options))  # fmt: skip
    for race in (experiments.RACE, experiments.RACE_GPU):
        for name, entrant in race.items():
            monkeypatch.setitem(race, name, replace(entrant, epochs=1, one_by_one=False))
    monkeypatch.setattr(experiments.Entrant, "net", lambda entrant, widths, seed: make(
        seed, widths=(1, 2, 2, 2, 3)[: len(widths)], deep_supervision=entrant.heads))  # fmt: skip


@pytest.mark.parametrize("name", HERE)
def test_every_run_of_every_experiment_can_be_measured(name, small):
    measure = EXPERIMENTS[name].measure
    seen = set()
    for values in EXPERIMENTS[name].runs:
        kind = json.dumps({key: value for key, value in values.items() if key != "seed"})
        if kind not in seen:
            row = measure(**values)
            assert not set(row) & set(values)  # numbers must not overwrite what tells the runs apart
            if name.startswith("race_clock"):
                assert row["seconds"] == pytest.approx(sum(row["seconds_of_epochs"]), abs=0.01) and row["fresh"] > 0
            elif name.startswith("race"):
                assert 0 <= row["val_iou"][-1] <= 1 and row["seconds"] > 0
            else:
                assert 0 <= row["iou_pooled"] <= 1 and row["parameters"] >= 0 and row["images"] == 1
            seen.add(kind)


def test_each_head_is_scored_under_the_level_it_belongs_to(small):
    with_all = experiments.measure_heads("unet++", True, 3, seed=0)
    assert [key for key in with_all if key.startswith("test_iou")] == [f"test_iou_L{level}" for level in (1, 2, 3)]
    with_last = experiments.measure_heads("unet++", False, 3, seed=0)
    assert with_last["test_iou_L3"] == with_last["iou_pooled"]


def test_wide_and_shallow_costs_what_deep_costs():
    wide, deep = (NestedUNet(widths=widths, wiring="unet") for widths in ((15, 30), experiments.SMALL))
    assert abs(macs(wide) / macs(deep) - 1) < 0.05


def test_later_runs_may_depend_on_earlier_ones(folders, monkeypatch):
    """The winner of the first two goes on; what a call that was stopped has measured still counts."""
    measured = counting(monkeypatch)

    def listed(rows):
        first = [{"net": "unet", "seed": seed} for seed in (1, 2)]
        best = max((row for row in rows if "iou_pooled" in row), key=lambda row: row["iou_pooled"], default=None)
        return first if len(rows) < 2 else [*first, {"net": "the best", "seed": best["seed"] + (len(rows) == 2)}]

    monkeypatch.setitem(EXPERIMENTS, "tiny", replace(EXPERIMENTS["tiny"], runs=listed))
    append(folders / "runs" / "tiny.jsonl", json.dumps(results.machine()) + "\n")
    append(folders / "runs" / "tiny.jsonl", json.dumps({"net": "unet", "seed": 2, "iou_pooled": 0.25}) + "\n")
    content = json.loads(experiments.run("tiny").read_text(encoding="utf-8"))
    assert measured == [("unet", 1), ("the best", 3)]
    assert [row["net"] for row in content["rows"]] == ["unet", "unet", "the best"]


def test_several_workers_measure_the_same_rows_in_the_same_order(folders, monkeypatch):
    monkeypatch.setattr(experiments, "ProcessPoolExecutor", ThreadPool)
    measured = counting(monkeypatch)
    content = json.loads(experiments.run("tiny", workers=2).read_text(encoding="utf-8"))
    assert [row["seed"] for row in content["rows"]] == [1, 2, 3]
    assert sorted(measured) == [("unet", 1), ("unet", 2), ("unet", 3)]


class ThreadPool(ThreadPoolExecutor):
    """Threads in place of processes, which would not know what a test has replaced."""

    def __init__(self, workers, mp_context, initializer, initargs, max_tasks_per_child):
        super().__init__(workers)
        self.of_one_run.append((workers, max_tasks_per_child))

    of_one_run: ClassVar[list] = []


def test_where_time_counts_each_run_has_a_fresh_process_for_itself(folders, monkeypatch):
    monkeypatch.setattr(experiments, "ProcessPoolExecutor", ThreadPool)
    monkeypatch.setattr(ThreadPool, "of_one_run", [])
    counting(monkeypatch)
    experiments.run("tiny", workers=3)
    monkeypatch.setitem(EXPERIMENTS, "tiny", replace(EXPERIMENTS["tiny"], alone=True))
    experiments.run("tiny", workers=3)
    assert ThreadPool.of_one_run == [(3, None), (1, 1)]


def test_a_race_of_many_seconds_is_timed_once_and_a_short_one_four_times(small, monkeypatch):
    made = []
    monkeypatch.setattr(experiments, "train", lambda entrant, net, splits, seed: made.append(seed) or iter(
        [{"seconds": second + seed} for second in (1.0, 2.0)]))  # fmt: skip
    row = experiments.measure_clock(POPULAR)
    assert made == [0, 1, 2, 3] and row["fresh"] == 3 and row["seconds"] == 7 and row["seconds_of_epochs"] == [3, 4]
    monkeypatch.setattr(experiments, "SHORT", 2)
    assert experiments.measure_clock(POPULAR) == {"fresh": 3, "seconds": 3, "seconds_of_epochs": [1, 2]}


@pytest.mark.parametrize("workers", [1, 2])
def test_after_its_seconds_no_further_run_begins_and_another_call_goes_on(tmp_path, monkeypatch, capsys, workers):
    monkeypatch.setattr(experiments, "ProcessPoolExecutor", ThreadPool)
    measured = counting(monkeypatch)
    path = experiments.run("tiny", workers, out=tmp_path, seconds=-1)
    assert path == tmp_path / "tiny.jsonl" and "1 of 3 runs are done; the same command" in capsys.readouterr().out
    while path.suffix == ".jsonl":
        path = experiments.run("tiny", workers, out=tmp_path, seconds=-1)
    assert path == tmp_path / "tiny.json" and {seed for _, seed in measured} == {1, 2, 3}
    assert [row["seed"] for row in json.loads(path.read_text())["rows"]] == [1, 2, 3]


def test_finished_runs_are_known_by_what_they_are_and_not_by_their_number(folders, monkeypatch):
    measured = counting(monkeypatch)
    path = folders / "runs" / "tiny.jsonl"
    here = results.machine() | {"commit": "an older one"}
    append(path, json.dumps(here) + "\n")
    append(path, json.dumps({"net": "unet", "seed": 2, "iou_pooled": 0.75}) + "\n")  # another worker was faster
    content = json.loads(experiments.run("tiny").read_text(encoding="utf-8"))
    assert measured == [("unet", 1), ("unet", 3)]
    assert [row["iou_pooled"] for row in content["rows"]] == [1 / 8, 0.75, 3 / 8]
    assert content["measured"] == here


def test_an_experiment_does_not_go_on_elsewhere(folders, monkeypatch):
    counting(monkeypatch)
    path = folders / "runs" / "tiny.jsonl"
    append(path, json.dumps(results.machine() | {"device": "another"}) + "\n")
    append(path, json.dumps({"net": "unet", "seed": 2, "iou_pooled": 0.75}) + "\n")
    with pytest.raises(UserError, match=r"was begun with another and this is .*delete the file"):
        experiments.run("tiny")


def test_the_machine_of_a_start_that_measured_nothing_is_forgotten(folders, monkeypatch):
    counting(monkeypatch)
    append(folders / "runs" / "tiny.jsonl", json.dumps({"device": "another"}) + "\n")
    content = json.loads(experiments.run("tiny").read_text(encoding="utf-8"))
    assert content["measured"]["device"] == results.machine()["device"]


def test_what_other_workers_finish_is_kept_when_one_fails(folders, monkeypatch):
    monkeypatch.setattr(experiments, "ProcessPoolExecutor", ThreadPool)
    both_began = Barrier(2)

    def measure(net, seed):
        both_began.wait(10)
        if seed == 1:
            raise UserError("broken")
        sleep(0.2)
        return {"iou_pooled": 0.5}

    runs = [{"net": "unet", "seed": seed} for seed in (1, 2)]
    monkeypatch.setitem(EXPERIMENTS, "tiny", Experiment("Halves.", runs, measure))
    with pytest.raises(UserError, match="broken"):
        experiments.run("tiny", workers=2)
    assert [row["seed"] for row in read_lines(folders / "runs" / "tiny.jsonl")[1:]] == [2]


def test_workers_are_real_processes_of_one_thread(folders):
    rows = list(experiments._measured("first_real", [], workers=2))
    assert rows == []
    with experiments.ProcessPoolExecutor(
        1, mp_context=get_context("spawn"), initializer=torch.set_num_threads, initargs=(1,)
    ) as pool:
        assert pool.submit(torch.get_num_threads).result() == 1


def test_how_long_it_takes_is_told_before(monkeypatch):
    rows = [{"seconds": 60.0}, {"seconds": 120.0}]
    monkeypatch.setattr(results, "load_results", lambda name: {"rows": rows, "measured": {"device": "CPU (x)"}})
    assert experiments.expected("depth", 40, workers=2) == "depth: 40 runs, about 30 minutes on CPU (x)"
    monkeypatch.undo()
    assert experiments.expected("nothing", 3, 1) == "nothing: 3 runs; how long they take was not measured yet"


def test_the_verdict_compares_nets_of_equal_cost():
    wanted = {measure.__name__: measure(NestedUNet(widths=experiments.SMALL)) for measure in (parameters, macs)}
    for name, options in experiments.VERDICT.items():
        if like := options.get("like"):
            widths = matched_widths(wanted[like.__name__], like, widths=experiments.SMALL)
            cost = like(NestedUNet(widths=widths, wiring="unet"))
            assert cost == pytest.approx(wanted[like.__name__], rel=0.01), name


def test_the_gpu_versions_have_the_papers_widths(small, monkeypatch):
    asked = []
    make = experiments.fresh
    monkeypatch.setattr(experiments, "fresh", lambda seed, widths, **config: asked.append(widths) or make(
        seed, widths=widths, **config))  # fmt: skip
    monkeypatch.setattr(experiments, "load", lambda name, size, **options: asked.append(size) or tiny_splits())
    EXPERIMENTS["verdict_gpu"].measure(net="unet++", seed=0)
    made = experiments.Entrant.net
    monkeypatch.setattr(experiments.Entrant, "net", lambda entrant, widths, seed: asked.append(widths) or made(
        entrant, widths, seed))  # fmt: skip
    EXPERIMENTS["race_gpu"].measure(entrant=POPULAR, seed=0)
    assert asked == [96, (32, 64, 128, 256, 512)] * 2


def test_the_verdict_keeps_every_image_and_every_level(small):
    row = experiments.measure_verdict("unet++, all heads", seed=0)
    levels = [key for key in row if key.startswith("iou_of_images")]
    assert levels == ["iou_of_images", *(f"iou_of_images_L{level}" for level in (1, 2, 3))]
    assert all(len(row[key]) == row["images"] for key in levels)
    assert row["iou_of_images"][0] == pytest.approx(row["iou_per_image"], abs=1e-4)
