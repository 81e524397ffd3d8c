"""`make dashboard`: a real Prometheus watches a soak in which everything fails once, and the panels of Grafana's dashboard are drawn.

`scenario` is what happens to the servers, `panels` reads the dashboard and queries Prometheus as Grafana does, and `drawing` makes the
picture.
"""
