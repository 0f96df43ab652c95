"""Built-in plugins: one module or package for each build tool.

`make`, `ninja`, `cmake`, `meson`, `cargo` and `go` live here, and `runners` for smaller tools that
start commands like make. The plugin of another build tool goes here, too. No new front end is
needed then: `termite-build TOOL` (termite/cli/build_commands/build.py) starts each tool that a
plugin knows. Four plugins are of no build tool:

* `caches` names the caches that programs keep outside the tree.
* `known` vouches for tools whose results may be used after one execution.
* `machine` keeps commands here that only the user's own machine can carry out.
* `tool_managers` shows jobs the tools of pyenv, nvm and the like.

A plugin's hooks say how its tool is started, and which of its commands run where.
The hooks are described in `termite/engine/decide/hookspecs.py`. The list of built-in plugins is in
`termite/cli/master_command.py`, and pyproject.toml has it again as entry points.
A plugin may import the package `termite`, and no other module of ours.
Do not touch: the hooks run inside the master, so they do no I/O and do not wait.
"""
