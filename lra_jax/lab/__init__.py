"""The lab: from a config to a report, `lra-jax COMMAND`.

The library never imports it. Its rooms, each importing only those before it:

    terminal, data      the machine and the screen; recorded data
    config              what is asked for
    reports             what people read
    runs                training into a folder
    flow                what is observed of rules
    benches             rules compared

`grid` and `report` are the commands that are no bench.
"""
