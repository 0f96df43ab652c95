"""Know the files in a home directory in which tools keep settings, and which they read unasked.

Jobs do not see a private home. A tool would go on without its settings there, and its result could
differ: git shortens names as `.gitconfig` says. Therefore such a file is *sealed*, like a program
that jobs must not see: the command that opens it runs on the master's machine.
"""

from collections.abc import Iterator, Mapping

# Below the home directory. Tools for people only (editors, pagers) are left out.
_IN_HOME = """
    .gitconfig .gitattributes .hgrc .ctags .cshrc .tcshrc .zshenv .profile .bash_profile .bash_login
    .rpmmacros .quiltrc .devscripts .npmrc .yarnrc .yarnrc.yml .babelrc .prettierrc .eslintrc .eslintrc.json
    .clang-format .clang-tidy .indent.pro .astylerc .editorconfig .shellcheckrc .perltidyrc .perlcriticrc .proverc
    .pylintrc .mypy.ini .style.yapf .pydistutils.cfg .pypirc .pip/pip.conf .rubocop.yml .gemrc .latexmkrc
    .Rprofile .Renviron .R/Makevars .octaverc .gdbinit .lldbinit .valgrindrc .fonts.conf .ccache/ccache.conf
    .m2/settings.xml .gradle/gradle.properties .gradle/init.gradle .mavenrc .sbtopts .bazelrc .cabal/config
    .stack/config.yaml .ansible.cfg .sbclrc
"""
# Below $XDG_CONFIG_HOME, which is ~/.config if it is not set.
_IN_CONFIG = """
    git/config git/attributes git/ignore ccache/ccache.conf pip/pip.conf dpkg/buildflags.conf rpm/macros pylintrc
    flake8 pycodestyle mypy/config yapf/style fontconfig/fonts.conf
"""
# Two lines of text, because a list of words reads better than one of literals.
IN_HOME, IN_CONFIG = tuple(_IN_HOME.split()), tuple(_IN_CONFIG.split())


def settings_files(environment: Mapping[str, str]) -> Iterator[str]:
    """Yield the absolute paths at which commands of this environment may find settings."""
    home = environment.get("HOME", "").rstrip("/")
    config = environment.get("XDG_CONFIG_HOME", "").rstrip("/") or f"{home}/.config"
    if home.startswith("/"):
        yield from (f"{home}/{name}" for name in IN_HOME)
    if config.startswith("/"):
        yield from (f"{config}/{name}" for name in IN_CONFIG)
