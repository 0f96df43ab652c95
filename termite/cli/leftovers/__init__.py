"""Clean up after daemons that were killed: what they leave, and who removes it.

Here live the footprints, in which a daemon writes down its places, and the sweep of these places.
The room may import `places.py`, `client.py` and `logs/` of cli/, and the engine.
Do not touch: footprints.py starts with every build, so it imports little.
"""
