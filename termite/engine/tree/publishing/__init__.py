"""Write the results of jobs to the user's tree, once, whenever any process is killed.

Here live the staging directory, the plan of what is done, the steps that do it, and the way to
finish a plan of another process. Nothing else of termite changes the user's files. This room may
use the rest of engine/tree; only MasterTree and termite-redo use this room.
"""
