"""Write checkpoints with TensorFlow, in a separate process because TensorFlow and PyTorch cannot share one.

`python write_tf.py FOLDERS` saves the arrays of each folder's all.safetensors twice, as vector-100 and vector-2000.
"""

import sys

import safetensors.numpy
import tensorflow  # type: ignore[import-untyped, unused-ignore]

v1 = tensorflow.compat.v1
for folder in sys.argv[1:]:
    arrays = safetensors.numpy.load_file(f"{folder}/all.safetensors")
    with tensorflow.Graph().as_default(), v1.Session() as session:
        variables = [v1.get_variable(name, initializer=tensorflow.constant(array)) for name, array in arrays.items()]
        session.run(v1.global_variables_initializer())
        for step in (100, 2000):
            v1.train.Saver(variables).save(session, f"{folder}/vector", global_step=step)
