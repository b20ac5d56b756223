"""The cohort engine compared with federated simulators that train one client after the other: BlazeFL and pfl-research.

The frameworks live in an environment of their own, since pfl needs an older `dp-accounting` than fedrec. From a clone's
root, with `make install` done:

    python3.11 -m venv var/frameworks
    var/frameworks/bin/pip install -c constraints.txt torch==2.13.0
    var/frameworks/bin/pip install -c constraints.txt -e .
    var/frameworks/bin/pip install -r benchmarks/frameworks/pfl.txt
    var/frameworks/bin/pip install --no-deps --ignore-requires-python -r benchmarks/frameworks/blazefl.txt
    .venv/bin/fedrec bench frameworks --python var/frameworks/bin/python --json > benchmarks/frameworks.json

BlazeFL asks for Python 3.12. The code of its version 2.0.3 runs on 3.11 as it is; the flag of the fifth line permits
it, so that all have the same Python and the same torch. Use a newer Python if torch has a CPU build for it.

Each framework trains the same 64 clients of the made-up federation of `fedrec bench engine`: the same model, histories,
negatives, precision and clipping, one local step each. `same_update` is how far its sum of changes is from that of the
engine, as a share of the largest number. A framework's round ends with that sum; the engine's, of 1,000 clients, also
holds the server's step. Settings, chosen to be each framework's best on a processor:

* BlazeFL: `ThreadPoolClientTrainer`, and `ProcessPoolClientTrainer` with shared memory, each with a worker per core and
  one torch thread per worker. The processes are forked, and inherit model and histories: if they were spawned, each
  round would import torch again. A change travels as one vector, as in BlazeFL's own FedAvg. The threads would be
  faster on a Python without a global lock.
* pfl: `SimulatedBackend` with `FederatedAveraging` and `NormClippingOnly`, datasets in memory, no evaluation; a process
  per core with one torch thread each, joined by `torch.distributed`, as pfl's guide to fast simulations describes.

A framework's ratio is that of its faster way.
"""
