"""Files of weights: whole or absent, bit-equal after the round trip, and no code runs when they are read."""

import os
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from course_lib import files
from course_lib.errors import UserError
from course_lib.files import write
from course_lib.grid import NestedUNet
from course_lib.relatives import RELATIVES
from course_lib.train.checkpoint import load, load_model, save, save_model
from tests.weights import same_weights

OPTIONS = {"in_channels": 2, "classes": 3, "widths": (4, 6, 10), "wiring": "unet+", "deep_supervision": True}


def make(seed=0, kind=NestedUNet, **options):
    torch.manual_seed(seed)
    net = kind(**(OPTIONS | options if kind is NestedUNet else {"widths": (4, 6, 10)}))
    net(torch.rand(2, net.config["in_channels"], 8, 12))  # statistics of its own
    return net


@pytest.mark.parametrize("content", ["Zellkerne: größer als 8 px\n", b"\x00\xff\r\n", ""])
def test_what_is_written_is_read(tmp_path, content):
    path = tmp_path / "new" / "folder" / "file.bin"
    write(path, content)
    assert path.read_bytes() == (content.encode() if isinstance(content, str) else content)
    write(str(path), b"again")
    assert path.read_bytes() == b"again" and list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize(("where", "what"), [(files.os, "fsync"), (Path, "replace")])
def test_a_full_disk_leaves_the_old_file(tmp_path, monkeypatch, where, what):
    def full_disk(*args):
        raise OSError(28, "No space left on device")

    path = tmp_path / "model.pt"
    write(path, b"old")
    monkeypatch.setattr(where, what, full_disk)
    with pytest.raises(UserError, match=r"model\.pt cannot be written \(No space left on device\): free some space"):
        write(path, b"new and longer")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]  # no half of a file fills the disk


def test_a_kill_while_writing_leaves_the_old_file_and_the_next_writer_recovers(tmp_path):
    """A child process dies with half of its bytes on the disk."""
    path = tmp_path / "model.pt"
    write(path, b"old")
    child = (
        "import os, sys; from course_lib import files; files.os.fsync = lambda handle: os._exit(9);"
        "files.write(sys.argv[1], b'half of the new')"
    )
    package = Path(files.__file__).parent.parent
    assert subprocess.run([sys.executable, "-c", child, str(path)], cwd=package).returncode == 9
    assert path.read_bytes() == b"old"
    (left,) = tmp_path.glob(".model.pt.*.partial")
    write(path, b"new")
    assert path.read_bytes() == b"new"
    assert left.exists()  # it might belong to a running writer
    os.utime(left, (0, 0))
    write(path, b"newer")
    assert path.read_bytes() == b"newer" and list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(os.name == "nt", reason="there a file that is open elsewhere cannot be replaced")
def test_many_writers_of_one_file_do_not_refuse_each_other(tmp_path):
    contents = [bytes([n]) * 50_000 for n in range(8)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda content: [write(tmp_path / "model.pt", content) for _ in range(20)], contents))
    assert (tmp_path / "model.pt").read_bytes() in contents
    assert len(list(tmp_path.iterdir())) == 1


def test_bytes_reach_the_disk_before_the_file_appears(tmp_path, monkeypatch):
    events, sync, move = [], os.fsync, Path.replace
    monkeypatch.setattr(files.os, "fsync", lambda handle: (events.append("sync"), sync(handle)))
    monkeypatch.setattr(Path, "replace", lambda self, target: (events.append("move"), move(self, target))[1])
    write(tmp_path / "file", b"content")
    assert events == ["sync", "move"]


def test_a_folder_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match=r"model\.pt cannot be written .* choose another folder"):
        write(tmp_path / "file" / "model.pt", b"")


def test_any_plain_content_comes_back_and_what_cannot_be_packed_leaves_it(tmp_path):
    path, content = tmp_path / "c.pt", {"epoch": 3, "lr": 0.1, "rows": [{"loss": 1.5}], "name": None}
    save(content | {"state": torch.arange(4)}, path)
    with pytest.raises((AttributeError, TypeError, pickle.PicklingError)):
        save({"epoch": 4, "open": (n for n in range(3))}, path)
    found = load(path)
    assert torch.equal(found.pop("state"), torch.arange(4)) and found == content
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("kind", [NestedUNet, *RELATIVES.values()])
def test_a_model_comes_back_bit_for_bit(tmp_path, kind):
    paths, net = [tmp_path / name / "model.pt" for name in ("a", "b")], make(kind=kind)
    for path in paths:
        save_model(net, path, data="synthetic", size=96)
    assert paths[0].read_bytes() == paths[1].read_bytes()
    again, facts = load_model(paths[0])
    assert facts == {"data": "synthetic", "size": 96}
    assert type(again) is kind and again.config == net.config
    assert net.training and not again.training
    assert same_weights(net, again)


