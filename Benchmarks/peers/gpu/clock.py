"""Times work on the GPU by the device's own events, as `apus bench --device cuda` does."""

import statistics

import torch


def in_turn(works, rounds, warmup=3):
    """Seconds of each work by round, the works taking turns; a work is a list of callables timed one after another.

    The host waits at the very end: between two works the device is never idle for want of orders.
    """
    for _ in range(warmup):
        for work in works:
            for part in work:
                part()
    torch.cuda.synchronize()
    marks = [[] for _ in works]
    for _ in range(rounds):
        for index, work in enumerate(works):
            row = [mark()]
            for part in work:
                part()
                row.append(mark())
            marks[index].append(row)
    torch.cuda.synchronize()
    return [[[a.elapsed_time(b) / 1e3 for a, b in zip(row, row[1:])] for row in rows] for rows in marks]


def medians(works, rounds, warmup=3):
    """The median seconds of works of one part each."""
    return [statistics.median(row[0] for row in rows)
            for rows in in_turn([[work] for work in works], rounds, warmup)]


def mark():
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event
