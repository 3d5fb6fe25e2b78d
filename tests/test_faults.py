"""What can go wrong, and where it is tried: the table below, and the stops of a training that have no other place."""

import ast
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from course_lib.data import load as load_data
from course_lib.errors import UserError
from course_lib.grid import NestedUNet
from course_lib.train import fit
from course_lib.train.checkpoint import load, load_model, same_weights

HERE = Path(__file__).resolve().parent
FAULTS = {
    "an archive with another hash": [
        "data::test_wrong_download_is_removed",
        "data::test_damaged_download_is_noticed_and_replaced",
    ],
    "a truncated archive": [
        "archive::test_cut_or_foreign_file",
        "data::test_any_damage_ends_in_a_sentence_or_in_the_right_pixels",
    ],
    "a hostile archive: paths, links, bombs": [
        "archive::test_hostile_entries_are_named",
        "archive::test_an_entry_that_holds_more_than_announced_is_not_inflated",
    ],
    "no network": ["data::test_no_network"],
    "a full disk, a quota": [
        "cache::test_full_disk_and_read_only_folder",
        "checkpoint::test_a_full_disk_leaves_the_old_file",
        "mask_doctor::test_files_are_whole_or_absent",
        "bundle::test_a_full_disk_leaves_nothing",
    ],
    "a read-only folder": [
        "cache::test_full_disk_and_read_only_folder",
        "cli::test_a_folder_that_may_not_be_entered",
        "workshop::test_lessons_that_cannot_be_saved",
    ],
    "several processes and one cache": [
        "data::test_kills_and_two_processes_at_once",
        "data::test_thirty_processes_fetch_and_prepare_once",
    ],
    "a slow disk": [
        "colab::test_a_slow_disk_is_written_to_now_and_then",
        "cache::test_one_at_a_time_and_the_others_say_that_they_wait",
    ],
    "an unreadable image": [
        "pixels::test_images_that_are_refused",
        "cli::test_a_mistake_gets_one_sentence_and_status_2",
    ],
    "16-bit, grey, RGBA images": [
        "pixels::test_every_kind_of_image_becomes_rgb_bytes",
        "pixels::test_sixteen_bits_are_stretched_as_any_other_numbers",
    ],
    "a mask of another size": ["data::test_folder_with_every_fault"],
    "masks of 0 and 255, or in colour": [
        "pixels::test_every_kind_of_mask_becomes_labels",
        "pixels::test_masks_that_are_refused",
    ],
    "empty masks, no masks, one image only": ["data::test_empty_masks", "data::test_empty_and_tiny_folders"],
    "sizes that cannot be halved": [
        "grid::test_sizes_that_cannot_be_halved_are_refused",
        "cli::test_a_mistake_gets_one_sentence_and_status_2",
    ],
    "a loss that is no number": ["train::test_a_loss_that_is_no_number_stops_and_keeps_the_last_checkpoint"],
    "a GPU or a machine without memory": [
        "faults::test_a_full_gpu_is_said_in_a_sentence",
        "cli::test_too_little_memory_is_said_in_a_sentence",
    ],
    "a checkpoint of another net, or damaged": [
        "train::test_a_checkpoint_of_another_net_or_data_set_is_refused",
        "train::test_a_damaged_checkpoint_is_refused_in_a_sentence",
    ],
    "a parameter that no lesson has": [
        "papermill::test_an_unknown_parameter_is_refused_before_anything_runs",
        "fuzz::test_parameters_that_no_lesson_has",
    ],
    "code in a file": [
        "checkpoint::test_code_in_a_file_is_not_run",
        "cache::test_pickles_are_not_read",
        "fuzz::test_files_of_weights",
    ],
    "a training that is killed": ["cli::test_a_training_killed_at_random_moments_ends_bit_identical"],
    "a training that is told to stop": ["faults::test_a_training_that_is_told_to_stop_goes_on_bit_identical"],
    "a disk that is full when the checkpoint is written": [
        "faults::test_a_disk_that_fills_while_a_checkpoint_is_written"
    ],
}


