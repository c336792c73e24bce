"""Operations between GPUs by torch.distributed over NCCL: the peer of `apus bench collectives --device cuda`.

Run it as `mpirun -n 2 python3 collectives.py`, a process for each GPU of one machine. What is done, how often, and how
it is timed are those of `apus bench collectives`: a round queues executions one after another and waits for the last; a
time is that of the rank where it was longest, the median over rounds. Rank 0 prints one JSON object.
"""

import argparse
import json
import os
import statistics
import time

import torch
import torch.distributed as dist

operations = ["all-reduce", "reduce-scatter", "all-gather", "broadcast", "all-to-all", "uneven all-to-all",
              "send and receive"]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[1 << (10 + 2 * step) for step in range(9)])
    parser.add_argument("--only", nargs="+", choices=operations, default=operations)
    parser.add_argument("--seconds", type=float, default=0.2)
    parser.add_argument("--port", type=int, default=29617)
    args = parser.parse_args()
    rank = int(os.environ["OMPI_COMM_WORLD_RANK"])
    ranks = int(os.environ["OMPI_COMM_WORLD_SIZE"])
    torch.cuda.set_device(rank)
    dist.init_process_group("nccl", init_method=f"tcp://127.0.0.1:{args.port}", rank=rank, world_size=ranks,
                            device_id=torch.device("cuda", rank))
    results = []
    with torch.no_grad():
        for operation in args.only:
            for size in args.sizes:
                results.append(measure(operation, size, args.seconds, rank, ranks))
    if rank == 0:
        version = ".".join(str(part) for part in torch.cuda.nccl.version())
        print(json.dumps({"program": "torch", "version": torch.__version__, "messages_by": f"NCCL {version}",
                          "ranks": ranks, "results": results}))
    dist.destroy_process_group()


def measure(operation, size, seconds, rank, ranks):
    count = max(size // 4 // ranks, 1) * ranks
    work = prepare(operation, count, rank, ranks)
    elapsed(work, 2)
    first = slowest([elapsed(work, 3)])[0]
    repeats = max(1, min(200, int(0.004 / max(first, 1e-7))))
    rounds = min(max(int(seconds / max(first * repeats, 1e-7)), 5), 25)
    times = []
    for _ in range(rounds):
        dist.barrier()
        torch.cuda.synchronize()
        times.append(elapsed(work, repeats))
    times = slowest(times)
    middle = statistics.median(times)
    return {"operation": operation, "bytes": count * 4, "seconds": middle, "fastest_seconds": min(times),
            "slowest_seconds": max(times), "rounds": rounds,
            "bus_gb_per_second": bus_share(operation, ranks) * count * 4 / middle / 1e9}


def prepare(operation, count, rank, ranks):
    def ones(elements):
        return torch.ones(elements, device="cuda")

    if operation == "all-reduce":
        x = ones(count)
        return lambda: dist.all_reduce(x)
    if operation == "reduce-scatter":
        x, y = ones(count), ones(count // ranks)
        return lambda: dist.reduce_scatter_tensor(y, x)
    if operation == "all-gather":
        x, y = ones(count // ranks), ones(count)
        return lambda: dist.all_gather_into_tensor(y, x)
    if operation == "broadcast":
        x = ones(count)
        return lambda: dist.broadcast(x, 0)
    if operation == "all-to-all":
        x, y = ones(count), ones(count)
        return lambda: dist.all_to_all_single(y, x)
    if operation == "uneven all-to-all":
        x, y = ones(count), ones(count)
        sent, received = uneven_splits(rank, ranks, count)
        return lambda: dist.all_to_all_single(y, x, received, sent)
    x, y = ones(count), ones(count)

    def exchange():
        messages = [dist.P2POp(dist.isend, x, (rank + 1) % ranks),
                    dist.P2POp(dist.irecv, y, (rank + ranks - 1) % ranks)]
        for work in dist.batch_isend_irecv(messages):
            work.wait()

    return exchange


def uneven_splits(rank, ranks, rows):
    """To itself 1 / N of the rows, to the others in proportion to the distance."""
    own = rows // ranks
    unit = max(ranks * (ranks - 1) // 2, 1)
    parts = [own if distance == 0 else (rows - own) * distance // unit for distance in range(ranks)]
    parts[ranks - 1] += rows - sum(parts)
    return ([parts[(other - rank) % ranks] for other in range(ranks)],
            [parts[(rank - other) % ranks] for other in range(ranks)])


def elapsed(work, repeats):
    begin = time.perf_counter()
    for _ in range(repeats):
        work()
    torch.cuda.synchronize()
    return (time.perf_counter() - begin) / repeats


def slowest(seconds):
    """Each number's largest over the ranks."""
    values = torch.tensor(seconds, device="cuda", dtype=torch.float64)
    dist.all_reduce(values, dist.ReduceOp.MAX)
    return values.tolist()


def bus_share(operation, ranks):
    """Bytes that a link carries at least for each byte of the operation: the definitions of nccl-tests."""
    others = (ranks - 1) / ranks
    if operation == "all-reduce":
        return 2 * others
    return 1 if operation in ("broadcast", "send and receive") else others


if __name__ == "__main__":
    main()
