"""Building blocks of the networks (METHOD 5 to 7).

Shapes in this package: B sketches, S nodes, P points, R rows of a time-major batch of sequences, H units, D = 2H node
    width, Z latent width.
Weights of recurrent cells are [inputs, outputs]; the gate order is i, j, f, o.
"""
