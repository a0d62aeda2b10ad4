"""Conversion of a TensorFlow checkpoint to a safetensors file: `python -m sgloc.hub.read_tf CHECKPOINT FILE`.

It runs in a process of its own because TensorFlow and PyTorch load libraries that conflict within one process.
"""

import os
import re
import sys

import numpy as np
import safetensors.numpy

# Variables that training adds to a checkpoint besides the model.
_OF_TRAINING = re.compile(r"(.*/)?(Adam(_\d+)?|beta[12]_power|num_of_steps|global_step)$")
NO_TENSORFLOW = 3


def main() -> None:
    """Write the model's variables; the number of other variables goes to the file's metadata."""
    checkpoint, file = sys.argv[1:]
    # Silence TensorFlow's notes about the processor, unless the user has set a log level.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    try:
        from tensorflow.train import load_checkpoint
    except ImportError as error:
        print(error, file=sys.stderr)
        sys.exit(NO_TENSORFLOW)
    reader = load_checkpoint(checkpoint)
    names = sorted(reader.get_variable_to_shape_map())
    wanted = [name for name in names if not _OF_TRAINING.fullmatch(name)]
    variables = {name: np.ascontiguousarray(reader.get_tensor(name)) for name in wanted}
    safetensors.numpy.save_file(variables, file, {"left": str(len(names) - len(wanted))})


if __name__ == "__main__":
    main()
