"""`darkroom doctor`: finds what is wrong with a server's settings and with everything around it.

Each module has one or two checks, which return findings; `command` runs and prints them.
"""
