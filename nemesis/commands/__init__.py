"""The commands `python -m nemesis VERB`, one file each."""
