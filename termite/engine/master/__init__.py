"""Run the jobs of one tree.

Here live the daemon, the shared state, one job from top to bottom, its results and notices.
Mirrors and control commands get their answers here.
The room imports every other room of the engine except `worker`. Only the command line imports it.
Do not touch: `run_job` stays one function that is read from top to bottom, and results reach the
disk only through the tree. A rule, a schedule or a format belongs in the room that decides it.
"""
