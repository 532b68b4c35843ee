"""Runs of `lra_jax` from configs to reports; everything that touches files is here.

In this order, each file importing only those of lines above its own:

    terminal, cache                          what is printed, what is kept
    command_line, machine, progress, canvas  what all commands have in common
    markdown, results, published             text, tables, the paper's numbers
    datasets, draws, optimizers              what a config may name,
    arguments                                and what of it may be said
    extensions, notation                     names of a user's own; what TOML wants
    config                                   what is asked for, checked
    groups, summary                          members of one program; the report's table
    fingerprint                              by which code a result was made
    store                                    the run folder
    web_page                                 the report as a page,
    figures                                  and its figures
    workload, timings, torch_baseline        how fast it is: what is timed, and how;
    variants, ceiling, benchmark_report      the ways to do it, and what bounds them
    benchmark, wall_time                     commands
    agreement, roofline, kernels, schedule   an accelerator: does it agree, its limits,
    device_cells                             what is measured of it,
    device_report                            and shown;
    device                                   command
    gradient_flow, curriculum, costs, cells  what is observed of rules, and of runs
    protocol                                 what the reproduction trains
    tables, paper_figures                    its tables and figures
    gradient_flow_figures, bench_figures
    pictures                                 of all results, drawn from their CSVs
    run                                      trains chunk by chunk, and reports
    grid, report                             commands
    runner                                   many runs, which go on where they stand
    alignment, refinements, reproduce        commands that train many,
    bench                                    of which two compare methods:
    reach, real
    stability                                after a bench of reach
    pages                                    their numbers in README and docs/
"""
