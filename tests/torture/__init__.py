"""The torture test: real daemons build a synthetic project, and one fault hits each build.

`make torture` runs it for some minutes; docs/develop/faults.md says what is injected and checked.
A round is one build with one fault. Everything random in a round comes from its seed. A fault says
nothing about the result: what is right is always what a plain build makes of the same project.

A module here may use the places and the snapshots of tests/e2e. pytest collects nothing here;
tests/faults runs some rounds.
"""
