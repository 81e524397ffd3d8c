"""`make soak`: minutes of mixed load against a real server whose store, render processes and sources fail in between.

`system` starts the server and the stand-ins around it, `phases` is the schedule of what fails, `visitors` sends the requests, `load` runs
them against a system, `memory` samples the processes, and `report` and `chart` show the result.
"""
