"""The network (METHOD 5 to 7).

Shapes in this package: B sketches, S nodes, P points, R rows of a time-major sequence batch, H units, D = 2H node
    width, Z latent width.
Weights of recurrent cells are [inputs, outputs] and their gates stand in the order i, j, f, o.
"""
