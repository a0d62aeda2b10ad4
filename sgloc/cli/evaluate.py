"""`sgloc evaluate`."""

import os

from sgloc.cli.parsing import add_shared, new_parser, parse, show
from sgloc.orphan import die_with_parent


def evaluate(words: list[str]) -> None:
    """Measure a trained model on all test drawings: Rec, Ret, and how far strokes are from their right places.

    In one process, or in any number under torchrun, with the same result; on a CPU each uses one core. An evaluation
    that was stopped goes on when it is started again.
    """
    if "TORCHELASTIC_RUN_ID" in os.environ:
        die_with_parent()
    from sgloc.evaluate.tasks import DEFAULT_TASKS, parse_tasks

    parser = new_parser("evaluate", evaluate)
    add_shared(parser, "checkpoint", "data", "out")
    parser.add_argument(
        "--classifier",
        default="",
        type=str,
        help="run of `sgloc train-classifier` on the same shards; without it Rec is not measured",
    )
    parser.add_argument("--tasks", default=DEFAULT_TASKS, help="what is redrawn, comma-separated")
    parser.add_argument("--count", type=int, default=0, help="sketches, spread evenly over the split; 0: all")
    parser.add_argument("--resamples", type=int, default=1000, help="of the bootstrap")
    parser.add_argument("--seed", type=int, default=0, help="seed of disturbance, sampling and bootstrap")
    add_shared(parser, "split", "temperature", "max_points", "batch_size", "device")
    options = parse(parser, words, "checkpoint", "data", "out")
    from sgloc import dist
    from sgloc.evaluate.run import TABLES, EvaluateOptions
    from sgloc.evaluate.run import evaluate as run
    from sgloc.evaluate.tables import overall
    from sgloc.memory import keep_freed_memory

    wanted = EvaluateOptions(
        tasks=parse_tasks(options.tasks),
        split=options.split,
        count=options.count,
        temperature=options.temperature,
        max_points=options.max_points,
        seed=options.seed,
        batch_size=options.batch_size,
        num_resamples=options.resamples,
    )
    placement = dist.resolve_placement(os.environ)
    device = dist.select_device(options.device, placement)
    if device.type == "cpu":
        keep_freed_memory()
    with dist.process_group(placement, device):
        results = run(
            options.checkpoint,
            options.data,
            options.classifier,
            options.out,
            wanted,
            device=device,
            rank=placement.rank,
            world_size=placement.world_size,
        )
    if results is not None:
        show(overall(results))
        show(f"\nby category: {options.out.rstrip('/')}/{TABLES}")
