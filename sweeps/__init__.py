"""Sweeps: grids of runs from a YAML file, run by workers that survive, resumed when started again.

`sweep_file` reads the file, `grid` makes the runs, `runs` says what became of each, `worker` does
one, `executors` are where it is done, `schedule` gives them out, `progress` reports.
"""
