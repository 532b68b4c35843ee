"""This repository's experiments: doors to the commands, and four rooms.

    grid, report, reach, stability, refinements, alignment, real
                doors to `lra_jax.lab`, as are the commands of the installed wheel
    reproduce, benchmark, network_speed, wall_time, device, rule_table, leaderboard,
    forward_alignment, feedback_error, pages
                doors to the rooms
    paper       the paper's protocol, tables and figures
    speed       how fast an update is, in all the ways to do it
    accelerator what a GPU or TPU gives
    site        the numbers in README and docs/

`python -m experiments` lists the commands.
"""