def test_every_fault_is_tried():
    for fault, tests in FAULTS.items():
        for name in tests:
            module, _, function = name.partition("::")
            tree = ast.parse((HERE / f"test_{module}.py").read_text(encoding="utf-8"))
            found = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
            assert function in found, f"{fault}: {name} is not there"


TRAIN = [sys.executable, "-m", "course_lib", "train", "--size", "32", "--widths", "4", "6", "--precision", "fp32"]
TRAIN += ["--device", "cpu", "--batch-size", "2", "--epochs"]
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1"}


def losses(out):
    return [line.split(",")[1] for line in (out / "log.csv").read_text().splitlines()]


@pytest.fixture(scope="module")
def whole(folder, tmp_path_factory):
    """A training that nobody stopped."""
    out = tmp_path_factory.mktemp("whole")
    call = [*TRAIN, "60", "--data", str(folder), "--out", str(out)]
    subprocess.run(call, env=ENVIRONMENT, check=True, capture_output=True)
    return out


@pytest.mark.skipif(os.name == "nt", reason="signals are others there")
@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGINT])
def test_a_training_that_is_told_to_stop_goes_on_bit_identical(whole, folder, tmp_path, sign):
    call = [*TRAIN, "60", "--data", str(folder)]
    log = tmp_path / "told" / "log.csv"
    process = subprocess.Popen(
        [*call, "--out", tmp_path / "told"],
        env=ENVIRONMENT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(sign, signal.SIG_DFL if sign != signal.SIGINT else signal.default_int_handler),
    )
    while process.poll() is None and not (log.exists() and log.read_text().count("\n") > 3):
        time.sleep(0.002)
    process.send_signal(sign)
    _, said = process.communicate()
    assert process.returncode == (130 if sign == signal.SIGINT else -sign)
    assert "Traceback" not in said
    if sign == signal.SIGINT:
        assert "the same command goes on where this one was" in said
    assert 3 <= len(load(tmp_path / "told" / "checkpoint.pt")["rows"]) < 60
    subprocess.run([*call, "--out", tmp_path / "told"], env=ENVIRONMENT, check=True, capture_output=True)
    assert same_weights(*(load_model(out / "model.pt")[0] for out in (whole, tmp_path / "told")))
    assert losses(whole) == losses(tmp_path / "told")


@pytest.mark.skipif(os.name == "nt", reason="limits are others there")
def test_a_disk_that_fills_while_a_checkpoint_is_written(folder, tmp_path):
    """No file may grow beyond half of a checkpoint: the one of before stays, and with room again it goes on."""
    out = tmp_path / "run"
    call = [*TRAIN, "5", "--data", str(folder), "--out", str(out)]
    code = "import sys; from course_lib import train, checkpoint; from course_lib.__main__ import main\n"
    code += "original, train.save = train.save, lambda *a: (original(*a), len(a[0]['rows']) == 2 and sys.exit(3))\n"
    code += "main(sys.argv[1:])"
    stopped = subprocess.run(
        [sys.executable, "-c", code, *call[3:]], env=ENVIRONMENT, capture_output=True, cwd=HERE.parent
    )
    assert stopped.returncode == 3
    before = (out / "checkpoint.pt").read_bytes()
    half = len(before) // 2

    def limited():
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, (half, half))

    full = subprocess.run(call, env=ENVIRONMENT, capture_output=True, text=True, preexec_fn=limited)
    assert full.returncode == 2 and "Traceback" not in full.stderr
    assert full.stderr.splitlines()[-1].startswith(f"error: {out / 'checkpoint.pt'} cannot be written (File too large)")
    assert (out / "checkpoint.pt").read_bytes() == before
    assert not list(out.glob(".*.partial"))
    subprocess.run(call, env=ENVIRONMENT, check=True, capture_output=True)
    assert len(load(out / "checkpoint.pt")["rows"]) == 5


def test_a_full_gpu_is_said_in_a_sentence(folder):
    class Greedy(NestedUNet):
        def forward(self, image):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    splits = load_data(folder, 32, progress=False)
    with pytest.raises(UserError, match="the GPU's memory is full: use a batch_size below 6"):
        list(fit(Greedy(widths=(2, 3)), splits, epochs=1))
