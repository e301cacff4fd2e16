"""Folders of runs: their names, files and locks; `record.Run` is one run's."""
