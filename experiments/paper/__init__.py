"""The reproduction of the paper: what is trained, and its tables and figures.

    budgets, rows, configs      what is trained: how much, which rules, as configs
    curriculum, recordings      what is made besides runs, and kept beside them
    artefacts                   a file for each table or figure
    figures, pictures           figures drawn from the artefacts' CSVs
    reproduce                   the command

What the authors' program computes is `lra_jax.paper`; the numbers that are printed are
`lra_jax.lab.benches.published`.
"""
