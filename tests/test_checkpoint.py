"""Files of weights: whole or absent, bit-equal after the round trip, and no code runs when they are read."""

import os
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from course_lib import files
from course_lib.errors import UserError
from course_lib.files import write
from course_lib.grid import NestedUNet
from course_lib.relatives import RELATIVES
from course_lib.train.checkpoint import config_of, load, load_model, same_weights, save, save_model

OPTIONS = {"in_channels": 2, "classes": 3, "widths": (4, 6, 10), "wiring": "unet+", "deep_supervision": True}


def make(seed=0, **options):
    torch.manual_seed(seed)
    net = NestedUNet(**(OPTIONS | options))
    net(torch.rand(2, net.config["in_channels"], 8, 12))  # statistics of its own
    return net


# Writing


@pytest.mark.parametrize("content", ["Zellkerne: größer als 8 px\n", b"\x00\xff\r\n", ""])
def test_what_is_written_is_read(tmp_path, content):
    path = tmp_path / "new" / "folder" / "file.bin"
    write(path, content)
    assert path.read_bytes() == (content.encode() if isinstance(content, str) else content)
    assert list(path.parent.iterdir()) == [path]
    write(str(path), b"again")
    assert path.read_bytes() == b"again"


def full_disk(*args):
    raise OSError(28, "No space left on device")


def test_a_full_disk_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "model.pt"
    write(path, b"old")
    monkeypatch.setattr(files.os, "fsync", full_disk)
    with pytest.raises(UserError, match=r"model\.pt cannot be written \(No space left on device\): free some space"):
        write(path, b"new and longer")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]  # no half of a file fills the disk


def test_a_move_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "model.pt"
    write(path, b"old")
    monkeypatch.setattr(Path, "replace", full_disk)
    monkeypatch.setattr(files.os, "replace", full_disk)
    with pytest.raises(UserError, match="cannot be written"):
        write(path, b"new")
    assert path.read_bytes() == b"old"


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
    assert path.read_bytes() == b"newer"
    assert list(tmp_path.iterdir()) == [path]


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


def test_content_that_cannot_be_packed_leaves_the_old_file(tmp_path):
    path = tmp_path / "checkpoint.pt"
    save({"epoch": 1}, path)
    with pytest.raises((AttributeError, TypeError, pickle.PicklingError)):
        save({"epoch": 2, "open": (n for n in range(3))}, path)
    assert load(path) == {"epoch": 1}
    assert list(tmp_path.iterdir()) == [path]


# Round trips


def test_any_plain_content_comes_back(tmp_path):
    content = {"epoch": 3, "lr": 0.1, "rows": [{"loss": 1.5}], "state": torch.arange(4), "name": None}
    save(content, tmp_path / "c.pt")
    found = load(tmp_path / "c.pt")
    assert torch.equal(found.pop("state"), content.pop("state"))
    assert found == content


@pytest.mark.parametrize("options", [{}, {"wiring": "unet", "deep_supervision": False}])
def test_a_model_comes_back_bit_for_bit(tmp_path, options):
    net = make(**options)
    save_model(net, tmp_path / "model.pt", data="synthetic", size=96)
    again, facts = load_model(tmp_path / "model.pt")
    assert facts == {"data": "synthetic", "size": 96}
    assert again.config == net.config
    assert not again.training
    assert net.training
    assert same_weights(net, again)
    image = torch.rand(1, 2, 8, 12)
    assert all(torch.equal(a, b) for a, b in zip(net.eval()(image), again(image), strict=True))


def test_saving_the_same_net_twice_gives_the_same_bytes(tmp_path):
    paths = [tmp_path / name / "model.pt" for name in ("a", "b")]
    for path in paths:
        save_model(make(), path, size=96)
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_weights_in_another_memory_layout_are_saved_plainly(tmp_path):
    net = make()
    save_model(net.to(memory_format=torch.channels_last), tmp_path / "model.pt")
    assert not net.conv1_0.conv1.weight.is_contiguous()
    assert load(tmp_path / "model.pt")["weights"]["conv1_0.conv1.weight"].is_contiguous()
    assert same_weights(net, load_model(tmp_path / "model.pt")[0])


def test_same_weights_sees_every_difference():
    net = make()
    assert same_weights(net, make())
    assert not same_weights(net, make(seed=1))
    assert not same_weights(net, net.prune(1))
    other = make()
    other.conv0_0.bn1.running_mean[0] += 1e-6
    assert not same_weights(net, other)


# What cannot be read


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"nowhere\.pt is not there: give the path of a file that `train` wrote"):
        load(tmp_path / "nowhere.pt")
    with pytest.raises(UserError, match="is not there"):
        load(tmp_path)


@pytest.mark.parametrize("kept", [0, 1, 100, 0.5, 0.99])
def test_truncated_files_are_refused(tmp_path, kept):
    path = tmp_path / "model.pt"
    save_model(make(), path)
    whole = path.read_bytes()
    path.write_bytes(whole[: kept if isinstance(kept, int) else int(kept * len(whole))])
    with pytest.raises(UserError, match=r"model\.pt is damaged or no file of weights"):
        load_model(path)


