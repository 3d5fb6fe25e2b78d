"""Thirty processes at once on one shared cache and one shared home: python benchmarks/classroom.py [--store]

A server on this machine stands in for the publisher of BBBC038 and counts what it sends; $COURSE_BBBC038_ARCHIVE is
the archive. Every process draws a figure, fetches and prepares the data set, and hashes all pixels.
"""

import argparse
import functools
import http.server
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from course_lib.data.cache import read, sha256_of
from course_lib.results import machine, store

LEARNER = """
import sys, time
from hashlib import sha256
started = time.time()
from course_lib import data, show
url, digest = sys.argv[1:]
data.SOURCES["bbbc038"] = data.SOURCES["bbbc038"]._replace(url=url, sha256=digest)
splits = data.load("bbbc038", 64, download=True, progress=False)
show.overlay(splits.val.images[:2], splits.val.masks[:2])
everything = data.join(splits)
pixels = everything.images.numpy().tobytes() + everything.labels.numpy().tobytes()
print(sha256(pixels).hexdigest(), time.time() - started)
"""


class Counting(http.server.SimpleHTTPRequestHandler):
    sent: list[int] = []  # noqa: RUF012  bytes of each answer, over all requests

    def copyfile(self, source, outputfile) -> None:
        content = source.read()
        outputfile.write(content)
        self.sent.append(len(content))

    def log_message(self, *_) -> None:
        pass


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--processes", type=int, default=30)
    parser.add_argument("--store", action="store_true", help="write data/results/classroom.json")
    args = parser.parse_args()
    archive = Path(os.environ["COURSE_BBBC038_ARCHIVE"])
    digest, here = sha256_of(archive), machine()
    handler = functools.partial(Counting, directory=archive.parent)
    with tempfile.TemporaryDirectory() as room, http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/{archive.name}"
        env = {**os.environ, "COURSE_DATA": f"{room}/cache", "HOME": f"{room}/home", "OMP_NUM_THREADS": "1"}
        env |= {"NO_PROXY": "127.0.0.1", "MPLBACKEND": "agg", "XDG_CACHE_HOME": f"{room}/home/.cache"}
        del env["COURSE_BBBC038_ARCHIVE"]
        Path(room, "home").mkdir()
        started = time.perf_counter()
        learners = [
            subprocess.Popen(
                [sys.executable, "-c", LEARNER, url, digest],
                env=env,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for _ in range(args.processes)
        ]
        said = [learner.communicate() for learner in learners]
        seconds = time.perf_counter() - started
        server.shutdown()
        failed = [err for learner, (_, err) in zip(learners, said, strict=True) if learner.returncode]
        pixels = {out.split()[0] for out, _ in said if out}
        slowest = max((float(out.split()[1]) for out, _ in said if out), default=0.0)
        files = sorted(path for path in Path(room).rglob("*") if path.is_file())
        whole = sum(read(path) is not None for path in files if path.suffix == ".npz")
        whole += sum(sha256_of(path) == digest for path in files if path.suffix == ".zip")
        row = {
            "processes": args.processes,
            "failed": len(failed),
            "different results": len(pixels),
            "seconds": round(seconds, 1),
            "slowest": round(slowest, 1),
            "downloads": len(Counting.sent),
            "megabytes downloaded": round(sum(Counting.sent) / 1e6, 1),
            "data files whole": whole,
            "left behind": sum(path.suffix == ".partial" or path.name.startswith("tmp") for path in files),
        }
    print(json.dumps(row, indent=1), *failed[:1], sep="\n")
    if args.store:
        about = (
            "Processes that start at once on one shared cache and one shared home; each fetches and prepares BBBC038."
        )
        print(store("classroom", [row], about=about, command="python benchmarks/classroom.py --store", measured=here))
    assert not failed and len(pixels) == 1


if __name__ == "__main__":
    main()