def test_weights_in_another_memory_layout_are_saved_plainly(tmp_path):
    net = make()
    save_model(net.to(memory_format=torch.channels_last), tmp_path / "model.pt")
    assert not net.conv1_0.conv1.weight.is_contiguous()
    assert load(tmp_path / "model.pt")["weights"]["conv1_0.conv1.weight"].is_contiguous()
    assert same_weights(net, load_model(tmp_path / "model.pt")[0])


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"nowhere\.pt is not there: give the path of a file that `train` wrote"):
        load(tmp_path / "nowhere.pt")
    with pytest.raises(UserError, match="is not there"):
        load(tmp_path)


OTHERS = [b"hello", b"a,b\n1,2\n", b"0", b"e", b"\x89PNG\r\n\x1a\n", b"PK\x03\x04", b"\x80\x02N"]


@pytest.mark.parametrize("content", [0, 1, 100, 0.5, 0.99, *OTHERS])
def test_cut_and_foreign_files_are_refused(tmp_path, content):
    """A number of bytes, or a share of them, is what is left of a model."""
    path = tmp_path / "model.pt"
    save_model(make(), path)
    whole = path.read_bytes()
    kept = int(content * len(whole)) if isinstance(content, float) else content
    path.write_bytes(content if isinstance(content, bytes) else whole[:kept])
    with pytest.raises(UserError, match=r"model\.pt is damaged or no file of weights"):
        load_model(path)