@pytest.mark.parametrize(
    "content", [b"hello", b"a,b\n1,2\n", b"0", b"e", b"\x89PNG\r\n\x1a\n", b"PK\x03\x04", b"\x80\x02N"]
)
def test_other_files_are_refused(tmp_path, content):
    path = tmp_path / "model.pt"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"model\.pt is damaged or no file of weights"):
        load(path)


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
    with pytest.raises(UserError, match=r"model\.pt is damaged or no file of weights"):
        read(path)
    assert not trace.exists()
    pickle.loads(pickle.dumps(Hostile(trace)))
    assert trace.exists()  # the trap does work


@pytest.mark.parametrize("content", [{"weights": {}}, {"config": {}}, [1, 2], torch.ones(3), "config weights"])
def test_files_of_something_else_are_refused(tmp_path, content):
    save(content, tmp_path / "model.pt")
    with pytest.raises(UserError, match=r"model\.pt holds no model of this course"):
        load_model(tmp_path / "model.pt")


@pytest.mark.parametrize(
    "change",
    [
        {"widths": [4, 6, 12]},
        {"widths": [4, 6]},
        {"wiring": "unet++"},
        {"wiring": "unet3+"},
        {"deep_supervision": False},
        {"in_channels": 3},
        {"unheard_of": 1},
        {"widths": None},
    ],
)
def test_weights_that_do_not_fit_their_config_are_refused(tmp_path, change):
    net, path = make(), tmp_path / "model.pt"
    save({"config": net.config | change, "weights": net.state_dict()}, path)
    with pytest.raises(UserError, match=r"model\.pt holds weights that do not fit their own config"):
        load_model(path)


@pytest.mark.parametrize("weights", [None, [1], {}, {"conv0_0.conv1.weight": "text"}])
def test_weights_that_are_none_are_refused(tmp_path, weights):
    save({"config": make().config, "weights": weights}, tmp_path / "model.pt")
    with pytest.raises(UserError, match="do not fit their own config"):
        load_model(tmp_path / "model.pt")


# Files of bare weights


@pytest.mark.parametrize(
    "options",
    [
        {"wiring": "unet", "deep_supervision": False},
        {"wiring": "unet++", "deep_supervision": False},
        {"wiring": "unet++", "deep_supervision": True, "widths": (4, 6), "in_channels": 1, "classes": 2},
    ],
)
@pytest.mark.parametrize("wrapped", ["plain", "state_dict", "module."])
def test_bare_weights_with_the_published_names_load(tmp_path, options, wrapped):
    net = make(**options)
    content = dict(net.state_dict())
    if wrapped == "state_dict":
        content = {"epoch": 3, "state_dict": content}
    elif wrapped == "module.":
        content = {f"module.{name}": value for name, value in content.items()}
    save(content, tmp_path / "model.pth")
    again, facts = load_model(tmp_path / "model.pth")
    assert same_weights(net, again) and facts == {} and not again.training
    assert again.config == net.config


@pytest.mark.parametrize("wiring", ["unet+", "unet-e"])
def test_bare_weights_that_two_wirings_share_are_not_guessed(wiring):
    assert config_of(make(wiring=wiring).state_dict()) is None


@pytest.mark.parametrize(
    "spoil",
    [
        lambda weights: weights.pop("conv0_1.bn2.bias"),
        lambda weights: weights.update({"conv0_1.conv1.weight": torch.zeros(4, 11, 3, 3)}),
        lambda weights: weights.update({"conv0_0.conv1.weight": torch.zeros(4)}),
        lambda weights: weights.update({"extra": torch.zeros(1)}),
        lambda weights: weights.clear(),
    ],
)
def test_foreign_weights_are_refused(tmp_path, spoil):
    weights = dict(make(wiring="unet++").state_dict())
    spoil(weights)
    save(weights, tmp_path / "foreign.pth")
    with pytest.raises(UserError, match=r"foreign\.pth holds no model of this course"):
        load_model(tmp_path / "foreign.pth")


@pytest.mark.parametrize("name", RELATIVES)
def test_every_relative_comes_back_bit_for_bit(tmp_path, name):
    torch.manual_seed(0)
    net = RELATIVES[name](in_channels=3, classes=1, widths=(4, 6, 10))
    save_model(net, tmp_path / "model.pt", size=32)
    again, facts = load_model(tmp_path / "model.pt")
    assert type(again) is type(net) and again.config == net.config and facts == {"size": 32}
    assert same_weights(net, again)


def test_a_kind_of_net_that_is_not_ours_is_refused(tmp_path):
    net = make()
    save({"net": "print", "config": {}, "weights": net.state_dict()}, tmp_path / "model.pt")
    with pytest.raises(UserError, match="do not fit their own config"):
        load_model(tmp_path / "model.pt")


# Folders


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
