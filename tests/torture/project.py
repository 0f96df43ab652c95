"""The synthetic project as files, for make, ninja or CMake.

The three builds have the same steps. With make, each group is a directory with a makefile of its
own (recursive make). CMake has the steps as custom commands, and a library and a program besides.
"""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from tests.torture.steps import LIBRARIES, Size, Step, all_steps, included

# The shell of this command stays; the commands of its pipe are jobs that read a pipe.
RULES = '[{"Regexp": "seq 2000", "Local": true, "Recurse": true}]\n'


class Tool(Enum):
    """A tool is the program that builds the project."""

    MAKE = "make"
    NINJA = "ninja"
    CMAKE = "cmake"


@dataclass(frozen=True, slots=True)
class Project:
    """A project is all that determines the files of the tree.

    `is_repeatable` as for `all_steps`.
    """

    seed: int
    tool: Tool
    size: Size
    is_repeatable: bool

    def steps(self) -> list[Step]:
        return all_steps(self.seed, self.size, is_repeatable=self.is_repeatable)

    def sources(self) -> dict[str, str]:
        """Return the content of each file of the project by its path."""
        files = {**_sources(self.seed, self.size), ".termite-localrc": RULES}
        match self.tool:
            case Tool.MAKE:
                files.update(_makefiles(self.steps()))
            case Tool.NINJA:
                files["build.ninja"] = _ninja_file(self.steps())
            case Tool.CMAKE:
                files["CMakeLists.txt"] = _cmake_file(self.steps(), self.size)
        return files

    def prepare(self) -> list[list[str]]:
        """Return the commands that are run before the first build, without termite."""
        return [["cmake", "-S", ".", "-B", "build", "-G", "Unix Makefiles"]] if self.tool is Tool.CMAKE else []

    def command(self, jobs: int) -> list[str]:
        """Return the command line of a plain build; the front ends have `termite-` before it."""
        match self.tool:
            case Tool.MAKE:
                return ["make", f"-j{jobs}"]
            case Tool.NINJA:
                return ["ninja", "--quiet", f"-j{jobs}"]
            case Tool.CMAKE:
                return ["cmake", "--build", "build", f"-j{jobs}"]


def write_project(project: Project, top: Path, owner: int) -> None:
    """Write the files of the project below `top`, which exists, for the user `owner`."""
    for name, content in project.sources().items():
        path = top / name
        for directory in reversed(path.relative_to(top).parents[:-1]):
            (top / directory).mkdir(exist_ok=True)
            _own(top / directory, owner)
        path.write_text(content)
        path.chmod(0o755 if name.endswith(".sh") else 0o644)
        _own(path, owner)


def _own(path: Path, owner: int) -> None:
    if os.geteuid() == 0:
        os.chown(path, owner, owner)


def _sources(seed: int, size: Size) -> dict[str, str]:
    files = {
        "version.txt": f"{seed}\n",
        "tools/gen.sh": 'i=0; while [ $i -lt 9 ]; do echo "#define G${1}_$i ($2 + $i)" || exit 1; i=$((i+1)); done\n',
        "shadow.c": "#include <s.h>\nconst char *shadow = S;\nint n = N;\n",
        "late/s.h": '#define S "late"\n',
        "other/README": "Steps that make and rename directories.\n",
        "once/text": "one\ntwo\nthree\n",
        "once/change.diff": "--- text\n+++ text\n@@ -1,3 +1,4 @@\n one\n+inserted\n two\n three\n",
    }
    for number, (name, headers) in enumerate(included(seed, size).items()):
        function = name.partition("/")[2]
        lines = ["#include <stdio.h>"] if number % 3 == 0 else []
        lines += [f'#include "gen{header}.h"' for header in headers]
        total = " + ".join(f"G{header}_{number % 9}" for header in headers)
        files[f"{name}.c"] = "\n".join([*lines, f"int {function}(void) {{ return {total}; }}", ""])
    functions = [f"f{lib}_{n}" for lib in range(LIBRARIES) for n in range(size.objects)]
    for n in range(size.programs):
        declared = "".join(f"int {name}(void);\n" for name in functions)
        body = " ".join(f"s = s * 31 + {name}();" for name in functions[n:])
        files[f"app/p{n}.c"] = (
            f'#include <stdio.h>\n{declared}int main(void) {{ unsigned s = 0; {body} printf("%u\\n", s); return 0; }}\n'
        )
    return files


def _makefiles(steps: Iterable[Step]) -> dict[str, str]:
    groups: dict[str, list[Step]] = {}
    for step in steps:
        groups.setdefault(step.group, []).append(step)
    files = {}
    for group, members in groups.items():
        top = "." if group == "top" else group
        names = [os.path.relpath(step.output, top) for step in members]
        rules = [f".DELETE_ON_ERROR:\nall: {' '.join(names)}\n"]
        for step in members:
            inputs = " ".join(os.path.relpath(name, top) for name in step.inputs)
            output = os.path.relpath(step.output, top)
            rules.append(f"{output}: {inputs}\n\t@{step.script.replace('$', '$$')}\n")
        files["Makefile" if group == "top" else f"{group}/Makefile"] = "".join(rules)
    below = [group for group in groups if group != "top"]
    headers = " ".join(step.output for step in groups["top"] if step.output.startswith("include/"))
    libraries = " ".join(group for group in below if group.startswith("lib"))
    recursion = f".PHONY: all {' '.join(below)}\nall: {' '.join(below)}\n"
    recursion += "".join(f"{group}: {headers}\n\t@$(MAKE) --no-print-directory -C {group}\n" for group in below)
    # The values of this variable come from commands that print, wait and print again.
    value = "VALUE := $(shell echo first; sleep 0.2; echo second)\nall: value.out\nvalue.out:\n\t@echo '$(VALUE)' >$@\n"
    files["Makefile"] += f"{recursion}app: {libraries}\n{value}"
    return files


def _ninja_file(steps: Iterable[Step]) -> str:
    lines = ["ninja_required_version = 1.5", "rule run", "  command = $words", "  description = $out"]
    for step in steps:
        inputs = " ".join(step.inputs)
        words = f"cd {step.within} && {step.script}".replace("$", "$$")
        lines += [f"build {step.output}: run {inputs}", f"  words = {words}"]
    return "\n".join([*lines, ""])


def _cmake_file(steps: Iterable[Step], size: Size) -> str:
    lines = [
        "cmake_minimum_required(VERSION 3.16)",
        "project(tortured C)",
        "set_property(GLOBAL PROPERTY RULE_MESSAGES OFF)",
    ]
    outputs = []
    for step in steps:
        output = f"${{CMAKE_SOURCE_DIR}}/{step.output}"
        outputs.append(output)
        inputs = " ".join(f"${{CMAKE_SOURCE_DIR}}/{name}" for name in step.inputs)
        lines += [
            f"add_custom_command(OUTPUT {output} DEPENDS {inputs}",
            f"  COMMAND sh -c [==[{step.script}]==]",
            f'  WORKING_DIRECTORY ${{CMAKE_SOURCE_DIR}}/{step.within} COMMENT "" VERBATIM)',
        ]
    lines.append(f"add_custom_target(steps ALL DEPENDS {' '.join(outputs)})")
    functions = " ".join(f"lib0/f0_{n}.c" for n in range(size.objects))
    lines += [
        f"add_library(both STATIC {functions})",
        "target_include_directories(both PRIVATE include/g0 include/g1 include/g2)",
        "add_dependencies(both steps)",
    ]
    return "\n".join([*lines, ""])
