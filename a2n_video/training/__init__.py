"""Making the bundled weights: pairs of patches from free pictures and real encoders, and one loop.

The complete form of each run, in the order to spend hours in (`PAIRS` made by `data PICTURES PAIRS`, with `--scale 4` for x4):

    a2n-tiny x2    train PAIRS RUN --n-features 16 --n-blocks 4 --head pixelshuffle --learning-rate 1e-3 --steps 60000
    a2n-video x2   train PAIRS RUN --start A2N_X2 --learning-rate 4e-4 --steps 40000
    a2n x2         train PAIRS RUN --start A2N_X2 --clean-share 1 --steps 50000
    x3, x4         train PAIRS RUN --start A2N_X2 --steps 15000      (a2n with --clean-share 1; the trunk is taken, the head is new)

What a bundled file really had is in its card. Several runs on few busy cores go faster with `--threads 1` each: two threads that
wait for one another stand still whenever either is held up.
"""
