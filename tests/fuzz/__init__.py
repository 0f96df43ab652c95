"""Give the C programs mutated inputs (`make fuzz`).

`targets/` has one program for each input, `corpus/` the seeds of each target, and `seeds.py` makes
them with the packers of the product. `python -m tests.fuzz` runs the targets.
"""
