"""Making the bundled weights: pairs of patches from free pictures and real encoders, and one loop.

The complete form of each run, in the order to spend hours in. `CLEAN` and `VIDEO` are folders of pairs for the scale N:

    CLEAN    data PICTURES CLEAN --scale N --clean 800 --compressed 0 --per-clip 4 --clip-frames 2 --soft 0.1 --widest 4
                 --recoded 0 --parts 0 --sways 0 --shutter 0
                 for x3 and x4 also --frame 72 96 --patch 72: of larger frames a picture has too few to be sharp
                 (then VIDEO with --patch 72 as well: patches of one run have one size)
    VIDEO    data PICTURES VIDEO --scale N --clean 0 --compressed 1200 --per-clip 4

    a2n-tiny x2    train CLEAN VIDEO RUN --n-features 16 --n-blocks 4 --head pixelshuffle --clean-share 0.25 --steps 60000
                       --learning-rate 1e-3
    a2n-video      train CLEAN VIDEO RUN --start A2N --clean-share 0.25 --steps 40000
    a2n            train CLEAN RUN --start A2N_X2 --clean-share 1 --steps 50000      (x3, x4: the trunk is taken, the head is new)

all with `--loss psnr`; on a processor with `--optimiser muon --side 32`, on a card with `--batch 16 --side 64 --workers 3`.
What a bundled file really had is in its card. On a lent card `--minutes M` ends the schedule by the clock; leave a minute for the
last judging. Pictures are what is short: in 7,500 steps on a card x3 won 0.29 dB on those it was trained on and 0.10 dB on
held-out ones. Folders name their files, and a pair of a file that another folder of the run holds out is left out.

Several runs on few busy cores go faster with `--threads 1` each: two threads that wait for one another stand still whenever either is
held up.
"""
