"""Known generators of sources: bison and flex, with the m4 that they execute.

Nobody vouches for m4 itself: its macros run programs and make random names. Texts that bison and
flex give it are quoted, and their own skeletons do neither.
"""

import re

from termite import NOT_CALLED, KnownTool, ToolCall, Vouch, refuse_all
from termite.plugins.known.tool_options import read_options

_OTHER_PROGRAMS = ("M4", "BISON_PKGDATADIR")
# A skeleton of the user's is a program for m4.
_SKELETON = ("%skeleton", "%language")
_COUNTEREXAMPLES = re.compile(r"-W.*(?:cex|counter|everything)|-r|--report|--warnings")
_BISON_LONG = (
    "defines header output file-prefix name-prefix verbose debug no-lines token-table yacc graph define force-define"
    " color locations"
)
_FLEX_LONG = (
    "outfile header-file prefix noline fast full batch interactive bison-bridge bison-locations reentrant nodefault"
    " case-insensitive lex-compat posix-compat yylineno never-interactive always-interactive 8bit 7bit c++ stdout"
    " noyywrap yywrap array pointer debug read nounistd unistd nounput nowarn"
)


def _judge_bison(call: ToolCall) -> Vouch | str:
    options = read_options(call.args, "dvtlky", "obpDFW", _BISON_LONG, "output file-prefix name-prefix")
    if any(_COUNTEREXAMPLES.match(word) for word in call.args):
        return "counterexamples, which are as many as the time allows"
    if isinstance(options, str):
        return options
    return _refused_environment(call) or Vouch(makes_text=True, unwanted_texts=_SKELETON)


def _judge_flex(call: ToolCall) -> Vouch | str:
    options = read_options(call.args, "bdfhilnstwBFILRX78+?", "oPC", _FLEX_LONG)
    if isinstance(options, str):
        return options
    if len(options.operands) != 1:
        return "a text from standard input"
    return _refused_environment(call) or Vouch(makes_text=True, unwanted_texts=("m4_", "M4_"))


def _refused_environment(call: ToolCall) -> str:
    set_ones = [name for name in _OTHER_PROGRAMS if call.env.get(name)]
    return f"{set_ones[0]} is set" if set_ones else ""


GENERATORS = (
    KnownTool("bison", "bison(?:-[0-9.]+)?", ("GNU Bison",), _judge_bison, helpers=("m4",)),
    KnownTool("flex", "flex", ("Flex requires GNU M4",), _judge_flex, helpers=("m4",)),
    KnownTool("m4", NOT_CALLED, ("GNU M4",), refuse_all, programs="m4", asks=("/proc/self/maps",)),
)
