"""Sweeps: grids of runs from a YAML file, executed by worker processes and resumable.

`sweep_file` reads the file, `grid` makes the runs, `runs` reads their state from disk, `schedule`
submits them to `executors` (or `cluster`), whose processes run `worker`, and `progress` prints.
"""
