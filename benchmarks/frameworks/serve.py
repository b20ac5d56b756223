"""One way in a process of its own, started by `fedrec bench frameworks`: the module's arguments are WAY and FOLDER.

It answers with one line of JSON when it is ready, and after each line `round` on its standard input; `save` writes the
sum of the last round into the folder.
"""

import json
import os
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

from benchmarks.frameworks.work import ClientWork, sum_file
from fedrec.recsys.model.lora import Adapter
from fedrec.recsys.tensors import save_tensors


def build_round(way: str, work: ClientWork) -> tuple[str, Callable[[], Adapter]]:
    """Return the framework of a way, and a function that runs a round. Raises `ImportError` if it is not installed."""
    if way == "pfl":
        from benchmarks.frameworks import with_pfl

        return "pfl", with_pfl.build_round(work)
    from benchmarks.frameworks import with_blazefl

    trainers = {"blazefl-threads": with_blazefl.Threads, "blazefl-processes": with_blazefl.Processes}
    return "blazefl", with_blazefl.build_round(work, trainers[way])


def main(way: str, folder: Path) -> None:
    """Answer the driver until it closes the standard input."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what a framework prints is no answer

    def answer(**content: str) -> None:
        print(json.dumps(content), file=answers, flush=True)

    try:
        framework, run_round = build_round(way, ClientWork.open(folder))
    except ImportError as error:
        return answer(missing=str(error))
    answer(framework=framework, version=version(framework), torch=version("torch"), python=sys.version.split()[0])
    total: Adapter = {}
    for line in sys.stdin:
        if line.strip() == "round":
            total = run_round()
        else:
            save_tensors(sum_file(folder, way), total)
        answer(did=line.strip())
    return None


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
