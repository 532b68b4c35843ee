"""This repository's experiments: doors to the commands, and three rooms.

    grid, report, reach, stability, refinements, alignment, real
                doors to `lra_jax.lab`, as are the commands of the installed wheel
    reproduce, benchmark, device, wall_time, pages
                doors to the rooms
    paper       the paper's protocol, tables and figures
    speed       how fast it is
    site        the numbers in README and docs/

`python -m experiments` lists the commands.
"""
