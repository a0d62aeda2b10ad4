"""`sgloc evaluate`."""

import os

from sgloc.cli.parsing import new_parser, parse
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
    parser.add_argument(
        "--checkpoint",
        required=True,
        help="a checkpoint; a run's folder, of which the best is taken; or an exported model's folder",
    )
    parser.add_argument("--data", required=True, help="folder or URL of shards")
    parser.add_argument(
        "--classifier",
        default="",
        type=str,
        help="run of `sgloc train-classifier` on the same shards; without it Rec is not measured",
    )
    parser.add_argument("--out", required=True, help="folder or URL to write to")
    parser.add_argument("--tasks", default=DEFAULT_TASKS, help="what is redrawn, comma-separated")
    parser.add_argument("--split", choices=["train", "valid", "test"], default="test", help="which sketches")
    parser.add_argument("--count", type=int, default=0, help="sketches, spread evenly over the split; 0: all")
    parser.add_argument("--temperature", type=float, default=0.0, help="0: greedy; above: sample, 0.24 as published")
    parser.add_argument(
        "--max_points",
        type=int,
        default=0,
        help="most points of a drawing; 0: as many as the longest drawing of the training data has",
    )
    parser.add_argument("--batch_size", type=int, default=256, help="sketches computed together")
    parser.add_argument("--resamples", type=int, default=1000, help="of the bootstrap")
    parser.add_argument("--seed", type=int, default=0, help="seed of disturbance, sampling and bootstrap")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto", help="where to compute")
    options = parse(parser, words, "checkpoint", "data", "out")
    from sgloc import dist
    from sgloc.evaluate.results import overall
    from sgloc.evaluate.run import TABLES, EvaluateOptions
    from sgloc.evaluate.run import evaluate as run
    from sgloc.memory import keep_freed_memory
    from sgloc.train.loggers.terminal import tell

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
            say=tell,
        )
    if results is not None:
        print(overall(results))
        print(f"\nby category: {options.out.rstrip('/')}/{TABLES}")
