"""Sweeps: grids of runs from a YAML file, run by workers that survive, resumed when started again.

`sweep_file` reads the file, `grid` makes the runs, `runs` says what became of each, `working` does
one, `pools` are where it is done, `schedule` gives them out, `telling` says how it went.
"""
