"""Writes checkpoints with TensorFlow, which cannot live in one process with PyTorch: `python write_tf.py VARIABLES
FOLDER` saves the arrays of a safetensors file twice, as vector-100 and vector-2000."""

import sys

import safetensors.numpy
import tensorflow  # type: ignore[import-untyped, unused-ignore]

v1 = tensorflow.compat.v1
arrays = safetensors.numpy.load_file(sys.argv[1])
with tensorflow.Graph().as_default(), v1.Session() as session:
    variables = [v1.get_variable(name, initializer=tensorflow.constant(array)) for name, array in arrays.items()]
    session.run(v1.global_variables_initializer())
    for step in (100, 2000):
        v1.train.Saver(variables).save(session, f"{sys.argv[2]}/vector", global_step=step)