class Hostile:
    """Unpickled carelessly, it makes a folder."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("dump", [torch.save, lambda content, path: path.write_bytes(pickle.dumps(content, 2))])
@pytest.mark.parametrize("read", [load, load_model])
def test_code_in_a_file_is_not_run(tmp_path, dump, read):
    path, trace = tmp_path / "model.pt", tmp_path / "code-was-run"
    dump({"config": OPTIONS, "weights": Hostile(trace)}, path)
    said = r"holds whole Python objects \(\w+\.mkdir\), .*: write torch\.save\(net\.state_dict"
    with pytest.raises(UserError, match=said):
        read(path)
    assert not trace.exists()
    pickle.loads(pickle.dumps(Hostile(trace)))
    assert trace.exists()  # the trap does work


CONFIGS = [{"widths": [4, 6, 12]}, {"widths": [4, 6]}, {"wiring": "unet++"}, {"wiring": "unet3+"}]
CONFIGS += [{"deep_supervision": False}, {"in_channels": 3}, {"unheard_of": 1}, {"widths": None}]
WEIGHTS = [None, [1], {}, {"conv0_0.conv1.weight": "text"}]


@pytest.mark.parametrize(
    "change",
    [*({"config": config} for config in CONFIGS), *({"weights": weights} for weights in WEIGHTS), {"net": "print"}],
)
def test_weights_that_do_not_fit_their_config_are_refused(tmp_path, change):
    net, path = make(), tmp_path / "model.pt"
    config = net.config | change.get("config", {})
    save({"weights": net.state_dict()} | change | {"config": config}, path)
    with pytest.raises(UserError, match=r"model\.pt holds weights that do not fit their own config"):
        load_model(path)


@pytest.mark.parametrize(
    "options",
    [
        {"wiring": "unet", "deep_supervision": False},
        {"wiring": "unet++", "deep_supervision": False},
        {"wiring": "unet++", "deep_supervision": True, "widths": (4, 6), "in_channels": 1, "classes": 2},
    ],
)
@pytest.mark.parametrize(
    "wrapped", ["plain", "state_dict", "model", "net", "module.", "_orig_mod.", "_orig_mod.module."]
)
def test_bare_weights_with_the_published_names_load(tmp_path, options, wrapped):
    net = make(**options)
    content = dict(net.state_dict())
    if wrapped.endswith("."):
        content = {f"{wrapped}{name}": value for name, value in content.items()}
    elif wrapped != "plain":
        content = {"epoch": 3, wrapped: content}
    save(content, tmp_path / "model.pth")
    with pytest.raises(
        UserError, match=r"does not say how images were prepared .* one of standardised, scaled, imagenet"
    ):
        load_model(tmp_path / "model.pth")
    again, facts = load_model(tmp_path / "model.pth", "scaled")
    assert again.inputs == "scaled"
    assert same_weights(net, again) and facts == {} and not again.training
    assert again.config == net.config


BARE = dict(make(wiring="unet++").state_dict())
SPOILT = [("conv0_1.conv1.weight", (4, 11, 3, 3)), ("conv0_0.conv1.weight", (4,)), ("conv1_0.conv1.weight", ())]
SPOILT += [("final1.weight", ()), ("extra", (1,))]
STRANGE = [{"weights": {}}, {"config": {}}, ["config", "weights"], torch.ones(3), "text", {"state_dict": 5}, {}]
STRANGE += [BARE | {"epoch": 3}, {name: value for name, value in BARE.items() if name != "conv0_1.bn2.bias"}]
STRANGE += [BARE | {name: torch.zeros(shape)} for name, shape in SPOILT]
STRANGE += [make(wiring="unet+", deep_supervision=deep).state_dict() for deep in (True, False)]  # U-Net^e has the same


@pytest.mark.parametrize("content", STRANGE)
def test_files_of_something_else_are_refused(tmp_path, content):
    save(content, tmp_path / "model.pt")
    with pytest.raises(UserError, match=r"model\.pt holds no model of this course"):
        load_model(tmp_path / "model.pt")


@pytest.mark.parametrize("name", ["", ".", ".."])
def test_a_folder_without_a_name_of_its_own_is_refused(name, tmp_path, monkeypatch):
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    with pytest.raises(UserError, match="is no name for a new folder"), files.whole_folder(name):
        raise AssertionError("not reached")


def test_a_folder_is_whole_or_absent(tmp_path):
    with pytest.raises(ZeroDivisionError), files.whole_folder(tmp_path / "new") as scratch:
        (scratch / "half").touch()
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "new").mkdir()  # an empty one is taken
    with files.whole_folder(tmp_path / "new") as scratch:
        (scratch / "all").touch()
        assert all(path.name.startswith(".") for path in (tmp_path / "new").iterdir())
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["all"]
    assert len(list(tmp_path.iterdir())) == 1


def test_plain_values_come_back_and_others_are_refused_when_they_are_saved(tmp_path):
    net, path = NestedUNet(np.int64(3), np.uint8(2), np.array([4, 6])), tmp_path / "model.pt"
    save_model(
        net, path, size=np.int32(96), data=Path("own"), tiles=np.bool_(True), note=(1, np.float32(0.5)), seed=None
    )
    again, facts = load_model(path)
    assert facts == {"size": 96, "data": "own", "tiles": True, "note": [1, 0.5], "seed": None}
    assert again.config == net.config and {type(value) for value in (*again.config["widths"], facts["size"])} == {int}
    for facts, said in (
        ({"note": object()}, "is of type object: give text, numbers"),
        ({"note": [[[[[[1]]]]]]}, "is of type list"),
        ({"size": 0}, "says that size is '0', and that is not a number of pixels from 16 to 1024"),
        ({"tiles": "no"}, "that is not true or false"),
        ({"classes": ["a", 3]}, "that is not a list of names"),
        ({"weights": 3}, "facts are called weights, as what is saved anyway"),
    ):
        with pytest.raises(UserError, match=said):
            save_model(net, path, **facts)
    assert load_model(path)[1]["size"] == 96
    with pytest.raises(UserError, match="a Linear cannot be saved as a model: choose one of NestedUNet"):
        save_model(nn.Linear(2, 2), path)


def test_what_wraps_a_net_is_taken_off(tmp_path):
    net = make(wiring="unet++")
    for name, wrapped in {
        "a": nn.DataParallel(net),
        "b": torch.compile(net),
        "c": torch.compile(nn.DataParallel(net)),
    }.items():
        save_model(wrapped, tmp_path / name)
        assert same_weights(net, load_model(tmp_path / name)[0])
        torch.save(wrapped.state_dict(), tmp_path / "bare")
        assert same_weights(net, load_model(tmp_path / "bare", "standardised")[0])
    for options in ({"_use_new_zipfile_serialization": False}, {"pickle_protocol": 4}, {}):
        torch.save(net, tmp_path / "whole", **options)
    with pytest.raises(
        UserError, match=r"whole holds whole Python objects \(.*\), .*: write torch\.save\(net\.state_dict"
    ):
        load_model(tmp_path / "whole")


def test_the_preparation_of_images_is_kept_and_not_changed(tmp_path):
    net = make()
    net.inputs = "imagenet"
    save_model(net, tmp_path / "model.pt")
    assert (
        load_model(tmp_path / "model.pt")[0].inputs
        == load_model(tmp_path / "model.pt", "imagenet")[0].inputs
        == "imagenet"
    )
    with pytest.raises(UserError, match="says that images are imagenet for its net, not scaled: leave inputs out"):
        load_model(tmp_path / "model.pt", "scaled")
    with pytest.raises(UserError, match="inputs 'odd' are unknown: choose one of standardised"):
        load_model(tmp_path / "model.pt", "odd")
    content = load(tmp_path / "model.pt")
    save({key: value for key, value in content.items() if key != "inputs"}, tmp_path / "old.pt")
    assert load_model(tmp_path / "old.pt")[0].inputs == "standardised"  # as it was before files said it


HUGE = [
    {"widths": [10**20, 4, 6]},
    {"widths": [2**20] * 3},
    {"widths": [4] * 10**6},
    {"widths": [[4], 6, 8]},
    {"classes": -1},
]
HUGE += [
    {"widths": 5},
    {"widths": [4.0, 6, 8]},
    {"widths": [True, float("nan"), 8]},
    {"in_channels": 10**9},
    {"wiring": []},
]


@pytest.mark.parametrize("change", HUGE)
def test_nets_that_cannot_be_are_not_built(tmp_path, change):
    net = make()
    save({"config": net.config | change, "weights": net.state_dict()}, tmp_path / "model.pt")
    with pytest.raises(UserError, match=r"model\.pt holds weights that do not fit their own config"):
        load_model(tmp_path / "model.pt")
